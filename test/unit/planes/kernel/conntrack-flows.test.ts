import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ConntrackFlows } from '../../../../src/planes/kernel/nat/kernel-flows.js';
import { compileProgram } from '../../../../src/planes/kernel/program.js';
import type { TrafficCounters } from '../../../../src/planes/contract.js';
import { ipAddress } from '../../../../src/model/address.js';
import type { PlaneEvent } from '../../../../src/model/events.js';
import { estimateSources } from '../../../../src/flows/traffic.js';
import type { Tools } from '../../../../src/planes/netfilter/tools.js';
import { FakeClock } from '../../../support/fake-clock.js';
import { KernelStates, oneRule } from '../../../support/kernel-states.js';
import type { Conditions } from '../../../support/state-factory.js';
import { FakeEntries, type FakeFlow } from './fake-entries.js';

const states = await KernelStates.create();

const NO_TOOLS: Tools = {
  run: () => Promise.reject(new Error('No tool is run here')),
  follow: () => {
    throw new Error('No tool is run here');
  },
};

function setUp({ configuration = oneRule(), flowEvents = true, count = '10', max = '100' } = {}) {
  const [clock, entries] = [new FakeClock(), new FakeEntries()];
  const sysctls = { count, max };
  const files = {
    readText: (path: string) =>
      Promise.resolve(
        path.endsWith('_count') ? sysctls.count : path.endsWith('_max') ? `${sysctls.max}\n` : '1',
      ),
  };
  const { picker } = states;
  const mirror = new ConntrackFlows(
    { clock, tools: NO_TOOLS, files, picker, source: entries },
    { flowEvents },
  );
  const events: PlaneEvent[] = [];
  mirror.subscribe((batch) => events.push(...batch));
  let revision = 1;
  const update = (now: object, conditions: Conditions = {}) => {
    const state = { ...states.state(now, {}, conditions), revision: revision++ };
    mirror.update(state, compileProgram(state));
    return state;
  };
  const state = update(configuration);
  const marks = new Map(compileProgram(state).backends.map(({ id, mark }) => [id, mark]));
  /** The mark that the kernel gives a flow: of the backend that its hash asks for. */
  const markOf = (flow: Omit<FakeFlow, 'mark' | 'id'>, by = state): number => {
    const { protocol = 'tcp', source = '10.1.0.2', sourcePort = 40_000, destinationPort = 80 } = flow;
    assert.ok(protocol !== 'icmp');
    const tuple = { protocol, source: ipAddress(source), sourcePort, destinationPort };
    const pick = picker.pick(by, { ...tuple, destination: ipAddress('10.9.0.10') }, new Set());
    assert.ok(pick.kind === 'picked');
    return marks.get(pick.backendId) ?? 0;
  };
  const placed = (flow: Omit<FakeFlow, 'mark'>): FakeFlow => ({ ...flow, mark: markOf(flow) });
  const told = (): readonly PlaneEvent[] => {
    clock.advance(100);
    return events.splice(0);
  };
  const begin = (flow: Omit<FakeFlow, 'mark'>): FakeFlow => {
    const one = placed(flow);
    entries.begin(one);
    return one;
  };
  return { clock, entries, mirror, update, state, marks, placed, begin, told, sysctls };
}

/** The same, once it has listed the flows that are there. */
async function begun(options?: Parameters<typeof setUp>[0]) {
  const lab = setUp(options);
  await lab.mirror.start();
  lab.told();
  return lab;
}

/** Seconds in which lists that are due are made. */
async function rounds(clock: FakeClock, seconds: number): Promise<void> {
  for (let second = 0; second < seconds; second++) {
    clock.advance(1000);
    for (let turn = 0; turn < 10; turn++) await Promise.resolve();
  }
}

function sum(
  traffic: readonly TrafficCounters[],
  key: 'flowsOpened' | 'flowsActive' | 'bytesToClient',
): number {
  return traffic.reduce((total, entry) => total + entry[key], 0);
}

