import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { after, before, describe, test } from 'node:test';
import type { DataPlane, FlowQuery, PlaneCounters } from '../../src/planes/contract.js';
import type { PlaneEvent } from '../../src/model/events.js';
import type { Protocol } from '../../src/model/address.js';
import type { FlowRecord } from '../../src/model/flow.js';
import { estimateSources } from '../../src/flows/traffic.js';
import { eventually, patience } from '../support/deadline.js';
import { NvaHere, startNvas } from '../support/nva-process.js';
import { StateFactory, type Conditions } from '../support/state-factory.js';
import { connectionEnding, TcpClient, type Ending, type TcpTarget } from '../support/tcp-client.js';
import { UdpClient } from '../support/udp-client.js';

/** Where a plane under test finds its frontend, backends and clients. */
export interface ConformanceGround {
  /** `host(1)` is the frontend, `host(11)` to `host(13)` the backends, from `host(100)` on clients. */
  readonly host: (number: number) => string;
  readonly createPlane: () => Promise<DataPlane>;
  /** Of the configurations. @default the userspace plane */
  readonly dataPlane?: object;
  /** What a plane cannot do by its nature, and why. @default nothing */
  readonly lacks?: Readonly<Partial<Record<Lack, string>>>;
}

/**
 * `prompt-resets`: ends are told of a reset when they next send. `sockets`: no socket listens, so no port can be taken, a
 * frontend counts once a protocol, and what is refused is refused as a closed port refuses. `local-wildcard`: this machine's
 * own clients do not reach a frontend on all addresses. `udp-moves`: a UDP flow that moves is another flow after that. `prompt-counts`: bytes and packets may be
 * some seconds old.
 */
export type Lack = 'prompt-resets' | 'sockets' | 'local-wildcard' | 'udp-moves' | 'prompt-counts';

const FLOWS = 60;
const PORTS = [7000, 7005, 7009];

/** Taken on every address of the machine: of this test process alone. */
const WIDE_PORT = 20_000 + (process.pid % 10_000);

/**
 * What every data plane promises, whatever moves its bytes (data-plane.ts and design.md "One contract, two planes"):
 * a flow sticks, replies are symmetric, disruption is bounded, a stop ends, no backend has a defined outcome.
 */
