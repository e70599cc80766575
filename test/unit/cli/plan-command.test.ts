import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { AdminProblem } from '../../../src/cli/client.js';
import { planCommand, type PlanOptions } from '../../../src/cli/plan.js';
import { parseConfiguration } from '../../../src/config/load.js';
import type { PlanOutcome } from '../../../src/api/views.js';
import { outcome } from './plan-fixture.js';

interface World {
  readonly files?: Readonly<Record<string, object>>;
  readonly answer?: () => PlanOutcome;
}

async function run(file: string, options: Partial<PlanOptions>, world: World) {
  let stdout = '';
  const sent: string[] = [];
  const { files = {} } = world;
  const textOf = (path: string): string => {
    const content = files[path];
    if (content === undefined) throw new Error(`ENOENT: no such file, open '${path}'`);
    return JSON.stringify(content);
  };
  const code = await planCommand(
    {
      out: (text) => (stdout += text),
      load: (path) => Promise.resolve(parseConfiguration(textOf(path))),
      readText: async (path) => Promise.resolve().then(() => textOf(path)),
      client: () =>
        Promise.resolve({
          plan: async ({ configuration: text }: { readonly configuration: string }) => {
            sent.push(text);
            return Promise.resolve().then(() => (world.answer ?? (() => outcome()))());
          },
        }),
    },
    file,
    { json: false, ...options },
  );
  return { code, stdout, sent };
}

function configuration(backends: readonly string[], more: object = {}): object {
  return {
    frontends: [{ name: 'hub', address: '127.0.0.1' }],
    backendPools: [{ name: 'nvas', backends: backends.map((address) => ({ address })) }],
    rules: [{ name: 'web', frontend: 'hub', backendPool: 'nvas', protocol: 'tcp', frontendPort: 8080 }],
    ...more,
  };
}

describe('planCommand() of a running process', () => {
  test('sends the text of the file and exits 0, or 3 above the gate', async () => {
    const files = { 'new.json': configuration(['127.0.0.11']) };
    const asked = await run('new.json', {}, { files });
    assert.equal(asked.code, 0);
    assert.deepEqual(asked.sent, [JSON.stringify(files['new.json'])]);
    // The fixture moves a quarter.
    assert.equal((await run('new.json', { maxMoved: 0.25 }, { files })).code, 0);
    const refused = await run('new.json', { maxMoved: 0.2499 }, { files });
    assert.equal(refused.code, 3);
    assert.match(refused.stdout, /25 % of a rule's hash space at most, more than the 24\.99 %\s+allowed/);
  });

  test('tells what is wrong with a configuration and exits 2', async () => {
    const finding = {
      severity: 'error',
      code: 'LB_VALUE',
      path: 'rules[0]',
      message: 'No such pool',
    } as const;
    const answer = (): PlanOutcome => {
      throw new AdminProblem('It cannot be used', 'LB_CONFIG_INVALID', 422, [finding]);
    };
    const files = { 'new.json': {} };
    const told = await run('new.json', {}, { files, answer });
    assert.equal(told.code, 2);
    assert.match(told.stdout, /new\.json: error LB_VALUE rules\[0\]: No such pool/);
    const json = await run('new.json', { json: true }, { files, answer });
    assert.deepEqual(JSON.parse(json.stdout), { findings: [finding] });
  });

  test('passes other problems on, and refuses a file that is not there', async () => {
    const answer = (): PlanOutcome => {
      throw new AdminProblem('The balancer has not started yet', 'LB_CONFLICT', 409, []);
    };
    await assert.rejects(run('new.json', {}, { files: { 'new.json': {} }, answer }), { code: 'LB_CONFLICT' });
    await assert.rejects(run('missing.json', {}, {}), {
      code: 'LB_USAGE',
      message: /"missing\.json".*ENOENT/,
    });
  });
});

describe('planCommand() of two files', () => {
  const files = {
    'old.json': configuration(['127.0.0.11', '127.0.0.12']),
    'new.json': configuration(['127.0.0.11', '127.0.0.12', '127.0.0.13']),
    'bad.json': configuration(['nowhere']),
  };

  test('asks no process and says so', async () => {
    const { code, stdout, sent } = await run('new.json', { against: 'old.json' }, { files });
    assert.equal(code, 0);
    assert.deepEqual(sent, []);
    assert.match(stdout, /no process was\s+asked/);
    assert.doesNotMatch(stdout, /Live flows/);
    assert.match(stdout, /1 added, 0 removed, 0 changed\n {2}\+ nvas\/127\.0\.0\.13/);
    const { report } = JSON.parse(
      (await run('new.json', { against: 'old.json', json: true }, { files })).stdout,
    ) as PlanOutcome;
    // A third goes to the new one, and Maglev moves a little more.
    assert.ok(report.movedShare > 0.33 && report.movedShare < 0.37);
    assert.equal((await run('new.json', { against: 'old.json', maxMoved: 0.02 }, { files })).code, 3);
    assert.equal((await run('old.json', { against: 'old.json', maxMoved: 0 }, { files })).code, 0);
  });

  test('tells findings of the new one, and refuses an old one that cannot be used', async () => {
    const bad = await run('bad.json', { against: 'old.json' }, { files });
    assert.equal(bad.code, 2);
    assert.match(bad.stdout, /bad\.json:1:\d+: error .*nowhere/);
    await assert.rejects(run('new.json', { against: 'bad.json' }, { files }), { code: 'LB_USAGE' });
  });
});
