import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { simulateCommand, type SimulateOptions } from '../../../src/cli/simulate-command.js';
import { parseConfiguration } from '../../../src/config/load.js';
import type { SimulationReport, SimulationRequest } from '../../../src/model/simulation.js';

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

const ANSWER: SimulationReport = { revision: 7, configDigest: 'c'.repeat(64), rules: [] };

async function run(options: Partial<SimulateOptions>, configuration: object = CONFIGURATION) {
  let stdout = '';
  let stderr = '';
  const asked: SimulationRequest[] = [];
  const code = await simulateCommand(
    {
      out: (text) => (stdout += text),
      err: (text) => (stderr += text),
      load: () => Promise.resolve(parseConfiguration(JSON.stringify(configuration))),
      client: () =>
        Promise.resolve({
          simulate: (request: SimulationRequest) => {
            asked.push(request);
            return Promise.resolve(ANSWER);
          },
        }),
    },
    {
      ...{ down: [], up: [], drain: [], adminState: [], weight: [], live: false },
      ...{ flows: 10_000, sources: 1000, seed: 0, json: false },
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
