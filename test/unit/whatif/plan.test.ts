import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { PlanReport } from '../../../src/api/views.js';
import type { Protocol } from '../../../src/model/address.js';
import type { FlowRecord } from '../../../src/model/flow.js';
import { createHasher } from '../../../src/selection/flow-hash.js';
import { Picker } from '../../../src/selection/picker.js';
import { planChange } from '../../../src/whatif/plan.js';
import { patched } from '../../corpus/configurations.js';
import { StateFactory, type Conditions } from '../../support/state-factory.js';
import { referenceMaglev } from '../selection/reference-maglev.js';
import { aFlowRecord } from '../status/counters-fixtures.js';

const states = await StateFactory.create();
const picker = new Picker(await createHasher());
const SIZE = 251;

/** What `from` and `to` change something of, by path. */
const BASE = {
  tableSize: SIZE,
  frontends: [{ name: 'hub', address: '198.51.100.1' }],
  probes: [{ name: 'alive', protocol: 'tcp', port: 9000 }],
  backendPools: [{ name: 'nvas', backends: [1, 2, 3].map(member) }],
  rules: [
    {
      ...{ name: 'ha-ports', frontend: 'hub', backendPool: 'nvas', probe: 'alive', haPorts: true },
      flowPolicy: { removed: 'reset', drainDeadline: 'reset' },
    },
  ],
};
const BACKENDS = 'backendPools/0/backends';

type Patch = Readonly<Record<string, unknown>>;

interface Change {
  readonly from?: Patch;
  readonly to?: Patch;
  readonly flows?: readonly FlowRecord[];
  readonly conditions?: Conditions;
  /** @default as before */
  readonly conditionsAfter?: Conditions;
}

function member(number: number) {
  return { name: `nva-${number}`, address: `10.0.0.${number}` };
}

function id(number: number): string {
  return `nvas/10.0.0.${number}`;
}

function plan({
  from = {},
  to = from,
  flows = [],
  conditions,
  conditionsAfter,
}: Change): Promise<PlanReport> {
  return planChange({
    before: states.state(patched(BASE, from), conditions),
    after: states.state(patched(BASE, to), conditionsAfter ?? conditions),
    flows: asynchronously(flows),
    picker,
  });
}

async function* asynchronously(flows: readonly FlowRecord[]): AsyncGenerator<FlowRecord> {
  for (const flow of flows) yield await Promise.resolve(flow);
}

function aFlow(backendId: string, protocol: Protocol, state: FlowRecord['state'] = 'established') {
  const flow = aFlowRecord(1, { backendId, state });
  return { ...flow, tuple: { ...flow.tuple, protocol } };
}

/** By the paper's pseudocode, slot by slot. */
function slotsMoved(before: readonly number[], after: readonly number[]): number {
  const old = referenceMaglev(before.map(id), SIZE);
  const present = referenceMaglev(after.map(id), SIZE);
  return old.filter((owner, slot) => owner !== present[slot]).length / SIZE;
}

const named = (name: string, port: number) => ({
  ...{ name, frontend: 'hub', backendPool: 'nvas', protocol: 'tcp', frontendPort: port },
});

