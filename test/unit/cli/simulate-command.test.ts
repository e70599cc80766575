import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { simulateCommand, type SimulateOptions } from '../../../src/cli/simulate.js';
import { ForwardingCompiler } from '../../../src/selection/compiler.js';
import { parseConfiguration } from '../../../src/config/load.js';
import type { Request } from '../../../src/api/contract.js';
import type { SimulationOutcome } from '../../../src/whatif/simulate.js';
import { readChunks } from '../../../src/runtime/files.js';
import { createHasher } from '../../../src/selection/flow-hash.js';
import { createPicker } from '../../../src/selection/picker.js';
import { inPieces, LogRecorder, randomFlows } from '../control/recorded-flows.js';
import { settings } from '../control/settings.js';

const CONFIGURATION = {
  frontends: [{ name: 'hub', address: '127.0.0.1' }],
  probes: [{ name: 'alive', protocol: 'tcp', port: 9000 }],
  backendPools: [
    {
      name: 'nvas',
      backends: ['nva-1', 'nva-2', 'nva-3'].map((name, index) => ({
        name,
        address: `127.0.0.${11 + index}`,
      })),
    },
  ],
  rules: [
    {
      name: 'ha',
      frontend: 'hub',
      backendPool: 'nvas',
      probe: 'alive',
      haPorts: true,
      listenPorts: '8000-8099',
    },
  ],
};

const ANSWER: SimulationOutcome = { revision: 7, configDigest: 'c'.repeat(64), rules: [] };

async function run(
  options: Partial<SimulateOptions>,
  configuration: object = CONFIGURATION,
  flowLog: () => AsyncIterable<Uint8Array> = () => assert.fail('no flow log is meant'),
) {
  let stdout = '';
  let stderr = '';
  const asked: Request<'simulate'>[] = [];
  const code = await simulateCommand(
    {
      out: (text) => (stdout += text),
      err: (text) => (stderr += text),
      readChunks: flowLog,
      load: () => Promise.resolve(parseConfiguration(JSON.stringify(configuration))),
      client: () =>
        Promise.resolve({
          simulate: (request: Request<'simulate'>) => {
            asked.push(request);
            return Promise.resolve(ANSWER);
          },
        }),
    },
    {
      ...{ down: [], up: [], drain: [], adminState: [], weight: [], live: false },
      ...{ last: 100_000, flows: 10_000, sources: 1000, seed: 0, json: false },
      ...options,
    },
  );
  return { code, stdout, stderr, asked };
}

describe('simulateCommand() of a running process', () => {
  test('asks what the options suppose', async () => {
    const { code, asked, stdout } = await run({
      ...{ down: ['nvas/nva-1'], up: ['nvas/nva-2'], drain: ['nvas/nva-3'] },
      ...{ adminState: ['nvas/nva-1=down', 'nvas/::1=none'], weight: ['nvas/nva-2=50'], live: true },
    });
    assert.equal(code, 0);
    assert.deepEqual(asked, [
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
    ]);
    assert.match(stdout, /Followed\s+the flows that live now/);
    const generated = await run({ flows: 5, sources: 4, seed: 3, json: true });
    assert.deepEqual(generated.asked[0]?.population, { kind: 'generated', flows: 5, sources: 4, seed: 3 });
    assert.deepEqual(JSON.parse(generated.stdout), ANSWER);
  });

  test('refuses what it cannot read', async () => {
    for (const options of [
      { weight: ['nvas/nva-1'] },
      { weight: ['nvas/nva-1=257'] },
      { weight: ['nvas/nva-1=configured'] },
      { adminState: ['nvas/nva-1=off'] },
      { live: true, offline: 'config.json' },
      { live: true, flowLog: 'flow.log' },
    ]) {
      await assert.rejects(run(options), { code: 'LB_USAGE' });
    }
  });
});

