import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { ConntrackFlows } from '../../src/planes/kernel/nat/kernel-flows.js';
import { compileProgram, type KernelProgram } from '../../src/planes/kernel/program.js';
import { natSetup } from '../../src/planes/kernel/nat/rules.js';
import type { PlaneEvent } from '../../src/model/events.js';
import type { FlowRecord } from '../../src/model/flow.js';
import type { ForwardingState } from '../../src/model/forwarding.js';
import { systemTools } from '../../src/planes/netfilter/tools.js';
import { systemClock as clock } from '../../src/runtime/clock.js';
import { KernelStates } from '../support/kernel-states.js';
import { whyNoNamespaces } from '../support/namespaces.js';
import {
  CLIENTS,
  FRONTEND,
  NatLab,
  whoAnswered,
  type ClientFlow,
  type LabClient,
} from '../support/nat-lab.js';

const BURST_MAIN = fileURLToPath(new URL('../support/udp-burst-main.js', import.meta.url));
const HOSTS = ['11', '12', '13'];
const NAMES = new Map(
  HOSTS.flatMap((host, index) => [
    [`v4/10.2.0.${host}`, `b${index + 1}`],
    [`v6/fd02::${host}`, `b${index + 1}`],
  ]),
);

const configuration = {
  seed: 7,
  frontends: [
    { name: 'four', address: FRONTEND[4] },
    { name: 'six', address: FRONTEND[6] },
  ],
  backendPools: [
    {
      name: 'v4',
      backends: HOSTS.map((host, index) => ({ name: `b${index + 1}`, address: `10.2.0.${host}` })),
    },
    {
      name: 'v6',
      backends: HOSTS.map((host, index) => ({ name: `b${index + 1}`, address: `fd02::${host}` })),
    },
  ],
  rules: [
    {
      name: 'four',
      frontend: 'four',
      backendPool: 'v4',
      haPorts: true,
      idleTimeout: { tcp: '100s', udp: '5s' },
    },
    { name: 'six', frontend: 'six', backendPool: 'v6', haPorts: true },
  ],
};

async function until(
  what: string,
  isSo: () => boolean | Promise<boolean>,
  deadlineMs = 10_000,
): Promise<void> {
  const end = performance.now() + deadlineMs;
  while (!(await isSo())) {
    assert.ok(performance.now() < end, `Waited too long until ${what}`);
    await sleep(20);
  }
}

