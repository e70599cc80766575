import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { ForwardingCompiler } from '../../../src/selection/compiler.js';
import { createHasher } from '../../../src/selection/flow-hash.js';
import { Picker } from '../../../src/selection/picker.js';
import type { SimulationOutcome } from '../../../src/whatif/simulate.js';
import { LogRecorder, randomFlows } from '../whatif/recorded-flows.js';
import { settings } from '../control/settings.js';
import { FakeAdmin } from './fake-admin.js';
import { FakeDeps } from './fake-deps.js';

const RULE = {
  ...{ name: 'ha', frontend: 'hub', backendPool: 'nvas', probe: 'alive' },
  ...{ haPorts: true, listenPorts: '8000-8099' },
};

const CONFIGURATION = {
  frontends: [{ name: 'hub', address: '127.0.0.1' }],
  probes: [{ name: 'alive', protocol: 'tcp', port: 9000 }],
  backendPools: [
    {
      name: 'nvas',
      backends: [1, 2, 3].map((number) => ({ name: `nva-${number}`, address: `127.0.0.${10 + number}` })),
    },
  ],
  rules: [RULE],
};

const ANSWER: SimulationOutcome = { revision: 7, configDigest: 'c'.repeat(64), rules: [] };

let admin: FakeAdmin;
const files = new Map<string, object | string>();

before(async () => {
  admin = await new FakeAdmin().start();
  admin.answers.set('POST /v1/simulate', { json: ANSWER });
});

after(() => admin.stop());

beforeEach(() => {
  admin.seen.length = 0;
  files.set('config.json', CONFIGURATION);
});

async function simulate(...args: readonly string[]) {
  const deps = new FakeDeps();
  deps.env['HAPORTS_SOCKET'] = admin.socket;
  for (const [name, content] of files) deps.files.set(name, content);
  const code = await deps.run('simulate', ...args);
  return { code, stdout: deps.stdout, stderr: deps.stderr };
}

async function refused(...args: readonly string[]): Promise<string> {
  const { code, stderr } = await simulate(...args);
  assert.equal(code, 2, args.join(' '));
  return stderr;
}

/** Lines of a report, none wider than 80 columns. */
function assertNarrow(text: string): void {
  for (const line of text.split('\n')) assert.ok(line.length <= 80, line);
}

describe('haports simulate of a running process', () => {
  test('asks what the options suppose', async () => {
    const { code, stdout } = await simulate(
      ...['--down', 'nvas/nva-1', '--up', 'nvas/nva-2', '--drain', 'nvas/nva-3'],
      ...['--admin-state', 'nvas/nva-1=down', '--admin-state', 'nvas/::1=none'],
      ...['--weight', 'nvas/nva-2=50', '--live'],
    );
    assert.equal(code, 0);
    assert.deepEqual(
      admin.seen.map(({ body }) => JSON.parse(body) as unknown),
      [
        {
          suppose: [
            { backend: 'nvas/nva-1', health: 'down' },
            { backend: 'nvas/nva-2', health: 'up' },
            { backend: 'nvas/nva-3', draining: true },
            { backend: 'nvas/nva-1', adminState: 'down' },
            { backend: 'nvas/::1', adminState: 'none' },
            { backend: 'nvas/nva-2', weight: 50 },
          ],
          population: { kind: 'live' },
        },
      ],
    );
    assert.match(stdout, /Followed\s+the flows that live now/);
    const generated = await simulate('--flows', '5', '--sources', '4', '--seed', '3', '--json');
    assert.deepEqual(JSON.parse(admin.seen.at(-1)?.body ?? ''), {
      suppose: [],
      population: { kind: 'generated', flows: 5, sources: 4, seed: 3 },
    });
    assert.deepEqual(JSON.parse(generated.stdout), ANSWER);
  });

  test('refuses what it cannot read', async () => {
    for (const args of [
      ['--weight', 'nvas/nva-1'],
      ['--weight', 'nvas/nva-1=257'],
      ['--weight', 'nvas/nva-1=configured'],
      ['--admin-state', 'nvas/nva-1=off'],
      ['--admin-state', 'nvas/nva-1=configured'],
      ['--live', '--offline', 'config.json'],
      ['--live', '--flow-log', 'flow.log'],
    ]) {
      assert.match(await refused(...args), /^haports: LB_USAGE: [^\n]+\n$/);
    }
    assert.deepEqual(admin.seen, []);
  });
});