export function conformanceSuite(name: string, ground: ConformanceGround): void {
  const { host, dataPlane, lacks = {} } = ground;
  const frontend = host(1);

  const configuration = (
    change: {
      readonly backends?: readonly number[];
      readonly frontend?: object;
      readonly rule?: object;
    } = {},
  ): object => ({
    ...(dataPlane === undefined ? {} : { dataPlane }),
    frontends: [{ name: 'hub', address: frontend, ...change.frontend }],
    probes: [{ name: 'alive', protocol: 'tcp', port: 9000 }],
    backendPools: [
      {
        name: 'nvas',
        backends: (change.backends ?? [1, 2, 3]).map((n) => ({ name: `nva-${n}`, address: host(10 + n) })),
      },
    ],
    rules: [
      {
        name: 'ha-ports',
        frontend: 'hub',
        backendPool: 'nvas',
        probe: 'alive',
        haPorts: true,
        listenPorts: '7000-7009',
        ...change.rule,
      },
    ],
  });

  /** How many listeners are counted for so many ports. */
  const listeners = (ports: number): number => (lacks.sockets === undefined ? ports : Math.min(ports, 1));

  /** How a connection ends that is to be reset. */
  const endOf = async (client: TcpClient, timeoutMs = 5000): Promise<Ending> => {
    if (lacks['prompt-resets'] === undefined) return client.ended(timeoutMs);
    const timer = setInterval(() => {
      if (client.ending === 'open') client.socket.write('x');
    }, 40);
    return client.ended(timeoutMs).finally(() => clearInterval(timer));
  };

  void describe(`conformance of ${name}`, () => {
    for (const [lack, why] of Object.entries(lacks)) {
      void test(`lacks ${lack}`, (t) => t.diagnostic(why));
    }

    let factory: StateFactory;
    const nvas: NvaHere[] = [];
    let plane: DataPlane;
    const events: PlaneEvent[] = [];
    let tcp: { client: TcpClient; backend: string }[] = [];
    let udp: { client: UdpClient; backend: string }[] = [];

    const apply = (
      conditions: Conditions = {},
      change: Parameters<typeof configuration>[0] = {},
    ): Promise<unknown> => plane.apply(factory.state(configuration(change), conditions));

    const refusal = async (target: TcpTarget): Promise<Ending> => {
      if (lacks.sockets === undefined) return connectionEnding(target);
      await assert.rejects(TcpClient.connect(target), { code: 'ECONNREFUSED' });
      return 'reset';
    };

    /** The plane counts so many listeners of the frontend. */
    const assertListeners = async (ports: { readonly tcp: number; readonly udp: number }): Promise<void> => {
      const wanted = listeners(ports.tcp) + listeners(ports.udp);
      assert.deepEqual((await plane.counters()).listeners, { hub: { open: wanted, wanted } });
    };

    /** Of the kernel's flows a plane hears from another process. */
    const areAllKnown = async (): Promise<boolean> => {
      const flows = await allFlows();
      const known = new Set(
        flows.map(({ tuple }) => `${tuple.protocol} ${tuple.source.text} ${tuple.sourcePort}`),
      );
      return (
        tcp.every(({ client: { socket } }) => known.has(`tcp ${socket.localAddress} ${socket.localPort}`)) &&
        udp.every(({ client: { socket } }) =>
          known.has(`udp ${socket.address().address} ${socket.address().port}`),
        )
      );
    };

    const openFlows = async (): Promise<void> => {
      const indexes = Array.from({ length: FLOWS }, (_, index) => index);
      const target = (index: number): { host: string; port: number; localAddress: string } => ({
        host: frontend,
        port: PORTS[index % PORTS.length]!,
        localAddress: host(100 + (index % 50)),
      });
      tcp = await Promise.all(
        indexes.map(async (index) => {
          const client = await TcpClient.connect(target(index));
          return { client, backend: await client.backend() };
        }),
      );
      udp = await Promise.all(
        indexes.map(async (index) => {
          const client = await UdpClient.open(target(index));
          return { client, backend: (await client.backend()) ?? 'nobody' };
        }),
      );
      await eventually(areAllKnown, 5000, 'the plane to know all flows');
    };

    const closeFlows = (): void => {
      for (const { client } of tcp) client.destroy();
      for (const { client } of udp) client.close();
      tcp = [];
      udp = [];
    };

    const allFlows = async (query: Partial<FlowQuery> = {}): Promise<readonly FlowRecord[]> => {
      const flows: FlowRecord[] = [];
      let after: number | undefined;
      do {
        const page = await plane.flows({ limit: 25, ...query, ...(after === undefined ? {} : { after }) });
        assert.ok(page.flows.length <= 25, 'a page is larger than its limit');
        flows.push(...page.flows);
        after = page.next;
      } while (after !== undefined);
      return flows;
    };

    /** With lazy resets, who has been told by one ends by that. */
    const endedByDrain = async (): Promise<number> => {
      const isLazy = lacks['prompt-resets'] !== undefined;
      return (await plane.counters()).traffic
        .filter(({ protocol }) => protocol === 'tcp' || lacks['udp-moves'] === undefined)
        .reduce(
          (sum, { flowsEnded }) =>
            sum + (flowsEnded['drain-deadline'] ?? 0) + (isLazy ? (flowsEnded.reset ?? 0) : 0),
          0,
        );
    };

    const noTcpFlows = async (): Promise<void> => {
      const gone = async (): Promise<boolean> => (await allFlows({ protocol: 'tcp' })).length === 0;
      await eventually(gone, 15_000, 'TCP flows to end');
    };

    before(async () => {
      factory = await StateFactory.create();
      nvas.push(...(await startNvas(NvaHere, host, '7000-7009')));
      plane = await ground.createPlane();
      plane.subscribe((batch) => events.push(...batch));
      const report = await plane.start(factory.state(configuration()));
      assert.deepEqual(report.failures, []);
      assert.deepEqual(report.listeners, { tcp: listeners(10), udp: listeners(10) });
    });

    after(async () => {
      closeFlows();
      for (const nva of nvas) await nva.kill();
      await plane.stop(0);
    });

    void test('a flow sticks, all backends serve, and replies come from where the client sent', async () => {
      await openFlows();
      for (const flows of [tcp, udp]) {
        assert.deepEqual(new Set(flows.map(({ backend }) => backend)), new Set(['nva-1', 'nva-2', 'nva-3']));
      }
      await apply();
      for (const { client, backend } of tcp) assert.equal(await client.backend(), backend);
      for (const [index, { client, backend }] of udp.entries()) {
        const answer = await client.ask();
        assert.equal(answer?.text.split(':')[0], backend);
        assert.deepEqual([answer.from.address, answer.from.port], [frontend, PORTS[index % PORTS.length]]);
      }
    });

    void test('flows() pages through every flow once, counters() agree with it', async () => {
      if (lacks['prompt-counts'] !== undefined) {
        const counted = async (): Promise<boolean> =>
          (await allFlows()).every(({ packetsToClient }) => packetsToClient > 0);
        await eventually(counted, 15_000, 'packets to be counted');
      }
      const flows = await allFlows();
      assert.equal(flows.length, 2 * FLOWS);
      assert.equal(new Set(flows.map(({ id }) => id)).size, 2 * FLOWS);
      assert.equal(plane.flowCount() >= 0, true);
      for (const flow of flows) {
        assert.equal(flow.rule, 'ha-ports');
        assert.equal(flow.tuple.destination.text, frontend);
        assert.ok(flow.bytesToBackend > 0 && flow.bytesToClient > 0 && flow.packetsToClient > 0);
        assert.ok(flow.backendEndpoint.endsWith(`:${flow.tuple.destinationPort}`), 'the port was not kept');
      }
      const counters = await plane.counters();
      for (const protocol of ['tcp', 'udp'] as const) {
        const active = counters.traffic
          .filter((entry) => entry.protocol === protocol)
          .reduce((sum, { flowsActive }) => sum + flowsActive, 0);
        assert.equal(active, FLOWS);
        assert.equal((await allFlows({ protocol })).length, FLOWS);
        assert.equal(counters.table[protocol].used, FLOWS);
      }
      const onOne = await allFlows({ backendId: `nvas/${host(11)}` });
      assert.equal(onOne.length, [...tcp, ...udp].filter(({ backend }) => backend === 'nva-1').length);
      const [one] = flows;
      assert.ok(one !== undefined);
      const { source, sourcePort } = one.tuple;
      const ofClient = flows.filter(
        ({ tuple }) => tuple.source.text === source.text && tuple.sourcePort === sourcePort,
      );
      assert.ok(ofClient.length < flows.length);
      assert.deepEqual(
        (await allFlows({ source: source.text, sourcePort })).map(({ id }) => id),
        ofClient.map(({ id }) => id),
      );
      const total = counters.traffic.reduce((sum, { bytesToBackend }) => sum + bytesToBackend, 0);
      assert.equal(
        total,
        flows.reduce((sum, { bytesToBackend }) => sum + bytesToBackend, 0),
      );
    });

    void test('disruption is bounded: a backend down moves its UDP flows only, TCP persists (preset azure)', async () => {
      await apply({ health: { 'nva-2': 'down' } });
      for (const { client, backend } of tcp) assert.equal(await client.backend(), backend);
      for (const { client, backend } of udp) {
        const now = await client.backend();
        if (backend === 'nva-2') assert.ok(now === 'nva-1' || now === 'nva-3', `moved to ${now}`);
        else assert.equal(now, backend);
      }
      const pinned = (await allFlows({ backendId: `nvas/${host(12)}` })).map(({ reason }) => reason);
      assert.deepEqual(new Set(pinned), new Set(['pinned']));
    });

    void test('admin-down and removal: no new flow, TCP persists, UDP moves', async () => {
      await apply({ admin: { 'nva-1': 'down' } });
      for (const { client } of udp) assert.notEqual(await client.backend(), 'nva-1');
      await apply({}, { backends: [2, 3] });
      for (const { client, backend } of tcp) assert.equal(await client.backend(), backend);
      const fresh = await TcpClient.connect({ host: frontend, port: 7003, localAddress: host(180) });
      assert.notEqual(await fresh.backend(), 'nva-1');
      fresh.destroy();
      closeFlows();
      await apply();
    });

    void test('flow policy reset ends TCP flows of a backend that went down, and only those', async () => {
      const rule = { flowPolicy: { preset: 'azure', probeDown: 'reset' } };
      await apply({}, { rule });
      await openFlows();
      await apply({ health: { 'nva-3': 'down' } }, { rule });
      for (const { client, backend } of tcp) {
        if (backend === 'nva-3') assert.equal(await endOf(client), 'reset');
        else assert.equal(await client.backend(), backend);
      }
      for (const { client } of udp) assert.ok(['nva-1', 'nva-2'].includes((await client.backend()) ?? ''));
      closeFlows();
      await apply();
    });

    void test('nobody eligible: new TCP is reset, UDP is dropped without a sticky entry, TCP goes on', async () => {
      await openFlows();
      const down = { 'nva-1': 'down', 'nva-2': 'down', 'nva-3': 'down' } as const;
      await apply({ health: down });
      for (const { client, backend } of tcp) assert.equal(await client.backend(), backend);
      assert.equal(await refusal({ host: frontend, port: 7004, localAddress: host(181) }), 'reset');
      const quiet = await UdpClient.open({ host: frontend, port: 7004, localAddress: host(181) });
      assert.equal(await quiet.ask(200), undefined);
      for (const { client } of udp.slice(0, 10)) assert.equal(await client.ask(50), undefined);
      await apply();
      assert.ok(
        (await quiet.backend()) !== undefined,
        'a steady client stayed without backend (field.md C3)',
      );
      for (const { client } of udp) assert.ok((await client.backend()) !== undefined);
      quiet.close();
      closeFlows();
    });

    void test('nobody eligible under allDown fail-open: flows are placed all the same, and say so', async () => {
      const rule = { allDown: 'fail-open' };
      await apply({ health: { 'nva-1': 'down', 'nva-2': 'down', 'nva-3': 'down' } }, { rule });
      const client = await TcpClient.connect({ host: frontend, port: 7008, localAddress: host(182) });
      assert.match(await client.backend(), /^nva-[123]$/);
      const reason = async (): Promise<string | undefined> =>
        (await allFlows({ protocol: 'tcp' })).find(({ tuple }) => tuple.source.text === host(182))?.reason;
      // A plane in the kernel learns of a flow a moment after it carries it.
      await eventually(async () => (await reason()) !== undefined, 5000, 'the flow to be listed');
      assert.equal(await reason(), 'fail-open');
      client.destroy();
      await apply();
    });

    void test('apply() opens and closes listeners with the rule and never those that stay', async () => {
      const stays = await TcpClient.connect({ host: frontend, port: 7001, localAddress: host(183) });
      const backend = await stays.backend();
      await apply({}, { rule: { listenPorts: '7001-7003,7020' } });
      assert.equal(await stays.backend(), backend);
      await assert.rejects(TcpClient.connect({ host: frontend, port: 7009, localAddress: host(183) }));
      await assertListeners({ tcp: 4, udp: 4 });
      await apply();
      const again = await TcpClient.connect({ host: frontend, port: 7009, localAddress: host(183) });
      assert.match(await again.backend(), /^nva-/);
      again.destroy();
      stays.destroy();
    });

    for (const protocol of ['tcp', 'udp'] as const) {
      const skip = lacks.sockets ?? false;
      const title = `apply() of a configuration whose ${protocol} port somebody else has changes nothing`;
      void test(title, { skip }, async () => {
        await openFlows();
        const foreigner = await occupy(protocol, frontend, 7030);
        const rule = { name: 'another', listenPorts: '7005-7009,7030-7033', flowPolicy: 'firewall' };
        await assert.rejects(apply({ health: { 'nva-1': 'down' } }, { rule, backends: [1, 2] }), {
          code: 'LB_LISTEN_FAILED',
        });
        for (const { client, backend } of [...tcp, ...udp]) assert.equal(await client.backend(), backend);
        await assert.rejects(TcpClient.connect({ host: frontend, port: 7031, localAddress: host(187) }));
        await assertListeners({ tcp: 10, udp: 10 });
        assert.deepEqual(new Set((await allFlows()).map(({ rule }) => rule)), new Set(['ha-ports']));
        await foreigner.close();
        await apply({}, { rule: { listenPorts: '7000-7009,7030-7033' } });
        const fresh = await TcpClient.connect({ host: frontend, port: 7001, localAddress: host(187) });
        assert.match(await fresh.backend(), /^nva-/);
        fresh.destroy();
        for (const { client, backend } of [...tcp, ...udp]) assert.equal(await client.backend(), backend);
        await assertListeners({ tcp: 14, udp: 14 });
        closeFlows();
        await apply();
      });
    }

    const skipWide = lacks['local-wildcard'] ?? false;
    const wide = 'a frontend on all addresses and one on a single address take over from each other';
    void test(wide, { skip: skipWide }, async () => {
      const rule = {
        ...{ name: 'wide', protocol: 'tcp', frontendPort: WIDE_PORT, backendPort: 7000 },
        ...{ haPorts: undefined, listenPorts: undefined },
      };
      for (const address of [frontend, '0.0.0.0', frontend]) {
        await apply({}, { rule, frontend: { address } });
        const client = await TcpClient.connect({ host: frontend, port: WIDE_PORT, localAddress: host(188) });
        assert.match(await client.backend(), /^nva-/);
        client.destroy();
        await assertListeners({ tcp: 1, udp: 0 });
      }
      await apply();
    });

    void test('flows of a renamed rule, whose frontend has another name too, go on under the new name', async (t) => {
      t.after(closeFlows);
      await openFlows();
      const idsBefore = new Set((await allFlows()).map(({ id }) => id));
      await apply({}, { frontend: { name: 'edge' }, rule: { name: 'renamed', frontend: 'edge' } });
      for (const { client, backend } of [...tcp, ...udp]) assert.equal(await client.backend(), backend);
      const flows = await allFlows();
      assert.ok(flows.every(({ id }) => idsBefore.has(id)));
      assert.deepEqual(new Set(flows.map(({ rule }) => rule)), new Set(['renamed']));
      const active = async (name: string): Promise<number> =>
        (await plane.counters()).traffic
          .filter(({ rule }) => rule === name)
          .reduce((sum, { flowsActive }) => sum + flowsActive, 0);
      await eventually(async () => (await active('renamed')) >= 2 * FLOWS, 5000, 'all flows to be counted');
      assert.equal(await active('ha-ports'), 0);
      // A new flow, and one that moves, find the rule under its new name.
      await apply(
        { health: { 'nva-2': 'down' } },
        { frontend: { name: 'edge' }, rule: { name: 'renamed', frontend: 'edge' } },
      );
      for (const { client } of udp) assert.ok(['nva-1', 'nva-3'].includes((await client.backend()) ?? ''));
      closeFlows();
      await apply();
    });

    void test('flows of a drained backend end over the time asked for, whatever is applied meanwhile', async (t) => {
      const SPREAD_MS = 2000;
      t.after(closeFlows);
      // Conntrack knows closed flows for some seconds, and they end as those that are open.
      if (lacks['prompt-counts'] !== undefined) await noTcpFlows();
      await openFlows();
      const endedBefore = await endedByDrain();
      const affected = tcp.filter(({ backend }) => backend === 'nva-2');
      assert.ok(affected.length >= 8, `only ${affected.length} flows to end`);
      const conditions = { drained: { 'nva-2': SPREAD_MS } };
      const startedAtMs = performance.now();
      await apply(conditions);
      const endedAfterMs: number[] = [];
      const endings = affected.map(async ({ client }) => {
        const ending = await endOf(client, 2 * SPREAD_MS + 3000);
        endedAfterMs.push(performance.now() - startedAtMs);
        return ending;
      });
      const passedMs = (): number => performance.now() - startedAtMs;
      const isEarly = (): boolean => endedAfterMs.length === 0 && passedMs() < patience(SPREAD_MS / 2);
      while (passedMs() < SPREAD_MS / 2 || isEarly()) {
        await new Promise((resolve) => setTimeout(resolve, 150));
        await apply(conditions);
      }
      const half = endedAfterMs.length;
      assert.ok(half > 0 && half < affected.length, `${half} of ${affected.length} at half time`);
      assert.deepEqual(new Set(await Promise.all(endings)), new Set(['reset']));
      const last = Math.max(...endedAfterMs);
      assert.ok(
        last > SPREAD_MS * 0.6 && last < SPREAD_MS + patience(1500),
        `the last one ended after ${last} ms`,
      );
      await eventually(
        () => performance.now() - startedAtMs > SPREAD_MS + 500,
        5000,
        'the end of the spread',
      );
      for (const { client, backend } of tcp) {
        if (backend !== 'nva-2') assert.equal(await client.backend(), backend);
      }
      for (const { client, backend } of udp) {
        if (backend !== 'nva-2') {
          assert.equal(await client.backend(), backend);
          continue;
        }
        const hasMoved = async (): Promise<boolean> => {
          const now = await client.backend();
          return now === 'nva-1' || now === 'nva-3';
        };
        await eventually(hasMoved, 1000, 'a UDP flow to move');
      }
      const ended = async (): Promise<number> => (await endedByDrain()) - endedBefore;
      await eventually(async () => (await ended()) >= affected.length, 10_000, 'the ends to be counted');
      assert.equal(await ended(), affected.length);
      closeFlows();
      await apply();
    });

    const lastFlowAtMs = ({ traffic }: Pick<PlaneCounters, 'traffic'>, backend: string): number | undefined =>
      traffic.find(
        ({ rule, protocol, backendId }) =>
          rule === 'ha-ports' &&
          protocol === 'tcp' &&
          backendId === `nvas/${host(10 + Number(backend.slice(-1)))}`,
      )?.lastFlowAtMs;

    void test('counters() tell who the clients are and when a backend got its last flow; answer() comes', async (t) => {
      await plane.answer();
      const beforeMs = Date.now();
      const client = await TcpClient.connect({ host: frontend, port: 7000, localAddress: host(189) });
      t.after(() => client.destroy());
      const backend = await client.backend();
      // The kernel tells of a flow by way of another process.
      const { traffic, arrivals } = await eventually(
        async () => {
          const counters = await plane.counters();
          const lastMs = lastFlowAtMs(counters, backend) ?? 0;
          return lastMs >= beforeMs - 1 && counters;
        },
        10_000,
        'the flow to be counted',
      );
      assert.ok(lastFlowAtMs({ traffic }, backend)! <= Date.now());
      for (const protocol of ['tcp', 'udp'] as const) {
        const sketch = arrivals.find(
          (one) => one.rule === 'ha-ports' && one.protocol === protocol,
        )?.sourceSketch;
        assert.ok(sketch !== undefined);
        const sources = estimateSources(sketch);
        // Fifty, and a few that single tests have used.
        assert.ok(sources > 45 && sources < 65, `${sources} ${protocol} clients`);
      }
    });

    void test('events tell the start and end of every flow once, with its bytes', async () => {
      const flowEvents = () => events.filter((event) => 'flow' in event);
      await noTcpFlows();
      await eventually(
        () => {
          const count = (type: string): number =>
            flowEvents().filter((event) => event.type === type && event.flow.tuple.protocol === 'tcp').length;
          return count('flow-started') > 0 && count('flow-started') === count('flow-ended');
        },
        15_000,
        'as many TCP flow ends as starts',
      );
      const ended = events.filter((event) => event.type === 'flow-ended');
      assert.equal(new Set(ended.map(({ flow }) => flow.id)).size, ended.length);
      for (const event of events) assert.doesNotThrow(() => structuredClone(event));
    });

    void test('stop() takes no new flow, lets flows finish, resets the rest at the deadline', async () => {
      const finishes = await TcpClient.connect({ host: frontend, port: 7000, localAddress: host(184) });
      const lingers = await TcpClient.connect({ host: frontend, port: 7000, localAddress: host(185) });
      const backend = await finishes.backend();
      await lingers.backend();
      const stopping = plane.stop(patience(2500));
      assert.equal(await finishes.backend(), backend);
      const fresh = { host: frontend, port: 7000, localAddress: host(186) };
      // Workers hear of it one after another, and the kernel is told by another process.
      await eventually(() => isRefused(fresh), 1000, 'new flows to be refused');
      finishes.socket.end();
      assert.equal(await finishes.ended(), 'fin');
      const lingered = endOf(lingers);
      const report = await stopping;
      assert.equal(await lingered, 'reset');
      assert.equal(report.reset, 1);
      assert.ok(report.finished >= 1);
      assert.deepEqual(await plane.stop(0), report);
    });
  });
}

async function isRefused(target: TcpTarget): Promise<boolean> {
  return TcpClient.connect(target).then(
    (client) => {
      client.destroy();
      return false;
    },
    () => true,
  );
}

/** Somebody else has the port until it is closed. */
async function occupy(protocol: Protocol, host: string, port: number): Promise<{ close(): Promise<void> }> {
  if (protocol === 'udp') {
    const socket = createSocket('udp4').bind({ address: host, port, exclusive: true });
    await once(socket.unref(), 'listening');
    return { close: () => new Promise<void>((resolve) => socket.close(resolve)) };
  }
  const server = createServer().listen({ host, port, exclusive: true });
  await once(server.unref(), 'listening');
  return { close: () => new Promise<void>((resolve) => server.close(() => resolve())) };
}