describe('ConntrackFlows of a kernel', { skip: whyNoNamespaces() }, () => {
  let lab: NatLab;
  let client: LabClient;
  let states: KernelStates;
  let state: ForwardingState;
  let input: KernelProgram;
  const running: ConntrackFlows[] = [];

  before(async () => {
    states = await KernelStates.create();
    lab = await NatLab.create();
    client = lab.client();
    for (const name of ['acct', 'timestamp', 'events']) {
      await lab.namespaces.sysctl('lb', `net.netfilter.nf_conntrack_${name}`, 1);
    }
    state = states.state(configuration, { tableSize: 1021 });
    input = compileProgram(state);
    await lab.load(natSetup(input));
  });
  beforeEach(async () => {
    await Promise.all(running.splice(0).map((mirror) => mirror.stop()));
    await lab.forget();
  });
  after(async () => {
    await Promise.all(running.map((mirror) => mirror.stop()));
    await lab.close();
  });

  async function mirrored(): Promise<{ readonly mirror: ConntrackFlows; readonly events: PlaneEvent[] }> {
    const files = {
      readText: (path: string) => lab.namespaces.must('lb', 'cat', [path]),
    };
    const tools = systemTools({ namespace: lab.namespaces.full('lb') });
    const mirror = new ConntrackFlows({ clock, tools, files, picker: states.picker }, { flowEvents: true });
    running.push(mirror);
    const events: PlaneEvent[] = [];
    mirror.subscribe((batch) => events.push(...batch));
    mirror.consume();
    mirror.update(state, input);
    await mirror.start();
    // The machine's own sockets are as they are.
    assert.deepEqual(
      (await mirror.shortcomings()).filter((text) => !text.includes('rmem_default')),
      [],
    );
    return { mirror, events };
  }

  async function allFlows(mirror: ConntrackFlows): Promise<FlowRecord[]> {
    const flows: FlowRecord[] = [];
    let after: number | undefined;
    do {
      const page = await mirror.page({ limit: 1000, ...(after === undefined ? {} : { after }) });
      flows.push(...page.flows);
      after = page.next;
    } while (after !== undefined);
    return flows;
  }

  test('knows where each flow is: 1,000 flows of TCP and UDP, IPv4 and IPv6', async () => {
    const { mirror, events } = await mirrored();
    const wanted: ClientFlow[] = Array.from({ length: 1000 }, (_, index) => ({
      protocol: index % 2 === 0 ? 'tcp' : 'udp',
      host: FRONTEND[index % 4 < 2 ? 4 : 6],
      port: index % 3 === 0 ? 80 : 443,
      source: CLIENTS[index % 4 < 2 ? 4 : 6][index % 3] ?? '',
      sourcePort: 20_000 + index,
    }));
    const answers = await client.once(...wanted);
    await until('all have begun', () => events.filter(({ type }) => type === 'flow-started').length >= 1000);
    const started = events.flatMap((event) => (event.type === 'flow-started' ? [event.flow] : []));
    assert.equal(started.length, 1000);
    const byPort = new Map(started.map((flow) => [flow.tuple.sourcePort, flow]));
    const wrong = wanted.filter(({ sourcePort = 0 }, index) => {
      const flow = byPort.get(sourcePort);
      return flow === undefined || NAMES.get(flow.backendId) !== whoAnswered(answers[index]);
    });
    assert.deepEqual(wrong, []);
    assert.deepEqual(
      [...new Set(started.map(({ reason, epoch }) => `${reason} ${epoch}`))],
      [`hash ${state.revision}`],
    );
    const { arrivals } = await mirror.counters();
    assert.deepEqual(arrivals.map(({ rule, protocol, arrivals: count }) => [rule, protocol, count]).sort(), [
      ['four', 'tcp', 250],
      ['four', 'udp', 250],
      ['six', 'tcp', 250],
      ['six', 'udp', 250],
    ]);
  });

  test('tells how flows end, and what they carried, with the bytes that conntrack counts', async () => {
    const { mirror, events } = await mirrored();
    const tcp = {
      protocol: 'tcp',
      host: FRONTEND[4],
      port: 80,
      source: CLIENTS[4][0],
      sourcePort: 30_001,
    } as const;
    const udp = {
      protocol: 'udp',
      host: FRONTEND[4],
      port: 80,
      source: CLIENTS[4][0],
      sourcePort: 30_002,
    } as const;
    const refused = { ...tcp, port: 4444, sourcePort: 30_003 };
    await client.once(tcp, udp, refused);
    const endOf = (port: number) =>
      events.find((event) => event.type === 'flow-ended' && event.flow.tuple.sourcePort === port);
    await until(
      'all have ended',
      async () => {
        // Flows whose time is up go when somebody looks, or half a minute later.
        await mirror.counters();
        return [30_001, 30_002, 30_003].every((port) => endOf(port) !== undefined);
      },
      15_000,
    );
    const told = [30_001, 30_002, 30_003].map((port) => {
      const event = endOf(port);
      assert.ok(event?.type === 'flow-ended');
      return event;
    });
    // The client process ends its flow by RST or FIN.
    assert.ok(['closed', 'reset'].includes(told[0]?.end ?? ''), told[0]?.end);
    assert.deepEqual([told[1]?.end, told[2]?.end], ['idle', 'connect-failed']);
    // A datagram of the client: 28 bytes of headers and at least one of payload.
    assert.ok((told[1]?.flow.bytesToBackend ?? 0) > 28);
    assert.ok((told[1]?.flow.bytesToClient ?? 0) > 28);
    assert.ok((told[0]?.flow.packetsToBackend ?? 0) >= 4);
    assert.ok(events.some((event) => event.type === 'passive-failure' && event.evidence === 'ECONNREFUSED'));
    const { traffic } = await mirror.counters();
    const bytes = traffic.reduce((sum, { bytesToClient }) => sum + bytesToClient, 0);
    const ended = told.reduce((sum, { flow }) => sum + flow.bytesToClient, 0);
    assert.equal(bytes, ended);
  });

  test('shows bytes, states and idle times of live flows, and takes them over in another process', async () => {
    const { mirror } = await mirrored();
    const opener = lab.client();
    const flows: ClientFlow[] = Array.from({ length: 20 }, (_, index) => ({
      protocol: 'tcp',
      host: FRONTEND[index % 2 === 0 ? 4 : 6],
      port: 80,
      source: CLIENTS[index % 2 === 0 ? 4 : 6][1],
      sourcePort: 31_000 + index,
    }));
    await opener.do({ kind: 'open', flows });
    await until(
      'all are established',
      async () => (await allFlows(mirror)).filter(({ state: now }) => now === 'established').length === 20,
    );
    const before = (await allFlows(mirror)).reduce((sum, flow) => sum + flow.bytesToBackend, 0);
    await opener.do({ kind: 'ask' });
    await until(
      'bytes are counted',
      async () => (await allFlows(mirror)).reduce((sum, flow) => sum + flow.bytesToBackend, 0) > before,
    );
    await sleep(1500);
    const now = await allFlows(mirror);
    assert.ok(
      now.every(({ idleMs }) => idleMs >= 500 && idleMs < 10_000),
      `${now[0]?.idleMs} ms`,
    );
    const next = (await mirrored()).mirror;
    assert.equal(next.count(), 20);
    const taken = await allFlows(next);
    assert.deepEqual([...new Set(taken.map(({ reason }) => reason))], ['hash']);
    const openedAt = new Map(now.map((flow) => [flow.tuple.sourcePort, flow.openedAtMs]));
    // Conntrack tells ages in whole seconds.
    for (const { tuple, openedAtMs } of taken) {
      assert.ok(Math.abs(openedAtMs - (openedAt.get(tuple.sourcePort) ?? 0)) < 2000);
    }
    const { traffic } = await next.counters();
    assert.deepEqual(
      [
        traffic.reduce((sum, row) => sum + row.flowsOpened, 0),
        traffic.reduce((sum, row) => sum + row.flowsActive, 0),
      ],
      [0, 20],
    );
    const [first] = input.backends;
    const counted = (await Promise.all(input.backends.map(({ mark }) => next.countOf(mark)))).map(Number);
    assert.equal(
      counted.reduce((sum, count) => sum + count, 0),
      20,
    );
    assert.ok(first !== undefined);
  });

  test('knows what conntrack -D has ended, and by which policy', async () => {
    const { mirror, events } = await mirrored();
    const opener = lab.client();
    const flows: ClientFlow[] = Array.from({ length: 10 }, (_, index) => ({
      protocol: 'tcp',
      host: FRONTEND[4],
      port: 80,
      source: CLIENTS[4][2],
      sourcePort: 32_000 + index,
    }));
    await opener.do({ kind: 'open', flows });
    await until('all have begun', () => mirror.count() === 10);
    const [gone] = await allFlows(mirror);
    assert.ok(gone);
    const mark = input.backends.find(({ id }) => id === gone.backendId)?.mark ?? 0;
    const moved = (await allFlows(mirror)).filter(({ backendId }) => backendId === gone.backendId).length;
    mirror.ending({ mark }, 'drain-deadline');
    await lab.forget('--mark', `0x${mark.toString(16)}`);
    await until('they have ended', () => mirror.count() === 10 - moved);
    await sleep(150);
    const ends = events.flatMap((event) => (event.type === 'flow-ended' ? [event.end] : []));
    assert.deepEqual(
      ends,
      Array.from({ length: moved }, () => 'drain-deadline'),
    );
  });

  test('misses nothing of 10,000 flows that come within a second', async (context) => {
    const { mirror, events } = await mirrored();
    const cpu = process.cpuUsage();
    const tookMs = await lab.namespaces.must('client', process.execPath, [
      BURST_MAIN,
      ...[FRONTEND[4], '10000', '10000', '10000'],
    ]);
    await until(
      'all have begun',
      () => events.filter(({ type }) => type === 'flow-started').length === 10_000,
    );
    const { user, system } = process.cpuUsage(cpu);
    assert.equal(mirror.count(), 10_000);
    const { kernelFlows } = await mirror.counters();
    context.diagnostic(
      `10,000 flows in ${tookMs.trim()} ms took ${Math.round((user + system) / 1000)} ms of CPU; ${kernelFlows?.gaps} gaps`,
    );
    const listing = process.cpuUsage();
    const startedMs = performance.now();
    await sleep(1000);
    const flows = await allFlows(mirror);
    const listed = process.cpuUsage(listing);
    assert.equal(flows.length, 10_000);
    context.diagnostic(
      `to list them: ${Math.round(performance.now() - startedMs - 1000)} ms, ${Math.round((listed.user + listed.system) / 1000)} ms of CPU`,
    );
    await until(
      'they are idle',
      async () => {
        await mirror.counters();
        return mirror.count() === 0;
      },
      20_000,
    );
    const { traffic } = await mirror.counters();
    assert.equal(
      traffic.reduce((sum, row) => sum + (row.flowsEnded.idle ?? 0), 0),
      10_000,
    );
  });
});