describe('haports simulate of a file', () => {
  const OFFLINE = ['--offline', 'config.json'] as const;

  test('shows within 80 columns where flows go, and asks no process', async () => {
    const { code, stdout } = await simulate(...OFFLINE, '--down', 'nvas/nva-2');
    assert.equal(code, 0);
    assert.deepEqual(admin.seen, []);
    assertNarrow(stdout);
    assert.match(stdout, /What if\s+nvas\/nva-2: probe down/);
    assert.match(stdout, /Rule ha: 10,000 flows/);
    assert.match(stdout, /nva-2\s+nvas\/127\.0\.0\.12\s+3\d\.\d %\s+0\.0 %\s+-3\d\.\d %/);
    assert.match(stdout, /nva-1\s+nvas\/127\.0\.0\.11\s+3\d\.\d %\s+[45]\d\.\d %\s+\+1\d\.\d %/);
    assert.match(stdout, /UDP\s+3,\d{3} stay, 1,\d{3} move/);
  });

  test('says when no backend takes the flows', async () => {
    const down = [1, 2, 3].flatMap((number) => ['--down', `nvas/nva-${number}`]);
    const { stdout } = await simulate(...OFFLINE, ...down, '--flows', '100');
    assert.match(stdout, /no backend for 0 before, 100 after/);
  });

  test('tells what is wrong with the file, and exits 2', async () => {
    assert.match(await refused(...OFFLINE, '--down', 'nvas/nva-9'), /LB_UNKNOWN_BACKEND/);
    files.set('config.json', { rules: [] });
    assert.match(await refused(...OFFLINE), /error/);
  });
});

describe('haports simulate of a flow log', async () => {
  const hash = await createHasher();
  const log = new LogRecorder(new ForwardingCompiler(hash), new Picker(hash));
  log.epoch(settings());
  for (const tuple of randomFlows(2000, 3)) log.place(tuple);
  const LOG = ['--flow-log', 'flow.log', '--down', 'nvas/nva-2'] as const;

  test('shows within 80 columns where its flows go, and asks no process', async () => {
    files.set('flow.log', `${log.text}{"torn`);
    const { code, stdout } = await simulate(...LOG);
    assert.equal(code, 0);
    assert.deepEqual(admin.seen, []);
    assertNarrow(stdout);
    const words = stdout.replaceAll(/\s+/g, ' ');
    assert.match(words, /Followed the flows of flow\.log, each .* the last 100,000 at most/);
    assert.match(words, /2,000 flows started in it, 2,000 distinct ones; 1 line damaged/);
    assert.match(words, /revision 1: the last epoch of the log; no process was asked/);
    assert.match(stdout, /Rule ha-ports: 2,000 flows/);
    assert.match(stdout, /nva-2\s+nvas\/10\.0\.0\.2\s+3\d\.\d %\s+0\.0 %/);
    const cut = await simulate(...LOG, '--last', '500', '--json');
    const { recorded, rules } = JSON.parse(cut.stdout) as SimulationOutcome;
    assert.deepEqual([recorded?.distinct, recorded?.isCut, rules[0]?.followed], [500, true, 500]);
  });

  test('starts from the file that --offline names', async () => {
    files.set('flow.log', log.text);
    const ask = (configuration: object) => {
      files.set('config.json', configuration);
      return simulate(...LOG, '--offline', 'config.json');
    };
    const { stdout } = await ask({ ...CONFIGURATION, rules: [{ ...RULE, name: 'ha-ports' }] });
    assert.match(stdout, /every probe up: no process was asked/);
    assert.match(stdout, /nva-1\s+nvas\/127\.0\.0\.11\s+0\.0 %\s+[45]\d\.\d %/);
    const none = await ask(CONFIGURATION);
    assert.match(
      none.stdout.replaceAll(/\s+/g, ' '),
      /2,000 not followed: the configuration has no rule of that name/,
    );
    assert.equal((await ask({ rules: [] })).code, 2);
  });

  test('refuses a file that cannot be read', async () => {
    assert.match(await refused('--flow-log', 'missing.log'), /LB_USAGE: .*"missing\.log".*ENOENT/);
  });
});
