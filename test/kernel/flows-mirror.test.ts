import assert from 'node:assert/strict';
import { afterEach, before, beforeEach, describe, test } from 'node:test';
import { ConntrackFlows } from '../../src/planes/kernel/nat/kernel-flows.js';
import { compileProgram } from '../../src/planes/kernel/program.js';
import { allFlows } from '../../src/planes/contract.js';
import type { PlaneEvent } from '../../src/model/events.js';
import type { FlowRecord } from '../../src/model/flow.js';
import type { ForwardingState } from '../../src/model/forwarding.js';
import { systemClock as clock } from '../../src/runtime/clock.js';
import { campaign } from '../support/campaign.js';
import { eventually } from '../support/deadline.js';
import { HUB_MODES, useHub } from '../support/kernel-lab.js';
import { whyNoNamespaces } from '../support/lab.js';
import { CLIENTS, FAMILIES, FRONTEND } from '../support/topologies.js';
import { makeFlows, type Answer, type Flow, type FlowPlan, type Traffic } from '../support/traffic.js';

/** After which silent UDP flows end: no sooner than all have been listed. */
const SOON = '6s';
const BURST = campaign({ share: 3000, whole: 10_000 });

for (const mode of HUB_MODES) {
  describe(`ConntrackFlows of a kernel, ${mode}`, { skip: whyNoNamespaces() }, () => {
    const kernel = useHub(mode);
    const { lb, client: clientHost } = kernel.lab.hosts;
    let client: Traffic;
    let state: ForwardingState;
    const running: ConntrackFlows[] = [];

    before(async () => {
      client = clientHost.traffic();
      for (const name of ['acct', 'timestamp', 'events']) {
        await lb.sysctl(`net.netfilter.nf_conntrack_${name}`, 1);
      }
    });
    beforeEach(async () => {
      await loadWith(SOON);
      await kernel.forget();
    });
    afterEach(async () => {
      await client.close();
      await Promise.all(running.splice(0).map((mirror) => mirror.stop()));
    });

    async function loadWith(udpIdleTimeout: string): Promise<void> {
      const rule = { idleTimeout: { tcp: '100s', udp: udpIdleTimeout } };
      state = await kernel.load(
        { families: FAMILIES, rule, top: { seed: 7 } },
        {},
        { options: { tableSize: 1021 } },
      );
    }

    async function mirrored() {
      const files = { readText: (path: string) => lb.must(['cat', path]) };
      const { tools, states } = kernel;
      const mirror = new ConntrackFlows({ clock, tools, files, picker: states.picker }, { flowEvents: true });
      running.push(mirror);
      const events: PlaneEvent[] = [];
      mirror.subscribe((batch) => events.push(...batch));
      mirror.update(state, compileProgram(state));
      await mirror.start();
      // The machine's own sockets are as they are.
      assert.deepEqual(
        (await mirror.shortcomings()).filter((text) => !text.includes('rmem_default')),
        [],
      );
      const started = () => events.flatMap((event) => (event.type === 'flow-started' ? [event.flow] : []));
      const ended = () => events.flatMap((event) => (event.type === 'flow-ended' ? [event] : []));
      return { mirror, events, started, ended };
    }

    async function flowsOf(mirror: ConntrackFlows): Promise<readonly FlowRecord[]> {
      const all: FlowRecord[] = [];
      for await (const flow of allFlows({ flows: (query) => mirror.page(query) })) all.push(flow);
      return all;
    }

    /** Half of each family. */
    function flows(count: number, of: Partial<FlowPlan> & { readonly sourcePort: number }): readonly Flow[] {
      return FAMILIES.flatMap((family, index) => {
        const to = { host: FRONTEND[family], port: [80, 443], source: CLIENTS[family].slice(0, 3) };
        return makeFlows(count / 2, { ...to, ...of, sourcePort: of.sourcePort + (index * count) / 2 });
      });
    }

    /** Those that the mirror takes to be at another backend than the one that answered. */
    function misplaced(records: readonly FlowRecord[], asked: readonly Flow[], answers: readonly Answer[]) {
      const byPort = new Map(asked.map(({ sourcePort }, index) => [sourcePort, answers[index]?.by]));
      return records.filter(
        ({ tuple, backendId }) => `b${backendId.at(-1)}` !== byPort.get(tuple.sourcePort),
      );
    }

    test('lists flows with their backends, and those without packets until they end', async () => {
      const { mirror, ended } = await mirrored();
      const [open, silent] = [
        flows(60, { sourcePort: 20_000 }),
        flows(60, { protocol: 'udp', sourcePort: 20_060 }),
      ];
      const answers = [...(await client.open(open)), ...(await client.ask(silent))];
      await eventually(async () => (await flowsOf(mirror)).length === 120, 10_000, 'all flows');
      const listed = await eventually(
        async () => {
          const all = await flowsOf(mirror);
          return all.every(({ bytesToBackend }) => bytesToBackend > 0) && all;
        },
        30_000,
        'bytes to be counted',
      );
      assert.deepEqual(misplaced(listed, [...open, ...silent], answers), []);
      assert.deepEqual([...new Set(listed.map(({ reason }) => reason))], ['hash']);
      await eventually(
        async () => {
          const { traffic } = await mirror.counters();
          return traffic.every((row) => row.protocol === 'tcp' || row.flowsActive === 0);
        },
        20_000,
        'UDP flows to end',
      );
      // Events that wait are told then.
      await mirror.stop();
      assert.deepEqual(
        [...new Set(ended().map(({ end, flow }) => `${flow.tuple.protocol} ${end}`))],
        ['udp idle'],
      );
      assert.equal(mirror.count(), 60);
    });

    if (mode !== 'nat') return;

    test('knows where each flow is: 1,000 flows of TCP and UDP, IPv4 and IPv6', async () => {
      const { mirror, started } = await mirrored();
      const wanted = flows(1000, { protocol: ['tcp', 'udp'], sourcePort: 21_000 });
      const answers = await client.ask(wanted);
      await eventually(() => started().length >= 1000, 10_000, 'all to begin');
      assert.equal(started().length, 1000);
      assert.equal(new Set(started().map(({ tuple }) => tuple.sourcePort)).size, 1000);
      assert.deepEqual(misplaced(started(), wanted, answers), []);
      assert.deepEqual(
        [...new Set(started().map(({ reason, epoch }) => `${reason} ${epoch}`))],
        [`hash ${state.revision}`],
      );
      const { arrivals } = await mirror.counters();
      assert.deepEqual(
        arrivals.map(({ rule, protocol, arrivals: count }) => [rule, protocol, count]).sort(),
        [
          ['all4', 'tcp', 250],
          ['all4', 'udp', 250],
          ['all6', 'tcp', 250],
          ['all6', 'udp', 250],
        ],
      );
    });

    test('tells how flows end, and what they carried, with the bytes that conntrack counts', async () => {
      const { mirror, events, ended } = await mirrored();
      const to = { host: FRONTEND[4], port: 80, source: CLIENTS[4][0]! };
      await client.ask([
        { ...to, protocol: 'tcp', sourcePort: 30_001 },
        { ...to, protocol: 'udp', sourcePort: 30_002 },
        { ...to, protocol: 'tcp', sourcePort: 30_003, port: 4444 },
      ]);
      const endOf = (port: number) => ended().find(({ flow }) => flow.tuple.sourcePort === port);
      const told = await eventually(
        async () => {
          // Flows whose time is up go when somebody looks, or half a minute later.
          await mirror.counters();
          const ends = [30_001, 30_002, 30_003].flatMap((port) => endOf(port) ?? []);
          return ends.length === 3 && ends;
        },
        20_000,
        'all to end',
      );
      const [tcp, udp, refused] = told;
      // The client process ends its flow by RST or FIN.
      assert.ok(['closed', 'reset'].includes(tcp?.end ?? ''), tcp?.end);
      assert.deepEqual([udp?.end, refused?.end], ['idle', 'refused']);
      // A datagram of the client: 28 bytes of headers and at least one of payload.
      assert.ok((udp?.flow.bytesToBackend ?? 0) > 28);
      assert.ok((udp?.flow.bytesToClient ?? 0) > 28);
      assert.ok((tcp?.flow.packetsToBackend ?? 0) >= 4);
      assert.ok(events.some(({ type }) => type === 'port-refused'));
      assert.ok(!events.some(({ type }) => type === 'passive-failure'));
      const { traffic } = await mirror.counters();
      assert.equal(
        traffic.reduce((sum, { bytesToClient }) => sum + bytesToClient, 0),
        told.reduce((sum, { flow }) => sum + flow.bytesToClient, 0),
      );
    });

    test('shows bytes, states and idle times of live flows, and takes them over in another process', async () => {
      const { mirror } = await mirrored();
      await client.open(flows(20, { port: 80, sourcePort: 31_000 }));
      const sum = async () =>
        (await flowsOf(mirror)).reduce((total, { bytesToBackend }) => total + bytesToBackend, 0);
      await eventually(
        async () => (await flowsOf(mirror)).filter(({ state: now }) => now === 'established').length === 20,
        30_000,
        'all to be established',
      );
      const before = await sum();
      const askedAtMs = performance.now();
      await client.again();
      await eventually(async () => (await sum()) > before, 30_000, 'bytes to be counted');
      const now = await eventually(
        async () => {
          const all = await flowsOf(mirror);
          return all.every(({ idleMs }) => idleMs >= 500) && all;
        },
        30_000,
        'flows to be idle',
      );
      // What conntrack tells is in whole seconds.
      const atMostMs = performance.now() - askedAtMs + 2000;
      assert.ok(
        now.every(({ idleMs }) => idleMs < atMostMs),
        `${now[0]?.idleMs} ms`,
      );
      const { mirror: next } = await mirrored();
      assert.equal(next.count(), 20);
      const taken = await flowsOf(next);
      assert.deepEqual([...new Set(taken.map(({ reason }) => reason))], ['hash']);
      const openedAt = new Map(now.map((flow) => [flow.tuple.sourcePort, flow.openedAtMs]));
      // Conntrack tells ages in whole seconds.
      for (const { tuple, openedAtMs } of taken) {
        assert.ok(Math.abs(openedAtMs - (openedAt.get(tuple.sourcePort) ?? 0)) < 2000);
      }
      const { traffic } = await next.counters();
      const total = (key: 'flowsOpened' | 'flowsActive') => traffic.reduce((all, row) => all + row[key], 0);
      assert.deepEqual([total('flowsOpened'), total('flowsActive')], [0, 20]);
      const { backends } = compileProgram(state);
      const counted = await Promise.all(backends.map(({ mark }) => next.countOf(mark)));
      assert.equal(
        counted.reduce<number>((all, count) => all + Number(count), 0),
        20,
      );
    });

    test('knows what conntrack -D has ended, and by which policy', async () => {
      const { mirror, ended } = await mirrored();
      await client.open(flows(10, { port: 80, sourcePort: 32_000 }));
      await eventually(() => mirror.count() === 10, 10_000, 'all to begin');
      const all = await flowsOf(mirror);
      const [{ backendId }] = all as [FlowRecord];
      const { mark = 0 } = compileProgram(state).backends.find(({ id }) => id === backendId) ?? {};
      const gone = all.filter((flow) => flow.backendId === backendId).length;
      mirror.ending({ mark }, 'drain-deadline');
      await kernel.forget(`--mark 0x${mark.toString(16)}`);
      await kernel.forget(`-f ipv6 --mark 0x${mark.toString(16)}`);
      await eventually(() => mirror.count() === 10 - gone, 10_000, 'them to end');
      await mirror.stop();
      assert.deepEqual(
        ended().map(({ end }) => end),
        Array<string>(gone).fill('drain-deadline'),
      );
    });

    test(`misses nothing of ${BURST} flows, at a rate of 10,000 a second`, async (context) => {
      // On a busy machine some would else end before the others are told.
      await loadWith('20s');
      const { mirror, started } = await mirrored();
      const cpu = process.cpuUsage();
      const ports = { firstPort: 10_000, count: BURST };
      const tookMs = await client.burst({ host: FRONTEND[4], ...ports, perSecond: 10_000 });
      await eventually(() => started().length === BURST, 60_000, 'all to begin');
      const { user, system } = process.cpuUsage(cpu);
      assert.equal(mirror.count(), BURST);
      const { kernelFlows } = await mirror.counters();
      context.diagnostic(
        `${BURST} flows in ${tookMs} ms took ${Math.round((user + system) / 1000)} ms of CPU; ${kernelFlows?.gaps} gaps`,
      );
      const startedMs = performance.now();
      assert.equal((await flowsOf(mirror)).length, BURST);
      context.diagnostic(`to list them: ${Math.round(performance.now() - startedMs)} ms`);
      await eventually(
        async () => {
          await mirror.counters();
          return mirror.count() === 0;
        },
        90_000,
        'them to be idle',
      );
      const { traffic } = await mirror.counters();
      assert.equal(
        traffic.reduce((sum, row) => sum + (row.flowsEnded.idle ?? 0), 0),
        BURST,
      );
    });
  });
}
