import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import type { PlanOutcome } from '../../../src/api/views.js';
import { FakeAdmin, problem } from './fake-admin.js';
import { FakeDeps } from './fake-deps.js';
import { outcome } from './plan-fixture.js';

const PLAN = 'POST /v1/plan';

function configuration(backends: readonly string[], more: object = {}): object {
  return {
    frontends: [{ name: 'hub', address: '127.0.0.1' }],
    backendPools: [{ name: 'nvas', backends: backends.map((address) => ({ address })) }],
    rules: [{ name: 'web', frontend: 'hub', backendPool: 'nvas', protocol: 'tcp', frontendPort: 8080 }],
    ...more,
  };
}

const FILES = {
  'old.json': configuration(['127.0.0.11', '127.0.0.12']),
  'new.json': configuration(['127.0.0.11', '127.0.0.12', '127.0.0.13']),
  'bad.json': configuration(['nowhere']),
};

let admin: FakeAdmin;

before(async () => {
  admin = await new FakeAdmin().start();
});

after(() => admin.stop());

beforeEach(() => {
  admin.answers.set(PLAN, { json: outcome() });
  admin.seen.length = 0;
});

async function plan(...args: readonly string[]) {
  const deps = new FakeDeps();
  deps.env['HAPORTS_SOCKET'] = admin.socket;
  for (const [name, content] of Object.entries(FILES)) deps.files.set(name, content);
  const code = await deps.run('plan', ...args);
  return { code, stdout: deps.stdout, stderr: deps.stderr };
}

describe('haports plan of a running process', () => {
  test('sends the text of the file and exits 0, or 3 above the gate', async () => {
    assert.equal((await plan('new.json')).code, 0);
    assert.equal(admin.seen[0]?.body, JSON.stringify(FILES['new.json']));
    // The fixture moves a quarter.
    assert.equal((await plan('new.json', '--max-moved', '25%')).code, 0);
    const refused = await plan('new.json', '--max-moved', '24.99%');
    assert.equal(refused.code, 3);
    assert.match(refused.stdout, /25 % of a rule's hash space at most, more than the 24\.99 %\s+allowed/);
  });

  test('tells what is wrong with a configuration and exits 2', async () => {
    const findings = [{ severity: 'error', code: 'LB_VALUE', path: 'rules[0]', message: 'No such pool' }];
    admin.answers.set(PLAN, problem(422, 'LB_CONFIG_INVALID', 'It cannot be used', { findings }));
    const told = await plan('new.json');
    assert.equal(told.code, 2);
    assert.match(told.stdout, /new\.json: error LB_VALUE rules\[0\]: No such pool/);
    assert.deepEqual(JSON.parse((await plan('new.json', '--json')).stdout), { findings });
  });

  test('passes other problems on, and refuses a file that is not there', async () => {
    admin.answers.set(PLAN, problem(409, 'LB_CONFLICT', 'The balancer has not started yet'));
    const refused = await plan('new.json');
    assert.deepEqual([refused.code, refused.stdout], [1, '']);
    assert.match(refused.stderr, /LB_CONFLICT/);
    const missing = await plan('missing.json');
    assert.equal(missing.code, 2);
    assert.match(missing.stderr, /LB_USAGE: .*"missing\.json".*ENOENT/);
  });
});

describe('haports plan of two files', () => {
  const AGAINST = ['--against', 'old.json'] as const;

  test('asks no process and says so', async () => {
    const { code, stdout } = await plan('new.json', ...AGAINST);
    assert.equal(code, 0);
    assert.match(stdout, /no process was\s+asked/);
    assert.doesNotMatch(stdout, /Live flows/);
    assert.match(stdout, /1 added, 0 removed, 0 changed\n {2}\+ nvas\/127\.0\.0\.13/);
    const { report } = JSON.parse((await plan('new.json', ...AGAINST, '--json')).stdout) as PlanOutcome;
    // A third goes to the new one, and Maglev moves a little more.
    assert.ok(report.movedShare > 0.33 && report.movedShare < 0.37);
    assert.equal((await plan('new.json', ...AGAINST, '--max-moved', '0.02')).code, 3);
    assert.equal((await plan('old.json', ...AGAINST, '--max-moved', '0')).code, 0);
    assert.deepEqual(admin.seen, []);
  });

  test('tells findings of the new one, and refuses an old one that cannot be used', async () => {
    const bad = await plan('bad.json', ...AGAINST);
    assert.equal(bad.code, 2);
    assert.match(bad.stdout, /bad\.json:1:\d+: error .*nowhere/);
    const refused = await plan('new.json', '--against', 'bad.json');
    assert.equal(refused.code, 2);
    assert.match(refused.stderr, /LB_USAGE/);
  });
});