describe('planChange() hash space', () => {
  test('gives the share of slots that another backend gets', async () => {
    const more = slotsMoved([1, 2, 3], [1, 2, 3, 4]);
    assert.ok(more > 0.2 && more < 0.4);
    const others = { name: 'others', backends: BASE.backendPools[0]!.backends };
    const allDown: Conditions = { health: { 'nva-1': 'down', 'nva-2': 'down', 'nva-3': 'down' } };
    const failOpen = { 'rules/0/allDown': 'fail-open' };
    const cases: readonly [string, number, Change][] = [
      ['one more', more, { to: { [`${BACKENDS}/3`]: member(4) } }],
      ['one less', slotsMoved([1, 2, 3], [1, 3]), { to: { [`-${BACKENDS}/1`]: 0 } }],
      ['another order', 0, { to: { [BACKENDS]: [3, 2, 1].map(member) } }],
      ['another pool', 1, { to: { 'backendPools/1': others, 'rules/0/backendPool': 'others' } }],
      ['all down', 1, { conditionsAfter: allDown }],
      // The same table with all down as with all up.
      ['all down, failing open', 0, { from: failOpen, conditionsAfter: allDown }],
    ];
    for (const [what, share, change] of cases) {
      const { movedShare, rules } = await plan(change);
      assert.deepEqual([movedShare, rules[0]?.movedShare], [share, share], what);
    }
  });

  test('estimates it where slots cannot be compared', async () => {
    const nextHop = (options: object) => ({
      'frontends/0/address': '0.0.0.0',
      dataPlane: { kind: 'kernel', kernel: { mode: 'next-hop', tableSize: SIZE, ...options } },
    });
    const stateless = { flowState: 'stateless', spokes: ['10.0.0.0/8', '192.0.2.0/24'] };
    // Random flows go from 10/8 to 192.0.2.1: between these spokes they are hashed the other way round.
    const spokes = ['192.0.2.0/24', '10.0.0.0/8'];
    const changes: readonly [string, Patch, Patch][] = [
      ['seed', {}, { seed: 1 }],
      ['tableSize', {}, { tableSize: 509 }],
      ['distribution', {}, { 'rules/0/distribution': 'source-ip-protocol' }],
      ['dataPlane.kernel.spokes', nextHop(stateless), nextHop({ ...stateless, spokes })],
      ['dataPlane.kind', { 'frontends/0/address': '0.0.0.0' }, nextHop({})],
    ];
    for (const [key, from, to] of changes) {
      const { movedShare, rules } = await plan({ from, to });
      // Of three equal backends two thirds get another by chance.
      assert.ok(Math.abs(movedShare - 2 / 3) < 0.07, `${key}: ${movedShare}`);
      assert.deepEqual(rules[0]?.changes, [key]);
    }
    const pinned = await plan({ from: nextHop(stateless), to: nextHop({ spokes: stateless.spokes }) });
    assert.deepEqual([pinned.movedShare, pinned.rules[0]?.changes], [0, ['dataPlane.kernel.flowState']]);
    const single = { [BACKENDS]: [member(1)] };
    assert.equal((await plan({ from: single, to: { ...single, seed: 7 } })).movedShare, 0);
  });

  test('leaves rules that come or go out of the figure of the whole', async () => {
    const report = await plan({ from: { 'rules/1': named('old', 80) }, to: { 'rules/1': named('new', 81) } });
    assert.equal(report.movedShare, 0);
    assert.deepEqual(
      report.rules.map(({ name, change, movedShare }) => `${name} ${change} ${movedShare}`),
      ['ha-ports same 0', 'new added 1', 'old removed 1'],
    );
  });
});

describe('planChange() live flows', () => {
  const flows = [
    ...[1, 2, 3].flatMap((number) => [aFlow(id(number), 'tcp'), aFlow(id(number), 'udp')]),
    aFlow('', 'tcp', 'embryonic'),
    aFlow(id(1), 'tcp', 'blackholed'),
  ];
  const without3 = { [`-${BACKENDS}/2`]: 0 };
  const kinder = { 'rules/0/flowPolicy': { removed: { tcp: 'drop', udp: 'rebalance' } } };
  const drained: Conditions = { drained: { 'nva-1': 5000 } };
  const down: Conditions = { health: { 'nva-2': 'down' } };
  const tcpOnly = { haPorts: false, protocol: 'tcp', frontendPort: 0, backendPort: 0 };
  const renamed = { 'rules/0/name': 'everything' };

  /** Stay, move, reset, drop. */
  const cases: readonly [string, readonly number[], Change][] = [
    ['stay where nothing changes', [8, 0, 0, 0], {}],
    ['do not count where a drain ends them anyway', [8, 0, 0, 0], { conditions: drained }],
    ['of a removed backend meet the policy', [6, 0, 2, 0], { to: without3 }],
    ['of a removed backend meet the policy as it will be', [6, 1, 0, 1], { to: { ...without3, ...kinder } }],
    ['of a backend that is down meet the policy for that', [7, 1, 0, 0], { conditionsAfter: down }],
    ['of a rule that goes are reset', [0, 0, 8, 0], { to: { 'rules/0': named('web', 80) } }],
    ['of a rule that is renamed stay', [8, 0, 0, 0], { to: renamed }],
    [
      'of a protocol that a renamed rule no longer has are reset',
      [5, 0, 3, 0],
      { to: { 'rules/0': { ...BASE.rules[0], ...tcpOnly, name: 'everything' } } },
    ],
  ];
  for (const [what, expected, change] of cases) {
    test(`flows ${what}`, async () => {
      const { stay, move, reset, drop } = (await plan({ flows, ...change })).flows;
      assert.deepEqual([stay, move, reset, drop], expected);
    });
  }

  test('are told by rule and protocol, under the name that the rule will have', async () => {
    const [rule] = (await plan({ flows, to: renamed })).rules;
    assert.deepEqual(rule, {
      ...{ name: 'everything', renamedFrom: 'ha-ports', change: 'changed', changes: ['name'], movedShare: 0 },
      flows: { tcp: { stay: 5, move: 0, reset: 0, drop: 0 }, udp: { stay: 3, move: 0, reset: 0, drop: 0 } },
    });
  });
});

