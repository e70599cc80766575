import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ForwardingCompiler, type CompilerInputs } from '../../../src/selection/compiler.js';
import { planChange } from '../../../src/whatif/plan.js';
import { ipAddress, parseCidr, type Protocol } from '../../../src/model/address.js';
import type { CaptureOptions } from '../../../src/model/capture.js';
import type { Configuration, HealthState, KernelOptions } from '../../../src/model/configuration.js';
import type { FlowRecord } from '../../../src/model/flow.js';
import type { PlanReport } from '../../../src/api/views.js';
import { portSetOf } from '../../../src/model/ports.js';
import { createHasher } from '../../../src/selection/flow-hash.js';
import { Picker } from '../../../src/selection/picker.js';
import { tcpProbe } from '../health/probe-fixtures.js';
import { aFrontend, aRule, aTuple } from '../selection/fixtures.js';
import { referenceMaglev } from '../selection/reference-maglev.js';
import { aPool, settings } from '../control/settings.js';

const hash = await createHasher();
const picker = new Picker(hash);
const SIZE = 251;
const [ONE, TWO, THREE, FOUR] = [1, 2, 3, 4].map((n) => `nvas/10.0.0.${n}`) as [
  string,
  string,
  string,
  string,
];

function inputs(health: Readonly<Record<string, HealthState>> = {}, ending?: string): CompilerInputs {
  return {
    health: ({ id }) => ({ state: health[id] ?? 'up' }),
    override: ({ id }) => (id === ending ? { drain: { ending: true, spreadMs: 5000 } } : undefined),
  };
}

interface Change {
  readonly from?: Partial<Configuration>;
  readonly to?: Partial<Configuration>;
  readonly flows?: readonly FlowRecord[];
  readonly healthAfter?: Readonly<Record<string, HealthState>>;
  /** A backend whose drain has reached its deadline, before and after. */
  readonly ending?: string;
}

function plan({ from = {}, to = {}, flows = [], healthAfter = {}, ending }: Change): Promise<PlanReport> {
  const compiler = new ForwardingCompiler(hash);
  return planChange({
    before: compiler.compile(settings({ digest: 'a'.repeat(64), ...from }), inputs({}, ending)),
    after: compiler.preview(settings({ digest: 'b'.repeat(64), ...to }), inputs(healthAfter, ending)),
    flows: asynchronously(flows),
    picker,
  });
}

async function* asynchronously(flows: readonly FlowRecord[]): AsyncGenerator<FlowRecord> {
  for (const flow of flows) yield await Promise.resolve(flow);
}

function aFlow(
  backendId: string,
  protocol: Protocol = 'tcp',
  overrides: Partial<FlowRecord> = {},
): FlowRecord {
  return {
    id: 1,
    tuple: aTuple('192.0.2.7:40000', '198.51.100.1:443', protocol),
    rule: 'ha-ports',
    backendId,
    backendEndpoint: '10.0.0.1:443',
    reason: 'hash',
    state: 'established',
    epoch: 1,
    excluded: [],
    openedAtMs: 0,
    idleMs: 0,
    bytesToBackend: 0,
    packetsToBackend: 0,
    bytesToClient: 0,
    packetsToClient: 0,
    ...overrides,
  };
}

/** By the paper's pseudocode, slot by slot. */
function slotsMoved(before: readonly string[], after: readonly string[]): number {
  const old = referenceMaglev(before, SIZE);
  const present = referenceMaglev(after, SIZE);
  return old.filter((id, slot) => id !== present[slot]).length / SIZE;
}

