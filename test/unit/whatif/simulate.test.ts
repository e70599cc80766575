import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ForwardingCompiler, type CompilerInputs } from '../../../src/selection/compiler.js';
import { generatedTuples } from '../../../src/whatif/population.js';
import { simulate, type SimulationRequest, type Supposition } from '../../../src/whatif/simulate.js';
import type { Configuration } from '../../../src/model/configuration.js';
import type { FlowRecord } from '../../../src/model/flow.js';
import type { SimulationReport } from '../../../src/api/views.js';
import { createHasher } from '../../../src/selection/flow-hash.js';
import { Picker, NONE_EXCLUDED } from '../../../src/selection/picker.js';
import { aRule, aTuple } from '../selection/fixtures.js';
import { aPool, settings } from '../control/settings.js';

const hash = await createHasher();
const GENERATED = { kind: 'generated', flows: 6000, sources: 500, seed: 1 } as const;
const [ONE, TWO, THREE] = ['nvas/10.0.0.1', 'nvas/10.0.0.2', 'nvas/10.0.0.3'] as const;

const CALM: CompilerInputs = {
  health: () => ({ state: 'up' }),
};

function ask(
  request: Partial<SimulationRequest>,
  options: {
    readonly configuration?: Configuration;
    readonly inputs?: Partial<CompilerInputs>;
    readonly flows?: readonly FlowRecord[];
  } = {},
): Promise<SimulationReport> {
  const compiler = new ForwardingCompiler(hash);
  return simulate(
    { suppose: [], population: GENERATED, ...request },
    {
      configuration: options.configuration ?? settings(),
      inputs: { ...CALM, ...options.inputs },
      compile: (configuration, inputs) => compiler.preview(configuration, inputs),
      picker: new Picker(hash),
      flows: async function* () {
        for (const flow of options.flows ?? []) yield await Promise.resolve(flow);
      },
    },
  );
}

/** Backend name -> share of the first rule, in whole percent. */
function percents(report: SimulationReport, side: 'shareBefore' | 'shareAfter'): Record<string, number> {
  return Object.fromEntries(
    (report.rules[0]?.backends ?? []).map((one) => [one.name, Math.round(one[side] * 100)]),
  );
}

function liveFlow(backendId: string, protocol: 'tcp' | 'udp'): FlowRecord {
  return {
    ...{ id: 1, tuple: aTuple('192.0.2.7:40000', '198.51.100.1:443', protocol), rule: 'ha-ports', backendId },
    ...{ backendEndpoint: '', reason: 'hash', state: 'established', epoch: 1, excluded: [], openedAtMs: 0 },
    ...{ idleMs: 0, bytesToBackend: 0, packetsToBackend: 0, bytesToClient: 0, packetsToClient: 0 },
  };
}

