import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ForwardingCompiler } from '../../../src/selection/compiler.js';
import { createHasher } from '../../../src/selection/flow-hash.js';
import { Picker } from '../../../src/selection/picker.js';
import type { ReplayReport } from '../../../src/whatif/replay.js';
import { LogRecorder, randomFlows } from '../whatif/recorded-flows.js';
import { settings } from '../control/settings.js';
import { FakeDeps } from './fake-deps.js';

const hash = await createHasher();
const log = new LogRecorder(new ForwardingCompiler(hash), new Picker(hash));
log.epoch(settings());
for (const tuple of randomFlows(5000, 4)) log.place(tuple);

async function replay(text: string, ...options: readonly string[]) {
  const deps = new FakeDeps();
  deps.files.set('flows.ndjson', text);
  return { code: await deps.run('replay', 'flows.ndjson', ...options), stdout: deps.stdout };
}

describe('haports replay', () => {
  test('exits 0 when every decision comes out as recorded', async () => {
    const { code, stdout } = await replay(log.text);
    assert.equal(code, 0);
    assert.equal(
      stdout,
      `flows.ndjson: all 5,000 decisions come out as recorded

Lines       5,002: 1 configuration, 1 epoch
Decisions   5,000: 5,000 made again
Agree       5,000
Differ      0
Not checked 0
`,
    );
  });

  test('exits 1 and names the line when one does not, within 80 columns', async () => {
    const victim = log.lines.findIndex((line) => line.includes('"backend":"nvas/10.0.0.1"'));
    const tampered = log.lines.map((line, index) =>
      index === victim ? line.replace('"backend":"nvas/10.0.0.1"', '"backend":"nvas/10.0.0.3"') : line,
    );
    const { code, stdout } = await replay([...tampered, '{"torn'].join(''));
    assert.equal(code, 1);
    for (const line of stdout.split('\n')) assert.ok(line.length <= 80, line);
    assert.match(stdout, /: 1 of 5,000 decisions come out differently\n/);
    assert.match(stdout, new RegExp(`\\n  line ${victim + 1}: (tcp|udp) 192`));
    assert.match(stdout, /recorded nvas\/10\.0\.0\.3,\s+must\s+be\s+nvas\/10\.0\.0\.1/);
    assert.match(stdout, /Damaged\s+1 line\n {2}line 5003: /);
    const json = await replay(tampered.join(''), '--json');
    assert.equal(json.code, 1);
    assert.equal((JSON.parse(json.stdout) as ReplayReport).differences[0]?.line, victim + 1);
  });

  test('does not claim that anything was proved where nothing could be', async () => {
    assert.match((await replay('')).stdout, /there is no decision in it/);
    const [, , ...flows] = log.lines;
    const unproved = await replay(flows.slice(0, 3).join(''));
    assert.equal(unproved.code, 0);
    assert.match(unproved.stdout, /none of 3 decisions could be made again/);
    assert.match(unproved.stdout, /3 of an epoch that is not in the file/);
  });

  test('refuses a file that cannot be read', async () => {
    const deps = new FakeDeps();
    assert.equal(await deps.run('replay', 'missing.ndjson'), 2);
    assert.match(deps.stderr, /LB_USAGE: .*"missing\.ndjson".*ENOENT/);
  });
});