describe('ConntrackFlows', () => {
  test('tells of a flow that comes and goes, with what it carried', async () => {
    const { clock, entries, mirror, begin, told } = await begun();
    const flow = begin({ id: 5 });
    const [start] = told();
    assert.ok(start?.type === 'flow-started');
    assert.equal(start.flow.reason, 'hash');
    assert.equal(start.flow.epoch, 1);
    assert.equal(start.flow.state, 'embryonic');
    assert.equal(start.flow.tuple.source.text, '10.1.0.2');
    assert.equal(start.flow.backendEndpoint, `${start.flow.backendId.slice('nvas/'.length)}:80`);
    assert.equal(mirror.count(), 1);
    clock.advance(4900);
    entries.end({ ...flow, state: 'TIME_WAIT', traffic: [3, 300, 2, 2000] });
    const [end] = told();
    assert.ok(end?.type === 'flow-ended');
    assert.equal(end.end, 'closed');
    assert.equal(end.flow.id, start.flow.id);
    assert.equal(end.atMs - end.flow.openedAtMs, 5000);
    assert.deepEqual([end.flow.packetsToBackend, end.flow.bytesToBackend], [3, 300]);
    assert.deepEqual([end.flow.packetsToClient, end.flow.bytesToClient], [2, 2000]);
    const { traffic, arrivals } = await mirror.counters();
    assert.deepEqual([sum(traffic, 'flowsOpened'), sum(traffic, 'flowsActive')], [1, 0]);
    assert.equal(sum(traffic, 'bytesToClient'), 2000);
    assert.deepEqual(
      traffic.map(({ flowsEnded }) => flowsEnded),
      [{ closed: 1 }],
    );
    assert.equal(arrivals[0]?.arrivals, 1);
  });

  test('tells nothing of single flows where there is no flow log', async () => {
    const { entries, mirror, begin, told } = await begun({
      ...{ flowEvents: false, configuration: oneRule({ metrics: { listen: '127.0.0.1:0' } }) },
    });
    const flow = begin({ id: 5 });
    entries.end({ ...flow, state: 'TIME_WAIT' });
    assert.deepEqual(told(), []);
    assert.equal(sum((await mirror.counters()).traffic, 'flowsOpened'), 1);
  });

  test('says why flows ended', async () => {
    const { entries, mirror, placed, told } = await begun();
    const ends: [Partial<FakeFlow>, string][] = [
      [{ state: 'TIME_WAIT' }, 'closed'],
      [{ state: 'LAST_ACK' }, 'closed'],
      [{ state: 'CLOSE' }, 'reset'],
      [{ state: 'CLOSE', unreplied: true }, 'connect-failed'],
      [{ state: 'SYN_SENT', unreplied: true }, 'connect-failed'],
      [{ state: 'SYN_RECV' }, 'embryonic-timeout'],
      [{ state: 'ESTABLISHED' }, 'idle'],
      [{ protocol: 'udp' }, 'idle'],
      [{ state: 'ESTABLISHED', byProgram: true }, 'closed'],
    ];
    for (const [index, [how]] of ends.entries()) {
      const flow = placed({ id: index, sourcePort: 1000 + index, ...how });
      entries.begin(flow);
      entries.end(flow);
    }
    const events = told();
    assert.deepEqual(
      events.flatMap((event) => (event.type === 'flow-ended' ? [event.end] : [])),
      ends.map(([, end]) => end),
    );
    assert.deepEqual(
      events.flatMap((event) => (event.type === 'passive-failure' ? [event.evidence] : [])),
      ['ECONNREFUSED', 'connect timeout'],
    );
    const { traffic } = await mirror.counters();
    const total = (key: 'resets' | 'connectFailures'): number =>
      traffic.reduce((all, one) => all + one[key], 0);
    assert.deepEqual([total('resets'), total('connectFailures')], [1, 2]);
  });

  test('takes a refusal at one of many ports for the answer of the backend, unless the port was open', async () => {
    const { entries, mirror, placed, told } = await begun();
    const refusal = placed({ id: 1, destinationPort: 4444, state: 'CLOSE', unreplied: true });
    const end = (flow: FakeFlow) => {
      entries.begin(flow);
      entries.end(flow);
      return told().flatMap((event) => {
        if (event.type === 'flow-ended') return event.end;
        return event.type === 'flow-started' ? [] : event.type;
      });
    };
    const failures = async () =>
      (await mirror.counters()).traffic.reduce((all, { connectFailures }) => all + connectFailures, 0);
    assert.deepEqual(end(refusal), ['refused', 'port-refused']);
    assert.equal(await failures(), 0);
    assert.deepEqual(end({ ...refusal, id: 2, state: 'TIME_WAIT', unreplied: false }), ['closed']);
    assert.deepEqual(end({ ...refusal, id: 3 }), ['connect-failed', 'passive-failure']);
    assert.equal(await failures(), 1);
  });

  test('takes a refusal of the one port of a rule for a failure', async () => {
    const rule = { haPorts: false, protocol: 'tcp', frontendPort: 80, backendPort: 80 };
    const { begin, entries, told } = await begun({ configuration: oneRule({ rule }) });
    const flow = begin({ id: 1, state: 'CLOSE', unreplied: true });
    entries.end(flow);
    const end = told().find(({ type }) => type === 'flow-ended');
    assert.ok(end?.type === 'flow-ended');
    assert.equal(end.end, 'connect-failed');
  });

  test('says which policy ended a flow that this process deleted', async () => {
    const { entries, mirror, update, placed, told, marks } = await begun();
    const flow = placed({ id: 5, protocol: 'udp' });
    const other = placed({ id: 6, protocol: 'udp', sourcePort: 7 });
    const third = placed({ id: 7, protocol: 'udp', sourcePort: 8 });
    for (const one of [flow, other, third]) entries.begin(one);
    const idOf = (mark: number) => [...marks].find(([, one]) => one === mark)?.[0] ?? '';
    const nameOf = (mark: number) => `b${idOf(mark).split('.')[3]}`;
    const ends = () => told().flatMap((event) => (event.type === 'flow-ended' ? [event.end] : []));
    update(oneRule(), { admin: { [nameOf(flow.mark)]: 'down' } });
    entries.end({ ...flow, byProgram: true });
    assert.deepEqual(ends(), ['admin-down']);
    update(oneRule());
    mirror.ending({ mark: other.mark, protocol: 'udp' }, 'drain-deadline');
    entries.end({ ...other, byProgram: true });
    assert.deepEqual(ends(), ['drain-deadline']);
    update(oneRule({ rules: [], frontends: [], backendPools: [], probes: [] }));
    entries.end({ ...third, byProgram: true });
    assert.deepEqual(ends(), ['rule-removed']);
  });

  test('explains a flow by the state that placed it, though its news come after the next', async () => {
    const { entries, update, placed, told, marks } = await begun();
    const flow = placed({ id: 5 });
    const host = [...marks].find(([, mark]) => mark === flow.mark)?.[0].split('.')[3];
    update(oneRule(), { admin: { [`b${host}`]: 'down' } });
    update(oneRule(), { admin: { [`b${host}`]: 'down' } });
    entries.begin(flow);
    const [start] = told();
    assert.ok(start?.type === 'flow-started');
    assert.deepEqual([start.flow.reason, start.flow.epoch], ['hash', 1]);
  });

  test('explains a flow that was hashed again, since its backend was out already', async () => {
    const { entries, update, state, marks, told } = await begun();
    const idOf = (mark: number) => [...marks].find(([, one]) => one === mark)?.[0] ?? '';
    const out = 'nvas/10.2.0.12';
    update(oneRule(), { admin: { b12: 'down' } });
    // The old table still has it; seed + 1 leads elsewhere, in the old table too.
    const next = { ...state, configuration: { ...state.configuration, seed: state.configuration.seed + 1 } };
    let seen = 0;
    for (let sourcePort = 1000; sourcePort < 1100; sourcePort++) {
      const tuple = {
        ...({ protocol: 'tcp', source: ipAddress('10.1.0.2'), sourcePort } as const),
        ...{ destination: ipAddress('10.9.0.10'), destinationPort: 80 },
      };
      const [first, second] = [state, next].map((one) => states.picker.pick(one, tuple, new Set()));
      assert.ok(first?.kind === 'picked' && second?.kind === 'picked');
      if (first.backendId !== out || second.backendId === out) continue;
      seen++;
      entries.begin({ id: sourcePort, sourcePort, mark: marks.get(second.backendId) ?? 0 });
      const [start] = told();
      assert.ok(start?.type === 'flow-started');
      assert.equal(start.flow.backendId, idOf(marks.get(second.backendId) ?? 0));
      // Or the new table would place it there as well, by the plain hash.
      if (start.flow.reason === 'hash') continue;
      assert.deepEqual([start.flow.reason, start.flow.epoch, start.flow.excluded], ['retry', 1, [out]]);
      seen += 1000;
    }
    assert.ok(seen > 5000, String(seen));
  });

  test('takes a flow that no state would place there for pinned', async () => {
    const { entries, marks, placed, told } = await begun();
    const flow = placed({ id: 5 });
    const other = [...marks.values()].find((mark) => mark !== flow.mark) ?? 0;
    entries.begin({ ...flow, mark: other });
    const [start] = told();
    assert.ok(start?.type === 'flow-started');
    assert.equal(start.flow.reason, 'pinned');
    assert.equal(marks.get(start.flow.backendId), other);
  });

  test('leaves alone what has marks that are not of its backends', async () => {
    const { entries, mirror, told } = await begun();
    entries.begin({ id: 5, mark: 1 });
    entries.end({ id: 5, mark: 1 });
    assert.deepEqual(told(), []);
    assert.equal(mirror.count(), 0);
  });

  test('start() takes up flows that were there, without counting them as new', async () => {
    const { clock, entries, mirror, placed, told } = setUp();
    entries.present = [
      placed({ id: 5, ageSeconds: 60, remainingSeconds: 200, traffic: [9, 900, 8, 800] }),
      placed({ id: 6, sourcePort: 7, state: 'TIME_WAIT' }),
    ];
    await mirror.start();
    assert.deepEqual(told(), []);
    const { flows } = await mirror.page({ limit: 10 });
    assert.equal(flows.length, 1);
    const [flow] = flows;
    assert.ok(flow);
    assert.equal(flow.state, 'established');
    assert.equal(clock.wallMs() - flow.openedAtMs, 60_100);
    // The rule keeps flows for 4 minutes.
    assert.equal(flow.idleMs, 40_100);
    assert.equal(flow.bytesToClient, 800);
    const { traffic } = await mirror.counters();
    assert.deepEqual([sum(traffic, 'flowsOpened'), sum(traffic, 'flowsActive')], [0, 1]);
  });

  test('lists anew when events were lost, and finds what has come and gone', async () => {
    const { clock, entries, mirror, placed, begin, told } = await begun();
    const [gone, stays] = [begin({ id: 5 }), begin({ id: 6, sourcePort: 7 })];
    told();
    entries.present = [stays, placed({ id: 7, sourcePort: 8, protocol: 'udp' })];
    entries.gap();
    entries.gap();
    assert.equal(entries.lists, 1);
    // Not more often than every second, however many gaps there are.
    await rounds(clock, 1);
    assert.equal(entries.lists, 2);
    // Its end may be on its way: it is gone when another list lacks it too.
    assert.equal(mirror.count(), 3);
    await rounds(clock, 2);
    assert.equal(entries.lists, 3);
    const events = told();
    assert.deepEqual(
      events.map((event) =>
        event.type === 'flow-ended' ? `${event.flow.tuple.sourcePort} ${event.end}` : event.type,
      ),
      ['flow-started', '40000 closed'],
    );
    assert.equal(mirror.count(), 2);
    const { kernelFlows, traffic } = await mirror.counters();
    assert.equal(kernelFlows?.gaps, 2);
    assert.equal(sum(traffic, 'flowsOpened'), 3);
    // Events that were only late change nothing.
    begin({ id: 7, sourcePort: 8, protocol: 'udp' });
    entries.end(gone);
    assert.equal(mirror.count(), 2);
    assert.equal(sum((await mirror.counters()).traffic, 'flowsOpened'), 3);
  });

  test('does not take up a flow that went while it was being listed', async () => {
    const { clock, entries, mirror, placed } = await begun();
    const flow = placed({ id: 5 });
    const list = entries.list.bind(entries);
    entries.list = (onEntries) => {
      entries.end(flow);
      entries.present = [flow];
      return list(onEntries);
    };
    clock.advance(1000);
    await mirror.page({ limit: 10 });
    assert.equal(entries.lists, 2);
    assert.equal(mirror.count(), 0);
  });

  test('keeps what it knows where a listing fails', async () => {
    const { clock, entries, mirror, begin } = await begun();
    begin({ id: 5 });
    entries.present = [];
    entries.isWhole = false;
    for (let second = 0; second < 3; second++) {
      clock.advance(1000);
      assert.equal((await mirror.page({ limit: 10 })).flows.length, 1);
    }
    assert.equal(entries.lists, 4);
    entries.isWhole = true;
    clock.advance(1000);
    await mirror.counters();
    await rounds(clock, 1);
    assert.equal(mirror.count(), 0);
  });

  test('lists at most once a second, however often it is asked', async () => {
    const { clock, entries, mirror, placed, begin } = await begun();
    begin({ id: 5 });
    entries.present = [placed({ id: 5, traffic: [1, 10, 1, 20] })];
    await Promise.all([mirror.counters(), mirror.page({ limit: 1 }), mirror.counters()]);
    assert.equal(entries.lists, 1);
    clock.advance(1000);
    assert.equal(sum((await mirror.counters()).traffic, 'bytesToClient'), 20);
    entries.present = [placed({ id: 5, traffic: [1, 10, 2, 50] })];
    assert.equal(sum((await mirror.counters()).traffic, 'bytesToClient'), 20);
    assert.equal(entries.lists, 2);
    clock.advance(1000);
    assert.equal(sum((await mirror.counters()).traffic, 'bytesToClient'), 50);
  });

  test('tells of a flow whose mark has changed as moved', async () => {
    const { clock, entries, mirror, marks, placed, told } = await begun();
    const flow = placed({ id: 5 });
    const other = [...marks].find(([, mark]) => mark !== flow.mark);
    assert.ok(other);
    entries.begin(flow);
    told();
    entries.present = [{ ...flow, mark: other[1], traffic: [1, 2, 3, 4] }];
    clock.advance(1000);
    const [row, next] = (await mirror.counters()).traffic;
    assert.deepEqual([row?.flowsActive, next?.flowsActive, next?.backendId], [0, 1, other[0]]);
    const [moved] = told();
    assert.ok(moved?.type === 'flow-moved');
    assert.deepEqual([moved.flow.backendId, marks.get(moved.fromBackendId)], [other[0], flow.mark]);
    assert.equal(moved.flow.backendEndpoint, `${other[0].slice('nvas/'.length)}:80`);
    entries.end({ ...flow, mark: other[1], state: 'TIME_WAIT' });
    assert.deepEqual(
      (await mirror.counters()).traffic.map(({ flowsEnded }) => flowsEnded.closed ?? 0),
      [0, 1],
    );
  });

  test('ends flows that both ends have closed as soon as it sees that', async () => {
    const { clock, entries, mirror, begin, told } = await begun();
    const flow = begin({ id: 5 });
    entries.present = [{ ...flow, state: 'TIME_WAIT', traffic: [1, 2, 3, 4] }];
    clock.advance(1000);
    const { traffic } = await mirror.counters();
    assert.equal(sum(traffic, 'flowsActive'), 0);
    entries.end({ ...flow, state: 'TIME_WAIT', traffic: [1, 2, 3, 4] });
    assert.equal(told().filter(({ type }) => type === 'flow-ended').length, 1);
    assert.equal(sum((await mirror.counters()).traffic, 'bytesToClient'), 4);
  });

  test('pages through its flows, all or those that are asked for', async () => {
    const { entries, mirror, placed, begin } = await begun();
    for (let id = 0; id < 25; id++) begin({ id, sourcePort: 1000 + id });
    entries.end(placed({ id: 3, sourcePort: 1003 }));
    const ports: number[] = [];
    let after: number | undefined;
    do {
      const page = await mirror.page({ limit: 10, ...(after === undefined ? {} : { after }) });
      ports.push(...page.flows.map(({ tuple }) => tuple.sourcePort));
      after = page.next;
    } while (after !== undefined);
    assert.equal(new Set(ports).size, 24);
    const one = await mirror.page({ limit: 10, source: '10.1.0.2', sourcePort: 1007, protocol: 'tcp' });
    assert.deepEqual(
      one.flows.map(({ tuple }) => tuple.sourcePort),
      [1007],
    );
    assert.equal((await mirror.page({ limit: 10, rule: 'other' })).flows.length, 0);
    assert.equal((await mirror.page({ limit: 10, protocol: 'udp' })).flows.length, 0);
  });

  test('counts flows above its limits, but does not list them', async () => {
    const { entries, mirror, placed, begin, told } = await begun({
      configuration: oneRule({ limits: { tcpFlows: 3 } }),
    });
    const flows = Array.from({ length: 5 }, (_, id) => placed({ id, sourcePort: 1000 + id }));
    for (const flow of flows) entries.begin(flow);
    begin({ id: 9, protocol: 'udp' });
    assert.equal(mirror.count(), 6);
    assert.equal((await mirror.page({ limit: 10 })).flows.length, 4);
    const { traffic, kernelFlows, table } = await mirror.counters();
    assert.equal(sum(traffic, 'flowsActive'), 6);
    assert.equal(kernelFlows?.unlisted, 2);
    assert.deepEqual(table.tcp, { used: 5, limit: 3 });
    for (const flow of flows) entries.end({ ...flow, state: 'TIME_WAIT' });
    assert.equal(mirror.count(), 1);
    assert.equal((await mirror.counters()).kernelFlows?.unlisted, 0);
    assert.equal(told().filter(({ type }) => type === 'flow-ended').length, 3);
  });

  test('keeps flows apart whose ids are the same', async () => {
    const { mirror, begin } = await begun();
    begin({ id: 5, sourcePort: 1000 });
    begin({ id: 5, sourcePort: 1001 });
    assert.equal(mirror.count(), 2);
  });

  test('counts flows of other protocols by themselves', async () => {
    const { clock, entries, mirror, marks } = await begun();
    const [mark = 0] = marks.values();
    entries.begin({ id: 5, mark, protocol: 'icmp' });
    entries.begin({ id: 6, mark, protocol: 'icmp' });
    entries.end({ id: 5, mark, protocol: 'icmp' });
    const [backendId = ''] = marks.keys();
    const { kernelFlows, traffic } = await mirror.counters();
    assert.deepEqual(kernelFlows?.otherFlows, [{ backendId, protocol: 1, opened: 2, active: 1 }]);
    assert.deepEqual(traffic, []);
    assert.equal(mirror.count(), 0);
    entries.present = [];
    clock.advance(1000);
    await mirror.counters();
    clock.advance(1000);
    assert.equal((await mirror.counters()).kernelFlows?.otherFlows[0]?.active, 0);
  });

  test('goes on with flows of a rule under its new name', async () => {
    const { entries, mirror, update, begin } = await begun();
    const flow = begin({ id: 5 });
    update(oneRule({ rule: { name: 'renamed' } }));
    assert.equal((await mirror.page({ limit: 1 })).flows[0]?.rule, 'renamed');
    entries.end({ ...flow, state: 'TIME_WAIT' });
    const { traffic } = await mirror.counters();
    const rows = traffic.map(({ rule, flowsActive, flowsEnded }) => [
      rule,
      flowsActive,
      flowsEnded.closed ?? 0,
    ]);
    assert.deepEqual(rows, [
      ['all', 0, 0],
      ['renamed', 0, 1],
    ]);
  });

  test('counts clients, not flows, in the sketch of sources', async () => {
    const { mirror, begin } = await begun();
    for (let id = 0; id < 60; id++) {
      begin({ id, source: `10.1.0.${1 + (id % 20)}`, sourcePort: 1000 + id });
    }
    const [arrivals] = (await mirror.counters()).arrivals;
    assert.ok(arrivals?.sourceSketch);
    assert.equal(Math.round(estimateSources(arrivals.sourceSketch)), 20);
  });

  test('warns before the table of conntrack is full', async () => {
    const { clock, mirror, sysctls, told } = await begun();
    assert.deepEqual((await mirror.counters()).kernelFlows?.conntrack, { used: 10, limit: 100 });
    const levels: string[] = [];
    for (const count of ['74', '75', '80', '100', '72', '69', '74']) {
      sysctls.count = count;
      clock.advance(1000);
      for (let turn = 0; turn < 10; turn++) await Promise.resolve();
      levels.push(
        ...told().flatMap((event) => (event.type === 'table-pressure' ? [`${count} ${event.pressure}`] : [])),
      );
    }
    assert.deepEqual(levels, ['75 high', '100 exhausted', '72 high', '69 normal']);
  });

  test('stop() tells what it knows and no more', async () => {
    const { mirror, begin, told } = await begun();
    begin({ id: 5 });
    await mirror.stop();
    begin({ id: 6, sourcePort: 7 });
    assert.equal(told().length, 1);
    assert.equal(mirror.count(), 1);
  });

  const metrics = { listen: '127.0.0.1:0' };
  for (const [what, configuration, isFollowed] of [
    [
      'a rule is probed: a connection that fails has probes sent',
      oneRule({ rule: { probe: 'alive' } }),
      true,
    ],
    ['metrics are served', oneRule({ metrics }), true],
    ['nothing consumes events', oneRule(), false],
  ] as const) {
    test(`${isFollowed ? 'follows' : 'does not follow'} flows where ${what}`, async () => {
      const { entries } = await begun({ configuration, flowEvents: false });
      assert.equal(entries.isFollowed, isFollowed);
    });
  }

  test('follows flows only while a configuration wants that, and counts what it missed meanwhile', async () => {
    const consuming = oneRule({ rule: { probe: 'alive' } });
    const { clock, entries, mirror, update, placed, begin } = await begun({
      ...{ configuration: consuming, flowEvents: false },
    });
    const first = begin({ id: 5 });
    assert.equal(mirror.count(), 1);
    update(oneRule());
    assert.equal(entries.isFollowed, false);
    const second = begin({ id: 6, sourcePort: 7 });
    entries.end(first);
    assert.equal(mirror.count(), 1);
    // Ends are not reported: one list that lacks a flow is enough.
    await rounds(clock, 1);
    const { traffic } = await mirror.counters();
    assert.deepEqual([sum(traffic, 'flowsOpened'), sum(traffic, 'flowsActive')], [2, 1]);
    update(consuming);
    assert.equal(entries.isFollowed, true);
    entries.present = [second, placed({ id: 7, sourcePort: 8 })];
    await rounds(clock, 2);
    assert.equal(mirror.count(), 2);
    assert.equal((await mirror.counters()).kernelFlows?.gaps, 0);
  });
});