describe('planChange() hash space', () => {
  test('gives the share of slots that another backend gets, when one is added', async () => {
    const report = await plan({ to: { backendPools: [aPool(4)] } });
    const expected = slotsMoved([ONE, TWO, THREE], [ONE, TWO, THREE, FOUR]);
    assert.ok(expected > 0.2 && expected < 0.4);
    assert.equal(report.movedShare, expected);
    assert.deepEqual(
      report.rules.map(({ name, change, movedShare }) => ({ name, change, movedShare })),
      [{ name: 'ha-ports', change: 'same', movedShare: expected }],
    );
  });

  test('gives it when one is removed, and ignores the order of the pool', async () => {
    const [first, second, third] = aPool(3).backends;
    const report = await plan({ to: { backendPools: [aPool(3, { backends: [third!, first!] })] } });
    assert.equal(report.movedShare, slotsMoved([ONE, TWO, THREE], [ONE, THREE]));
    const reordered = await plan({
      to: { backendPools: [aPool(3, { backends: [third!, second!, first!] })] },
    });
    assert.equal(reordered.movedShare, 0);
    assert.deepEqual(reordered.steps, []);
  });

  test('counts another pool as another backend, and everybody gone as all of it', async () => {
    const other = aPool(3, { name: 'others' });
    const moved = await plan({
      to: { backendPools: [aPool(3), other], rules: [aRule({ probe: 'alive', backendPool: 'others' })] },
    });
    assert.equal(moved.movedShare, 1);
    assert.deepEqual(moved.rules[0]?.changes, ['backendPool']);
    const allDown = { [ONE]: 'down', [TWO]: 'down', [THREE]: 'down' } as const;
    assert.equal((await plan({ healthAfter: allDown })).movedShare, 1);
    // A rule that fails open has the same table with everybody down as with everybody up.
    const failOpen = { rules: [aRule({ probe: 'alive', allDown: 'fail-open' as const })] };
    assert.equal((await plan({ from: failOpen, to: failOpen, healthAfter: allDown })).movedShare, 0);
  });

  test('estimates it where slots cannot be compared: another seed, table size or distribution', async () => {
    // Of three equal backends two thirds get another by chance.
    const changes: readonly (readonly [string, Partial<Configuration>])[] = [
      ['seed', { seed: 1 }],
      ['tableSize', { tableSize: 509 }],
      ['distribution', { rules: [aRule({ probe: 'alive', distribution: 'source-ip' })] }],
    ];
    for (const [key, to] of changes) {
      const report = await plan({ to });
      assert.ok(Math.abs(report.movedShare - 2 / 3) < 0.03, `${key}: ${report.movedShare}`);
      assert.deepEqual(report.rules[0]?.changes, [key]);
    }
    const alone = aPool(1);
    const single = await plan({ from: { backendPools: [alone] }, to: { backendPools: [alone], seed: 7 } });
    assert.equal(single.movedShare, 0);
  });

  test('leaves rules that come or go out of the figure of the whole', async () => {
    const report = await plan({
      from: {
        rules: [
          aRule({ probe: 'alive' }),
          aRule({ name: 'old', haPorts: false, ports: [{ first: 80, last: 80 }] }),
        ],
      },
      to: {
        rules: [
          aRule({ probe: 'alive' }),
          aRule({ name: 'new', haPorts: false, ports: [{ first: 81, last: 81 }] }),
        ],
      },
    });
    assert.equal(report.movedShare, 0);
    assert.deepEqual(
      report.rules.map(({ name, change, movedShare }) => [name, change, movedShare]),
      [
        ['ha-ports', 'same', 0],
        ['new', 'added', 1],
        ['old', 'removed', 1],
      ],
    );
  });
});

describe('planChange() live flows', () => {
  const flows = [
    ...[ONE, TWO, THREE].flatMap((id) => [aFlow(id, 'tcp'), aFlow(id, 'udp')]),
    aFlow('', 'tcp', { state: 'embryonic' }),
    aFlow(ONE, 'tcp', { state: 'blackholed' }),
  ];

  test('keeps all of them where nothing changes', async () => {
    assert.deepEqual((await plan({ flows })).flows, { stay: 8, move: 0, reset: 0, drop: 0 });
  });

  test('does not count flows that a drain is ending anyway', async () => {
    const rule = aRule({ probe: 'alive' });
    const flowPolicy = { ...rule.flowPolicy, 'drain-deadline': { tcp: 'reset', udp: 'reset' } } as const;
    const rules = [{ ...rule, flowPolicy }];
    const report = await plan({ flows, ending: ONE, from: { rules }, to: { rules } });
    assert.deepEqual(report.flows, { stay: 8, move: 0, reset: 0, drop: 0 });
    const gone = await plan({ flows, ending: ONE, from: { rules }, to: { rules: [] } });
    assert.equal(gone.flows.reset, 6, 'those on the other backends');
  });

  test('treats those of a removed backend by the rule`s policy, as it will be', async () => {
    const [first, second] = aPool(3).backends;
    const backendPools = [aPool(3, { backends: [first!, second!] })];
    const report = await plan({ flows, to: { backendPools } });
    // The fixture's rule resets both when a backend is removed.
    assert.deepEqual(report.rules[0]?.flows, {
      tcp: { stay: 4, move: 0, reset: 1, drop: 0 },
      udp: { stay: 2, move: 0, reset: 1, drop: 0 },
    });
    const kinder = aRule({ probe: 'alive' });
    const policy = { ...kinder.flowPolicy, removed: { tcp: 'drop', udp: 'rebalance' } } as const;
    const rules = [{ ...kinder, flowPolicy: policy }];
    const changed = await plan({ flows, to: { backendPools, rules } });
    assert.deepEqual(changed.flows, { stay: 6, move: 1, reset: 0, drop: 1 });
  });

  test('treats those of a backend that is down by the policy for that', async () => {
    const report = await plan({ flows, healthAfter: { [TWO]: 'down' } });
    assert.deepEqual(report.flows, { stay: 7, move: 1, reset: 0, drop: 0 });
  });

  test('resets those of a rule that goes, and keeps those of one that is only renamed', async () => {
    const gone = await plan({
      flows,
      to: {
        rules: [aRule({ name: 'web', probe: 'alive', haPorts: false, ports: [{ first: 80, last: 80 }] })],
      },
    });
    assert.deepEqual(gone.flows, { stay: 0, move: 0, reset: 8, drop: 0 });
    assert.equal(gone.rules.find(({ name }) => name === 'ha-ports')?.flows.tcp.reset, 5);
    const renamed = await plan({ flows, to: { rules: [aRule({ name: 'everything', probe: 'alive' })] } });
    assert.deepEqual(renamed.flows, { stay: 8, move: 0, reset: 0, drop: 0 });
    assert.deepEqual(
      renamed.rules.map(({ name, renamedFrom, change, changes, movedShare, flows: { tcp } }) => ({
        ...{ name, renamedFrom, change, changes, movedShare },
        stay: tcp.stay,
      })),
      [
        {
          ...{ name: 'everything', renamedFrom: 'ha-ports', change: 'changed', changes: ['name'] },
          ...{ movedShare: 0, stay: 5 },
        },
      ],
    );
  });

  test('resets those of a protocol that a renamed rule no longer has', async () => {
    const rules = [aRule({ name: 'everything', probe: 'alive', protocols: ['tcp'] })];
    const report = await plan({ flows, to: { rules } });
    assert.deepEqual(report.flows, { stay: 5, move: 0, reset: 3, drop: 0 });
  });
});

