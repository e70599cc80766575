import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { runCommand } from '../support/commands.js';
import { whyNoNamespaces } from '../support/lab.js';

const SCRIPT = join(process.cwd(), 'deploy', 'hub-and-spoke', 'lab.sh');
/** So that what a killed test leaves is found by the next one. */
const LAB = `haptest-${process.pid}-hub`;

describe('deploy/hub-and-spoke/lab.sh', { skip: whyNoNamespaces('bash') }, () => {
  const folder = mkdtemp(join(tmpdir(), 'haports-hub-'));

  async function lab(verb: string): Promise<{ readonly code: number | null; readonly text: string }> {
    const { code, stdout, stderr } = await runCommand(
      'env',
      [`LAB=${LAB}`, `TMPDIR=${await folder}`, SCRIPT, verb],
      { timeoutMs: 90_000 },
    );
    return { code, text: `${stdout}${stderr}` };
  }

  after(async () => {
    await lab('down');
    await rm(await folder, { recursive: true, force: true });
  });

  test('lab.sh shows flows that cross one firewall in both directions, and a failover', async () => {
    const up = await lab('up');
    assert.equal(up.code, 0, up.text);
    const shown = await lab('test');
    assert.equal(shown.code, 0, shown.text);
    assert.match(shown.text, /from spoke-1: TCP 200 of 200 answered/);
    assert.match(shown.text, /asked again: answered \d+ reset [1-9]\d* silent 0/);
    const again = await lab('up');
    assert.deepEqual(again, { code: 1, text: `lab: it is up already: ${SCRIPT} down\n` });
    assert.equal((await lab('down')).code, 0);
    assert.doesNotMatch((await runCommand('ip', ['netns', 'list'])).stdout, new RegExp(LAB));
  });

  test('lab.sh says how it is used', async () => {
    assert.deepEqual(await lab('sideways'), { code: 1, text: `lab: usage: ${SCRIPT} up|test|down\n` });
    assert.match((await lab('test')).text, /it is not up/);
  });
});
