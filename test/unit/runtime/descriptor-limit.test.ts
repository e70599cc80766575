import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';

const MODULE = new URL('../../../src/runtime/machine.js', import.meta.url).href;
const SCRIPT = `import { descriptorLimit } from ${JSON.stringify(MODULE)}; console.log(descriptorLimit());`;

/** What a process says that the shell started under this limit; Node raises the soft one to the hard one itself. */
function under(limit: string): string {
  const command = `ulimit -n ${limit} && exec "$0" --input-type=module -e "$1"`;
  const { stdout, stderr } = spawnSync('sh', ['-c', command, process.execPath, SCRIPT], { encoding: 'utf8' });
  assert.equal(stderr, '');
  return stdout.trim();
}

test('descriptorLimit() is what the shell set', () => {
  assert.equal(under('256'), '256');
  assert.equal(under('1000'), '1000');
});