describe('planChange() the rest', () => {
  test('names backends that come, go and change, by identity', async () => {
    const [first, second] = aPool(2).backends;
    const moved = { ...second!, id: FOUR, address: ipAddress('10.0.0.4') };
    const report = await plan({
      from: { backendPools: [aPool(2)] },
      to: {
        backendPools: [
          aPool(2, { backends: [{ ...first!, name: 'renamed', weight: 3, priority: 1 }, moved] }),
        ],
      },
    });
    assert.deepEqual(report.backends, {
      added: [{ pool: 'nvas', backendId: FOUR, name: 'nva-2' }],
      removed: [{ pool: 'nvas', backendId: TWO, name: 'nva-2' }],
      changed: [{ pool: 'nvas', backendId: ONE, name: 'renamed', changes: ['name', 'weight', 'priority'] }],
    });
    assert.deepEqual(report.probeStateLost, []);
  });

  test('says whose probe state gets lost: another question, not another pace or name', async () => {
    const paced = tcpProbe({ name: 'alive', port: 9000, intervalMs: 100, upThreshold: 9 });
    assert.deepEqual((await plan({ to: { probes: [paced] } })).probeStateLost, []);
    const renamed = { probes: [tcpProbe({ name: 'pulse', port: 9000 })], rules: [aRule({ probe: 'pulse' })] };
    assert.deepEqual((await plan({ to: renamed })).probeStateLost, []);
    const asked = await plan({ to: { probes: [tcpProbe({ name: 'alive', port: 9001 })] } });
    assert.deepEqual(
      asked.probeStateLost,
      [ONE, TWO, THREE].map((backendId) => ({ backendId, probe: 'alive' })),
    );
    assert.deepEqual(asked.rules[0]?.changes, ['probe.port']);
    const first = await plan({ from: { rules: [aRule()] } });
    assert.equal(first.probeStateLost.length, 3);
  });

  test('counts listeners by protocol, address and port', async () => {
    const range = (first: number, last: number) => ({ ports: [{ first, last }], haPorts: false });
    const report = await plan({
      from: { rules: [aRule({ probe: 'alive', ...range(8000, 8099) })] },
      to: {
        frontends: [aFrontend(), aFrontend({ name: 'other', address: ipAddress('198.51.100.2') })],
        rules: [
          aRule({ probe: 'alive', protocols: ['tcp'], ...range(8050, 8149) }),
          aRule({ name: 'too', probe: 'alive', protocols: ['tcp'], ...range(8140, 8159) }),
          aRule({ name: 'elsewhere', frontend: 'other', protocols: ['udp'], ...range(53, 53) }),
        ],
      },
    });
    // TCP 8000-8099 becomes 8050-8159, UDP 8000-8099 goes, UDP 53 of another address comes.
    assert.deepEqual(report.listeners, { kept: 50, opened: 61, closed: 150 });
  });

  test('counts the listeners of all ports at once', async () => {
    const report = await plan({ to: { rules: [aRule({ probe: 'alive', protocols: ['tcp'] })] } });
    assert.deepEqual(report.listeners, { kept: 65_535, opened: 0, closed: 65_535 });
  });

  test('names what only a new process takes over', async () => {
    const report = await plan({
      to: {
        workers: 4,
        metrics: { address: ipAddress('127.0.0.1'), port: 9902 },
        flowLog: { file: 'flows.ndjson', sample: 1 },
        logging: { level: 'debug', format: 'json' },
        admin: { socket: './haports.sock' },
        webhook: { url: 'https://example.net/hook' },
      },
    });
    assert.deepEqual(report.restartNeeded, [
      ...['dataPlane.workers', 'admin', 'metrics', 'flowLog', 'logging', 'events.webhook'],
    ]);
    assert.match(report.steps[0] ?? '', /^Start a new process: .*"dataPlane\.workers"/);
    assert.deepEqual((await plan({ to: { shutdownDeadlineMs: 1 } })).restartNeeded, []);
  });

  test('names what of the kernel data plane takes a new process', async () => {
    const kernel: KernelOptions = {
      ...{ mode: 'next-hop', returnPath: 'route', flowState: 'pinned', spokes: [] },
      ...{ onStop: 'keep', manageSysctls: false },
    };
    const restarts = async (change: Partial<KernelOptions>) =>
      (await plan({ from: { kernel }, to: { kernel: { ...kernel, ...change } } })).restartNeeded;
    assert.deepEqual(await restarts({}), []);
    assert.deepEqual(await restarts({ mode: 'nat' }), ['dataPlane.kernel.mode']);
    assert.deepEqual(await restarts({ interface: 'eth0' }), ['dataPlane.kernel.interface']);
    assert.deepEqual(await restarts({ manageSysctls: true }), ['dataPlane.kernel.manageSysctls']);
    assert.deepEqual(
      await restarts({ returnPath: 'masquerade', flowState: 'stateless', onStop: 'remove' }),
      [],
    );
    assert.deepEqual((await plan({ to: { kernel } })).restartNeeded, ['dataPlane.kind']);
    assert.deepEqual((await plan({ from: { kernel } })).restartNeeded, ['dataPlane.kind']);
  });

  test('tells what of the kernel data plane changes for a rule, and how much of its hash space moves', async () => {
    const kernel: KernelOptions = {
      ...{ mode: 'next-hop', returnPath: 'route', flowState: 'stateless' },
      ...{ spokes: [], onStop: 'keep', manageSysctls: false },
    };
    const of = async (from: Partial<Configuration>, to: Partial<Configuration>) => {
      const { rules, movedShare } = await plan({ from, to });
      return {
        changes: rules.filter(({ change }) => change === 'changed').map(({ changes }) => changes),
        movedShare,
      };
    };
    assert.deepEqual(await of({ kernel }, { kernel }), { changes: [], movedShare: 0 });
    const cidr = (text: string) => parseCidr(text) ?? assert.fail(text);
    // The frontend is in the first spoke, clients are in the second: all are hashed the other way round.
    const spokes = [cidr('198.51.100.0/24'), cidr('0.0.0.0/1')];
    const turned = await of({ kernel }, { kernel: { ...kernel, spokes } });
    assert.deepEqual(turned.changes, [['dataPlane.kernel.spokes']]);
    assert.ok(turned.movedShare > 0.6 && turned.movedShare < 0.73, `${turned.movedShare}`);
    const pinned = await of({ kernel }, { kernel: { ...kernel, flowState: 'pinned' } });
    assert.deepEqual(pinned.changes, [['dataPlane.kernel.flowState']]);
    const other = await of({}, { kernel });
    assert.deepEqual(other.changes, [['dataPlane.kind']]);
    assert.ok(other.movedShare > 0.6 && other.movedShare < 0.73, `${other.movedShare}`);
  });

  test('names capture and the instance, but not for excluded ports', async () => {
    const capture: CaptureOptions = {
      ...{ udp: 'redirect', fallback: 'none', port: 61_000 },
      excludedPorts: portSetOf(22),
      block: { address: ipAddress('240.0.0.0'), prefixLength: 4, text: '240.0.0.0/4' },
    };
    type Settings = Partial<Configuration>;
    const restarts = async (from: Settings, to: Settings) => (await plan({ from, to })).restartNeeded;
    assert.deepEqual(await restarts({}, { instance: 'other' }), ['dataPlane.instance']);
    assert.deepEqual(await restarts({}, { capture }), ['dataPlane.capture']);
    assert.deepEqual(await restarts({ capture }, {}), ['dataPlane.capture']);
    const bound = { capture: { ...capture, udp: 'bind' as const } };
    assert.deepEqual(await restarts({ capture }, bound), ['dataPlane.capture']);
    const excluded = { capture: { ...capture, excludedPorts: portSetOf(22, 23) } };
    assert.deepEqual(await restarts({ capture }, excluded), []);
    const both = { capture: { ...excluded.capture, port: 62_000 } };
    assert.deepEqual(await restarts({ capture }, both), ['dataPlane.capture']);
  });
});
