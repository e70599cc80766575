import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { after, afterEach, before, describe, test, type TestContext } from 'node:test';
import { eventually, within } from '../support/deadline.js';
import { HaportsProcess, isAlive } from '../support/haports-process.js';
import { labConfig } from '../support/lab-config.js';
import { logEvents } from '../support/log-lines.js';
import { loopbackBlock } from '../support/loopback.js';
import { sumMetric } from '../support/metrics-text.js';
import { RecordingBackend } from '../support/recording-backend.js';
import { TcpClient } from '../support/tcp-client.js';
import { UdpClient } from '../support/udp-client.js';

const host = loopbackBlock();
const PORTS = Array.from({ length: 20 }, (_, index) => 7000 + index);
const UDP_FLOWS = 300;
const TCP_FLOWS = 60;

/** Which worker a flow is on, by the port it reaches the backend from: the remainder is the worker's number. */
function workerOf(sourcePort: number, workers: number): number {
  return sourcePort % workers;
}

/** A process that was started, and its workers at first. */
interface Running {
  readonly balancer: HaportsProcess;
  readonly pids: readonly number[];
  /** Kills it, and all its workers. */
  readonly end: () => Promise<void>;
}

interface Flow<C> {
  readonly id: string;
  readonly client: C;
}

void describe('several data workers of the built haports', () => {
  let backend: RecordingBackend;
  const cleanups: (() => Promise<void> | void)[] = [];
  let nextClient = 0;

  before(async () => {
    backend = await RecordingBackend.open(host(11), PORTS);
  });

  after(() => backend.close());

  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  });

  const configuration = (workers: number, top: object = {}, pool: object = {}) =>
    labConfig(host, {
      listenPorts: '7000-7019',
      backends: 1,
      // With an address of its own haports chooses TCP's source ports too, which tell the worker.
      pool: { sourceAddresses: [host(30)], ...pool },
      top: { dataPlane: { workers }, ...top },
    });

  const start = async (workers: number, top?: object): Promise<Running> => {
    const balancer = await HaportsProcess.start(configuration(workers, top));
    const pids = await balancer.workerPids();
    assert.equal(pids.length, workers);
    const end = async (): Promise<void> => {
      const last = await balancer.workerPids().catch(() => []);
      await balancer.kill();
      for (const pid of [...pids, ...last]) {
        if (await isAlive(pid)) process.kill(pid, 'SIGKILL');
        await eventually(async () => !(await isAlive(pid)), 5000, 'a worker to be gone');
      }
    };
    return { balancer, pids, end };
  };

  const target = (index: number) => ({
    host: host(1),
    port: PORTS[index % PORTS.length]!,
    localAddress: host(100 + (index % 50)),
  });

  const udpFlow = async (index: number): Promise<Flow<UdpClient>> => {
    const client = await UdpClient.open(target(index));
    cleanups.push(() => client.close());
    return { id: `u${nextClient++}`, client };
  };

  const tcpFlow = async (index: number): Promise<Flow<TcpClient>> => {
    const client = await TcpClient.connect(target(index));
    cleanups.push(() => client.destroy());
    const flow = { id: `t${nextClient++}`, client };
    await askTcp(flow);
    return flow;
  };

  /** True if the echo came; one datagram, no second try. */
  const askUdp = async ({ id, client }: Flow<UdpClient>, timeoutMs = 3000): Promise<boolean> => {
    const question = `${id} q${nextClient++};`;
    const answered = new Promise<boolean>((resolve) => {
      const onMessage = (message: Buffer): void => {
        if (message.toString('latin1') !== question) return;
        client.socket.off('message', onMessage);
        resolve(true);
      };
      client.socket.on('message', onMessage);
    });
    client.send(question);
    return within(answered, timeoutMs, question).catch(() => false);
  };

  const askTcp = ({ id, client }: Flow<TcpClient>): Promise<string> => client.ask(`${id} q${nextClient++};`);

  /** With a process that has had no flows yet. */
  async function checkOwners(t: TestContext, workers: number, { balancer, pids }: Running): Promise<void> {
    const indexes = Array.from({ length: UDP_FLOWS }, (_, index) => index);
    const udp = await Promise.all(indexes.map(udpFlow));
    const tcp = await Promise.all(indexes.slice(0, TCP_FLOWS).map(tcpFlow));
    for (let round = 0; round < 3; round++) {
      const answers = await Promise.all(udp.map((flow) => askUdp(flow)));
      assert.ok(!answers.includes(false), 'a datagram was lost');
    }
    const on = ({ id }: Flow<unknown>): number => workerOf(backend.sourcePort(id), workers);
    const ownerOfPort = new Map<number, number>();
    for (const [index, flow] of udp.entries()) {
      const { port } = target(index);
      assert.equal(on(flow), ownerOfPort.get(port) ?? on(flow), `port ${port} has two owners`);
      ownerOfPort.set(port, on(flow));
    }
    assert.ok(new Set(ownerOfPort.values()).size > 1, 'one worker owns all UDP ports');
    const perWorker = Array.from({ length: workers }, (_, w) => tcp.filter((flow) => on(flow) === w).length);
    t.diagnostic(`${TCP_FLOWS} TCP flows over the workers: ${perWorker.join(', ')}`);

    let metrics = await balancer.metrics();
    assert.equal(sumMetric(metrics, 'haports_flows_active', { protocol: 'udp' }), UDP_FLOWS);
    assert.equal(sumMetric(metrics, 'haports_flows_active', { protocol: 'tcp' }), TCP_FLOWS);
    assert.equal(sumMetric(metrics, 'haports_flow_table_used', { table: 'udp' }), UDP_FLOWS);
    assert.equal(sumMetric(metrics, 'haports_flow_table_limit', { table: 'udp' }), 65536);
    assert.equal(sumMetric(metrics, 'haports_arrivals_total', { protocol: 'udp' }), UDP_FLOWS);
    assert.equal(
      sumMetric(metrics, 'haports_flow_packets_total', { protocol: 'udp', direction: 'to_backend' }),
      3 * UDP_FLOWS,
    );
    assert.equal(sumMetric(metrics, 'haports_listeners_open'), 2 * PORTS.length);
    assert.equal(sumMetric(metrics, 'haports_listeners_wanted'), 2 * PORTS.length);
    const delays = metrics.filter(({ name }) => name === 'haports_event_loop_delay_seconds');
    assert.deepEqual(
      delays.map(({ labels }) => labels['worker']),
      pids.map((_, worker) => String(worker)),
    );

    // What a worker takes along is told as of its last pulse, of which there are four a second.
    await new Promise((resolve) => setTimeout(resolve, 500));
    // Where the first flow is, so that it has some.
    const victim = on(udp[0]!);
    const before = new Map(udp.map((flow) => [flow.id, backend.sourcePort(flow.id)]));
    process.kill(pids[victim]!, 'SIGKILL');
    const safe = udp.filter((flow) => workerOf(before.get(flow.id)!, workers) !== victim);
    const lost = udp.filter((flow) => !safe.includes(flow));
    // While it is dead and being replaced: new connections, and all flows of the others.
    const fresh: Promise<unknown>[] = [];
    for (let n = 0; n < 20; n++) {
      for (let index = 0; index < 5; index++) fresh.push(tcpFlow(n * 5 + index));
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    const answers = await Promise.all(safe.map((flow) => askUdp(flow)));
    assert.ok(!answers.includes(false), 'a datagram of another worker was lost');
    await Promise.all(fresh);
    for (const flow of safe) assert.equal(backend.sourcePort(flow.id), before.get(flow.id));
    for (const flow of tcp) {
      if (on(flow) === victim) assert.notEqual(await flow.client.ended(), 'open');
      else await askTcp(flow);
    }

    for (const flow of lost) {
      await eventually(() => askUdp(flow, 300), 5000, `an answer to ${flow.id} after its worker's death`);
      for (const port of backend.sourcePorts.get(flow.id) ?? []) {
        assert.equal(workerOf(port, workers), victim, 'the port got another owner');
      }
    }
    metrics = await balancer.metrics();
    assert.equal(sumMetric(metrics, 'haports_workers_lost_total'), 1);
    assert.equal(sumMetric(metrics, 'haports_flows_active', { protocol: 'udp' }), UDP_FLOWS);
    const [line, ...more] = logEvents(balancer.log(), 'worker-lost');
    assert.deepEqual([line?.['worker'], more.length], [victim, 0]);
    assert.ok(Number(line?.['flowsLost']) >= lost.length, `${String(line?.['flowsLost'])} flows lost`);
    t.diagnostic(`worker ${victim} took ${lost.length} of ${UDP_FLOWS} UDP flows along`);

    // The replacement has the others' TCP sockets.
    await eventually(
      async () => on(await tcpFlow(0)) === victim,
      10_000,
      'the replacement to accept a connection',
    );
  }

  const owners = 'no UDP flow meets two workers, none moves when another worker dies, and all adds up';

  test(`workers: 3: ${owners}`, async (t) => {
    const running = await start(3);
    cleanups.push(running.end);
    await checkOwners(t, 3, running);
    // The stop spans the replacement too.
    assert.equal(await running.balancer.stop(), 0);
    const [stopped] = logEvents(running.balancer.log(), 'stopped');
    assert.ok(Number(stopped?.['reset']) > 0);
  });

  describe('one process that has two, until it is stopped', () => {
    let running: Running;
    before(async () => {
      running = await start(2, { shutdown: { deadline: '3s' } });
    });
    after(() => running.end());

    test(`workers: 2: ${owners}`, (t) => checkOwners(t, 2, running));

    void test('no datagram is lost at 4,000 a second over two workers', async (t) => {
      const flows = await Promise.all(PORTS.map((_, index) => udpFlow(index)));
      for (const flow of flows) assert.ok(await askUdp(flow));
      backend.datagrams.length = 0;
      let echoes = 0;
      for (const { client } of flows) client.socket.on('message', () => echoes++);
      const sent = 8000;
      const startMs = performance.now();
      for (let n = 0; n < sent;) {
        const dueBy = Math.min(sent, (performance.now() - startMs) * 4);
        for (; n < dueBy; n++) {
          const { id, client } = flows[n % flows.length]!;
          client.send(`${id} ${n}`);
        }
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      await eventually(() => echoes >= sent, 3000, 'all echoes').catch(() => undefined);
      t.diagnostic(`${sent} sent in ${(performance.now() - startMs).toFixed(0)} ms, ${echoes} echoes`);
      assert.equal(new Set(backend.datagrams).size, sent);
      assert.equal(backend.datagrams.length, sent);
      assert.equal(echoes, sent);
    });

    void test('SIGTERM: flows of all workers may finish, and what is left is reset', async () => {
      const { balancer } = running;
      const pids = await balancer.workerPids();
      const active = async (protocol: string): Promise<number> =>
        sumMetric(await balancer.metrics(), 'haports_flows_active', { protocol });
      await eventually(async () => (await active('tcp')) === 0, 5000, 'the flows of the test before to end');
      const flows: Flow<TcpClient>[] = [];
      const on = ({ id }: Flow<unknown>): number => workerOf(backend.sourcePort(id), 2);
      // Which worker accepts is the kernel's choice.
      await eventually(
        async () => {
          flows.push(await tcpFlow(flows.length));
          return flows.length >= 40 && new Set(flows.map(on)).size === 2;
        },
        10_000,
        'flows on both workers',
      );
      const [finishing, lingering] = [flows.slice(0, -20), flows.slice(-20)];
      // Those of the tests before are still there, and count as finished.
      const udp = await active('udp');
      let taken = 0;
      process.kill(balancer.pid, 'SIGTERM');
      await eventually(
        () =>
          TcpClient.connect(target(0), 500).then(
            ({ socket }) => {
              taken++;
              socket.destroy();
            },
            () => true,
          ),
        3000,
        'new connections to be refused',
      );
      for (const flow of flows) await askTcp(flow);
      for (const { client } of finishing) client.socket.destroy();
      for (const { client } of lingering) assert.equal(await client.ended(6000), 'reset');
      assert.equal(await within(balancer.exit, 5000, 'haports to end'), 0);
      const [stopped] = logEvents(balancer.log(), 'stopped');
      // Connections that asked whether new ones are refused may have been taken.
      const finished = Number(stopped?.['finished']) - udp;
      const { length } = finishing;
      assert.ok(finished >= length && finished <= length + taken, `${finished} finished`);
      assert.equal(stopped?.['reset'], 20);
      for (const pid of pids) assert.equal(await isAlive(pid), false);
    });
  });

  describe('one process that has two, and not every port at first, and its successor', () => {
    const holder = createServer();
    const shutdown = { deadline: '20s' };
    let running: Running;
    before(async () => {
      await once(holder.listen(7003, host(1)), 'listening');
      running = await start(2, { shutdown });
    });
    after(async () => {
      holder.close();
      await running.end();
    });

    void test('a port in use is one failure, and once it is free all workers serve it, replacements too', async () => {
      const { balancer, pids } = running;
      const [failed, ...more] = logEvents(balancer.log(), 'listen-failed');
      assert.equal(more.length, 0);
      assert.deepEqual(failed?.['failures'], [
        {
          rule: 'ha-ports',
          protocol: 'tcp',
          address: host(1),
          errorCode: 'EADDRINUSE',
          count: 1,
          ports: '7003',
        },
      ]);
      assert.equal(sumMetric(await balancer.metrics(), 'haports_listeners_open'), 2 * PORTS.length - 1);
      holder.close();
      const served = (): Promise<Set<number>> =>
        Promise.all(Array.from({ length: 30 }, () => tcpFlow(3))).then(
          (flows) => new Set(flows.map(({ id }) => workerOf(backend.sourcePort(id), 2))),
        );
      const bothServe = () =>
        eventually(async () => (await served()).size === 2, 20_000, 'both workers on the port');
      await bothServe();
      await eventually(
        () => logEvents(balancer.log(), 'listening-changed').length > 0,
        3000,
        'the log to tell',
      );
      const [changed] = logEvents(balancer.log(), 'listening-changed');
      assert.deepEqual(changed?.['listeners'], { tcp: PORTS.length, udp: PORTS.length });
      process.kill(pids[0]!, 'SIGKILL');
      await eventually(async () => (await balancer.workerPids()).length === 1, 2000, 'the death');
      await bothServe();
      assert.equal(logEvents(balancer.log(), 'worker-lost').length, 1);
      await eventually(async () => (await balancer.workerPids()).length === 2, 10_000, 'the replacement');
    });
    void test('a control process that is killed: TCP flows of all workers go on, and a successor finds every port free', async () => {
      const { balancer, end } = running;
      cleanups.push(end);
      const pids = await balancer.workerPids();
      const flows = await Promise.all(Array.from({ length: 20 }, (_, index) => tcpFlow(index)));
      process.kill(balancer.pid, 'SIGKILL');
      await balancer.exit;
      for (const flow of flows) await askTcp(flow);
      running = await start(2, { shutdown });
      assert.deepEqual(logEvents(running.balancer.log(), 'listen-failed'), []);
      await tcpFlow(1);
      assert.ok(await askUdp(await udpFlow(1)));
      for (const flow of flows) await askTcp(flow);
      for (const { client } of flows) client.destroy();
      for (const pid of pids) {
        await eventually(async () => !(await isAlive(pid)), 5000, 'an orphaned worker to end');
      }
    });

    void test('caps hold over all workers, and nobody is refused for long while there is room', async (t) => {
      const { balancer } = running;
      const limits = { tcpFlows: 40, udpFlows: 30 };
      const backends = [{ name: 'nva-1', address: host(11), maxConnections: 21 }];
      const { status, body } = await balancer.reload(configuration(2, { limits, shutdown }, { backends }));
      assert.equal(status, 200, JSON.stringify(body));
      await eventually(() => backend.connections.size === 0, 5000, 'earlier connections to end');
      backend.mostConnections = 0;
      const tcp: Flow<TcpClient>[] = [];
      let refused = 0;
      await eventually(
        async () => {
          try {
            tcp.push(await tcpFlow(nextClient));
          } catch {
            refused++;
          }
          return backend.connections.size === 21;
        },
        10_000,
        '21 connections',
      );
      for (let n = 0; n < 50; n++) await assert.rejects(tcpFlow(n));
      assert.equal(backend.mostConnections, 21);
      const udp: Flow<UdpClient>[] = [];
      for (let index = 0; index < 100; index++) udp.push(await udpFlow(index));
      const active = async (): Promise<number> =>
        sumMetric(await balancer.metrics(), 'haports_flow_table_used', { table: 'udp' });
      // Of the test before.
      const already = await active();
      await eventually(
        async () => {
          for (const { id, client } of udp) client.send(`${id} x`);
          const now = await active();
          assert.ok(now <= 30, `${now} UDP flows`);
          return now === 30;
        },
        10_000,
        '30 UDP flows',
      );
      // Flows without an answer give way to others, until as many have one: those stay, and no other gets in.
      await eventually(
        async () => {
          const before = backend.sourcePorts.size;
          const answers = await Promise.all(udp.map((flow) => askUdp(flow, 500)));
          return answers.filter(Boolean).length === 30 - already && backend.sourcePorts.size === before;
        },
        20_000,
        'the same 30 flows, and no others',
      );
      t.diagnostic(`${refused} connections were refused before 21 of 21 were there`);
      // A place that becomes free is found by whoever asks, though he may have to ask twice.
      tcp[0]?.client.destroy();
      await eventually(() => backend.connections.size === 20, 2000, 'a free place');
      await eventually(
        async () => {
          await tcpFlow(nextClient);
          return backend.connections.size === 21;
        },
        5000,
        'the free place to be taken',
      );
      assert.equal(backend.mostConnections, 21);
    });
  });
});