describe('simulate() with random flows', () => {
  test('changes nothing where nothing is supposed', async () => {
    const report = await ask({});
    const [rule] = report.rules;
    assert.deepEqual(percents(report, 'shareBefore'), percents(report, 'shareAfter'));
    assert.equal(rule?.followed, 6000);
    assert.equal(rule.flows.tcp.stay + rule.flows.udp.stay, 6000);
    for (const share of Object.values(percents(report, 'shareBefore'))) assert.ok(share >= 30 && share <= 37);
  });

  test('spreads the flows of a backend that goes down over the others, and moves only those', async () => {
    const report = await ask({ suppose: [{ backend: 'nvas/nva-2', health: 'down' }] });
    const [rule] = report.rules;
    assert.equal(percents(report, 'shareAfter')['nva-2'], 0);
    // Counted one by one: in the rule of the fixture TCP stays on a dead backend, UDP moves.
    const picker = new Picker(hash);
    const before = new ForwardingCompiler(hash).compile(settings(), CALM);
    const on = [...generatedTuples(settings(), 0, GENERATED)].filter((tuple) => {
      const pick = picker.pick(before, tuple, NONE_EXCLUDED);
      return pick.kind === 'picked' && pick.backendId === TWO;
    });
    const udp = on.filter(({ protocol }) => protocol === 'udp').length;
    assert.ok(udp > 500 && on.length - udp > 500);
    assert.equal(rule?.flows.udp.move, udp);
    assert.equal(rule.backends.find(({ backendId }) => backendId === TWO)?.shareBefore, on.length / 6000);
    assert.equal(rule.flows.tcp.stay + rule.flows.udp.stay, 6000 - udp);
    assert.equal(rule.flows.tcp.reset + rule.flows.udp.reset, 0);
  });

  test('follows admin state, weight and drain, by id as well as by name', async () => {
    const share = async (suppose: readonly Supposition[]) => percents(await ask({ suppose }), 'shareAfter');
    assert.equal((await share([{ backend: ONE, adminState: 'down' }]))['nva-1'], 0);
    assert.equal((await share([{ backend: ONE, draining: true }]))['nva-1'], 0);
    const weighted = await share([{ backend: 'nvas/nva-3', weight: 2 }]);
    assert.ok(Math.abs((weighted['nva-3'] ?? 0) - 50) <= 3, JSON.stringify(weighted));
    // A draining backend keeps the flows it has.
    const drained = await ask({ suppose: [{ backend: ONE, draining: true }] });
    assert.equal((drained.rules[0]?.flows.tcp.stay ?? 0) + (drained.rules[0]?.flows.udp.stay ?? 0), 6000);
  });

  test('adds several suppositions about one backend', async () => {
    const suppose = [
      { backend: ONE, health: 'down' as const },
      { backend: 'nvas/nva-1', adminState: 'up' as const },
    ];
    assert.notEqual(percents(await ask({ suppose }), 'shareAfter')['nva-1'], 0);
  });

  test('starts from the state as it is: what is not supposed stays', async () => {
    const health: CompilerInputs['health'] = ({ id }) => ({ state: id === ONE ? 'down' : 'up' });
    const override: CompilerInputs['override'] = ({ id }) => (id === TWO ? { weight: 3 } : undefined);
    const report = await ask(
      { suppose: [{ backend: THREE, draining: true }] },
      { inputs: { health, override } },
    );
    assert.equal(percents(report, 'shareBefore')['nva-1'], 0);
    assert.ok(Math.abs((percents(report, 'shareBefore')['nva-2'] ?? 0) - 75) <= 3);
    assert.deepEqual(percents(report, 'shareAfter'), { 'nva-1': 0, 'nva-2': 100, 'nva-3': 0 });
    const healed = await ask({ suppose: [{ backend: ONE, health: 'up' }] }, { inputs: { health, override } });
    assert.ok(Math.abs((percents(healed, 'shareAfter')['nva-2'] ?? 0) - 60) <= 3);
  });

  test('counts flows that nobody takes', async () => {
    const suppose = [ONE, TWO, THREE].map((backend) => ({ backend, adminState: 'down' as const }));
    const [rule] = (await ask({ suppose })).rules;
    assert.deepEqual([rule?.unplacedBefore, rule?.unplacedAfter], [0, 6000]);
  });

  test('follows each rule by itself', async () => {
    const configuration = settings({
      backendPools: [aPool(3), aPool(2, { name: 'others' })],
      rules: [
        aRule({ probe: 'alive' }),
        aRule({ name: 'web', backendPool: 'others', haPorts: false, ports: [{ first: 80, last: 80 }] }),
      ],
    });
    const report = await ask(
      { suppose: [{ backend: 'others/nva-1', adminState: 'down' }] },
      { configuration },
    );
    assert.deepEqual(
      report.rules.map(({ name, followed, backends }) => [name, followed, backends.length]),
      [
        ['ha-ports', 6000, 3],
        ['web', 6000, 2],
      ],
    );
    assert.deepEqual(percents(report, 'shareBefore'), percents(report, 'shareAfter'));
    assert.equal(report.rules[1]?.backends[1]?.shareAfter, 1);
  });

  test('refuses backends that are not there', async () => {
    const suppose = [{ backend: 'nvas/nva-9', health: 'down' }] as const;
    await assert.rejects(ask({ suppose }), { code: 'LB_UNKNOWN_BACKEND' });
  });
});

describe('simulate() with live flows', () => {
  test('starts from where they are, pinned or on a backend that is gone', async () => {
    const flows = [
      liveFlow(ONE, 'tcp'),
      liveFlow(ONE, 'udp'),
      liveFlow('nvas/10.9.9.9', 'tcp'),
      liveFlow('', 'tcp'),
    ];
    const report = await ask(
      { population: { kind: 'live' }, suppose: [{ backend: ONE, health: 'down' }] },
      { flows: [...flows, { ...liveFlow(ONE, 'tcp'), rule: 'gone' }] },
    );
    const [rule] = report.rules;
    assert.equal(rule?.followed, 4);
    assert.equal(rule.unplacedBefore, 1);
    assert.deepEqual(rule.flows.tcp, { stay: 1, move: 0, reset: 1, drop: 0 });
    assert.deepEqual(rule.flows.udp, { stay: 0, move: 1, reset: 0, drop: 0 });
    assert.equal(rule.backends.find(({ backendId }) => backendId === ONE)?.shareBefore, 0.5);
    assert.equal(rule.backends.find(({ backendId }) => backendId === 'nvas/10.9.9.9')?.shareBefore, 0.25);
  });
});