describe('planChange() the rest', () => {
  test('names backends that come, go and change, by identity', async () => {
    const changed = { ...member(1), name: 'renamed', weight: 3, priority: 1 };
    const moved = { name: 'nva-2', address: '10.0.0.4' };
    const report = await plan({
      from: { [BACKENDS]: [1, 2].map(member) },
      to: { [BACKENDS]: [changed, moved] },
    });
    assert.deepEqual(report.backends, {
      added: [{ pool: 'nvas', backendId: id(4), name: 'nva-2' }],
      removed: [{ pool: 'nvas', backendId: id(2), name: 'nva-2' }],
      changed: [{ pool: 'nvas', backendId: id(1), name: 'renamed', changes: ['name', 'weight', 'priority'] }],
    });
    assert.deepEqual(report.probeStateLost, []);
  });

  test('says whose probe state gets lost: another question, not another pace or name', async () => {
    const lost = async (to: Patch, from: Patch = {}) => (await plan({ from, to })).probeStateLost;
    assert.deepEqual(await lost({ 'probes/0/interval': '100ms', 'probes/0/threshold': { up: 9 } }), []);
    assert.deepEqual(await lost({ 'probes/0/name': 'pulse', 'rules/0/probe': 'pulse' }), []);
    assert.deepEqual(
      await lost({ 'probes/0/port': 9001 }),
      [1, 2, 3].map((number) => ({ backendId: id(number), probe: 'alive' })),
    );
    assert.equal((await lost({}, { '-rules/0/probe': 0 })).length, 3);
  });

  test('counts listeners by protocol, address and port', async () => {
    const tcp = (name: string, frontendPort: string) => ({ ...named(name, 0), frontendPort });
    const all = { 'rules/0/listenPorts': '8000-8099' };
    const report = await plan({
      from: all,
      to: {
        'frontends/1': { name: 'other', address: '198.51.100.2' },
        rules: [
          tcp('a', '8050-8139'),
          tcp('b', '8140-8159'),
          { ...named('elsewhere', 53), frontend: 'other', protocol: 'udp' },
        ],
      },
    });
    // TCP 8000-8099 becomes 8050-8159, UDP 8000-8099 goes, UDP 53 of another address comes.
    assert.deepEqual(report.listeners, { kept: 50, opened: 61, closed: 150 });
    const udpGone = { haPorts: false, protocol: 'tcp', frontendPort: 0, backendPort: 0 };
    const half = await plan({ to: { 'rules/0': { ...BASE.rules[0], ...udpGone } } });
    assert.deepEqual(half.listeners, { kept: 65_535, opened: 0, closed: 65_535 });
  });

  test('names what only a new process takes over', async () => {
    const kernel = (options: object) => ({ dataPlane: { kind: 'kernel', kernel: options } });
    const floating = { 'rules/0/floatingIp': true };
    const capture = (options: object) => ({ dataPlane: { capture: options } });
    const process = {
      ...{ dataPlane: { workers: 4, instance: 'other' }, metrics: { listen: '127.0.0.1:9902' } },
      ...{ flowLog: { file: 'flows.ndjson' }, logging: { level: 'debug' }, admin: { socket: './a.sock' } },
      events: { webhook: 'https://example.net/hook' },
    };
    const cases: readonly [Patch, Patch, string][] = [
      [{}, { shutdown: { deadline: '1ms' } }, ''],
      [{}, process, 'dataPlane.workers dataPlane.instance admin metrics flowLog logging events.webhook'],
      [{}, kernel({}), 'dataPlane.kind'],
      [kernel({}), {}, 'dataPlane.kind'],
      [kernel({}), kernel({ returnPath: 'masquerade', onStop: 'remove' }), ''],
      [kernel({}), { ...kernel({ mode: 'floating-routed' }), ...floating }, 'dataPlane.kernel.mode'],
      [kernel({}), kernel({ interface: 'eth0' }), 'dataPlane.kernel.interface'],
      [kernel({}), kernel({ manageSysctls: true }), 'dataPlane.kernel.manageSysctls'],
      [{}, capture({}), 'dataPlane.capture'],
      [capture({}), {}, 'dataPlane.capture'],
      [capture({}), capture({ udp: 'bind' }), 'dataPlane.capture'],
      [capture({}), capture({ excludedPorts: '22,23' }), ''],
      [capture({}), capture({ excludedPorts: '22,23', port: 62_000 }), 'dataPlane.capture'],
    ];
    for (const [from, to, keys] of cases) {
      assert.equal((await plan({ from, to })).restartNeeded.join(' '), keys, JSON.stringify({ from, to }));
    }
  });
});