describe('simulateCommand() of a file', () => {
  test('shows within 80 columns where flows go, and asks no process', async () => {
    const { code, stdout, asked } = await run({ offline: 'config.json', down: ['nvas/nva-2'] });
    assert.equal(code, 0);
    assert.deepEqual(asked, []);
    for (const line of stdout.split('\n')) assert.ok(line.length <= 80, line);
    assert.match(stdout, /What if\s+nvas\/nva-2: probe down/);
    assert.match(stdout, /Rule ha: 10,000 flows/);
    assert.match(stdout, /nva-2\s+nvas\/127\.0\.0\.12\s+3\d\.\d %\s+0\.0 %\s+-3\d\.\d %/);
    assert.match(stdout, /nva-1\s+nvas\/127\.0\.0\.11\s+3\d\.\d %\s+[45]\d\.\d %\s+\+1\d\.\d %/);
    assert.match(stdout, /UDP\s+3,\d{3} stay, 1,\d{3} move/);
  });

  test('says when nobody takes the flows', async () => {
    const down = ['nvas/nva-1', 'nvas/nva-2', 'nvas/nva-3'];
    const { stdout } = await run({ offline: 'config.json', down, flows: 100 });
    assert.match(stdout, /Nobody\s+takes 0 before, 100 after/);
  });

  test('tells what is wrong with the file, and exits 2', async () => {
    const { code, stderr } = await run({ offline: 'config.json' }, { rules: [] });
    assert.equal(code, 2);
    assert.match(stderr, /error/);
    await assert.rejects(run({ offline: 'config.json', down: ['nvas/nva-9'] }), {
      code: 'LB_UNKNOWN_BACKEND',
    });
  });
});

describe('simulateCommand() of a flow log', async () => {
  const hash = await createHasher();
  const log = new LogRecorder(new ForwardingCompiler(hash), createPicker(hash));
  log.epoch(settings());
  for (const tuple of randomFlows(2000, 3)) log.place(tuple);
  const down = ['nvas/nva-2'];

  test('shows within 80 columns where its flows go, and asks no process', async () => {
    const text = `${log.text}{"torn`;
    const ask = (options: Partial<SimulateOptions>) =>
      run({ flowLog: 'flow.log', down, ...options }, CONFIGURATION, () => inPieces(text, 4096));
    const { code, stdout, asked } = await ask({});
    assert.equal(code, 0);
    assert.deepEqual(asked, []);
    for (const line of stdout.split('\n')) assert.ok(line.length <= 80, line);
    const words = stdout.replaceAll(/\s+/g, ' ');
    assert.match(words, /Followed the flows of flow\.log, each .* the last 100,000 at most/);
    assert.match(words, /2,000 flows started in it, 2,000 distinct ones; 1 line damaged/);
    assert.match(words, /revision 1: the last epoch of the log; no process was asked/);
    assert.match(stdout, /Rule ha-ports: 2,000 flows/);
    assert.match(stdout, /nva-2\s+nvas\/10\.0\.0\.2\s+3\d\.\d %\s+0\.0 %/);
    const cut = await ask({ last: 500, json: true });
    const { recorded, rules } = JSON.parse(cut.stdout) as SimulationOutcome;
    assert.deepEqual([recorded?.distinct, recorded?.isCut, rules[0]?.followed], [500, true, 500]);
  });

  test('starts from the file that --offline names', async () => {
    const ask = (configuration: object) =>
      run({ flowLog: 'flow.log', offline: 'config.json', down }, configuration, () =>
        inPieces(log.text, 4096),
      );
    const renamed = { ...CONFIGURATION, rules: [{ ...CONFIGURATION.rules[0], name: 'ha-ports' }] };
    const { stdout } = await ask(renamed);
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
    const missing = '/nonexistent/flow.log';
    await assert.rejects(
      run({ flowLog: missing }, CONFIGURATION, () => readChunks(missing)),
      {
        code: 'LB_USAGE',
        message: /"\/nonexistent\/flow\.log".*ENOENT/,
      },
    );
  });
});
