import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { eventually, patience, within } from '../support/deadline.js';
import { HaportsProcess, isAlive } from '../support/haports-process.js';
import { labConfig } from '../support/lab-config.js';
import { logEvents } from '../support/log-lines.js';
import { loopbackBlock } from '../support/loopback.js';
import { sumMetric, type MetricLine } from '../support/metrics-text.js';
import { NvaProcess } from '../support/nva-process.js';
import { TcpClient } from '../support/tcp-client.js';
import { UdpClient } from '../support/udp-client.js';

const host = loopbackBlock();
const PORTS = '7000-7003';
const TARGET = { host: host(1), port: 7000 };

function configuration(deadline: string, workers = 1) {
  return labConfig(host, {
    listenPorts: PORTS,
    probe: { protocol: 'http', port: 9000, path: '/healthz', interval: '1s' },
    top: { shutdown: { deadline }, dataPlane: { workers } },
  });
}

void describe('processes of the built haports', () => {
  const nvas: NvaProcess[] = [];
  /** Undone after each test, last first. */
  const cleanups: (() => Promise<void> | void)[] = [];

  before(async () => {
    for (const n of [1, 2, 3]) {
      nvas.push(
        await NvaProcess.start({ name: `nva-${n}`, address: host(10 + n), ports: PORTS, healthPort: 9000 }),
      );
    }
  });

  after(async () => {
    for (const nva of nvas) await nva.kill();
  });

  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  });

  /** Starts haports, and remembers its worker so that no process outlives the test. */
  const start = async (deadline: string, workers = 1) => {
    const balancer = await HaportsProcess.start(configuration(deadline, workers));
    const pids = await balancer.workerPids();
    cleanups.push(async () => {
      const last = await balancer.workerPids().catch(() => []);
      await balancer.kill();
      for (const pid of [...pids, ...last]) if (await isAlive(pid)) process.kill(pid, 'SIGKILL');
    });
    return { balancer, worker: pids[0] };
  };

  const tcpFlow = async () => {
    const client = await TcpClient.connect(TARGET);
    cleanups.push(() => client.destroy());
    return { client, backend: await client.backend() };
  };

  const udpFlow = async () => {
    const client = await UdpClient.open(TARGET);
    cleanups.push(() => client.close());
    return { client, backend: await client.backend() };
  };

  const refused = () =>
    eventually(
      async () => {
        try {
          (await TcpClient.connect(TARGET, 1000)).destroy();
          return false;
        } catch (error) {
          return error instanceof Error && 'code' in error && error.code === 'ECONNREFUSED';
        }
      },
      3000,
      'new connections to be refused',
    );

  void test('a data worker that is killed is replaced within 2 s, and no counter goes backwards', async (t) => {
    const { balancer, worker } = await start('1s');
    assert.ok(worker !== undefined);
    const { client } = await tcpFlow();
    for (let n = 0; n < 20; n++) (await tcpFlow()).client.destroy();
    assert.ok((await udpFlow()).backend !== undefined);
    // A worker's totals are those of the last reading: what came after it dies with the worker.
    const readings: ReadonlyMap<string, number>[] = [];
    const read = async () => {
      const metrics = await balancer.metrics();
      // Where no worker answers within a second, as on a busy machine, a scrape has no counters.
      const isComplete = sumMetric(metrics, 'haports_data_plane_up') === 1;
      if (isComplete) readings.push(counters(metrics));
      return isComplete && metrics;
    };
    await eventually(read, 5000, 'a scrape with counters');

    // One reading is under way when the worker dies, others while there is none.
    process.kill(worker, 'SIGSTOP');
    const underWay = read();
    await new Promise((resolve) => setTimeout(resolve, 100));
    const killedMs = performance.now();
    process.kill(worker, 'SIGKILL');
    await underWay;
    const fresh = await eventually(
      async () => {
        await read();
        const next = await TcpClient.connect(TARGET, 1000);
        cleanups.push(() => next.destroy());
        return next.backend(1000);
      },
      2000,
      'a new flow to be served',
    );
    const backAfterMs = performance.now() - killedMs;
    t.diagnostic(`a new TCP flow was served ${backAfterMs.toFixed(0)} ms after the kill`);
    assert.match(fresh, /^nva-\d$/);
    assert.ok(backAfterMs < patience(2000));
    assert.match((await udpFlow()).backend ?? 'nobody', /^nva-\d$/);
    assert.notEqual(await client.ended(), 'open');

    const [replacement] = await balancer.workerPids();
    assert.ok(replacement !== undefined && replacement !== worker);
    const metrics = await eventually(read, 5000, 'a scrape with counters');
    assert.equal(sumMetric(metrics, 'haports_workers_lost_total'), 1);
    for (const [index, totals] of readings.slice(1).entries()) {
      for (const [series, value] of readings[index]!) {
        const now = totals.get(series) ?? Number.NaN;
        assert.ok(now >= value, `${series} went from ${value} to ${now} in reading ${index + 1}`);
      }
    }
    t.diagnostic(`${readings.length} readings of ${readings[0]!.size} counter series, none went backwards`);
    const [line, ...more] = logEvents(balancer.log(), 'worker-lost');
    assert.equal(more.length, 0);
    assert.equal(line?.level, 'error');
    assert.match(line.msg, /^Data worker 0 died \(signal SIGKILL\) with \d+ flows? and is being replaced$/);
    assert.equal(await balancer.stop(), 0);
    assert.equal(await isAlive(replacement), false);
  });

  void test('workers that die again and again are replaced again and again', async () => {
    const { balancer } = await start('1s');
    for (let round = 1; round <= 3; round++) {
      const [worker] = await eventually(
        async () => {
          const pids = await balancer.workerPids();
          return pids.length === 1 && pids;
        },
        5000,
        'a worker',
      );
      process.kill(worker!, 'SIGKILL');
      await eventually(
        async () => sumMetric(await balancer.metrics(), 'haports_workers_lost_total') === round,
        5000,
        `${round} workers to be lost`,
      );
      await eventually(async () => (await tcpFlow()).backend, 5000, 'a new flow to be served');
    }
  });

  void test('a control process that is killed: TCP flows go on until they are done, then the worker ends', async (t) => {
    const { balancer, worker } = await start('20s');
    assert.ok(worker !== undefined);
    const { client, backend } = await tcpFlow();
    assert.ok((await udpFlow()).backend !== undefined);
    process.kill(balancer.pid, 'SIGKILL');
    await balancer.exit;
    assert.equal(await client.backend(), backend, 'the established flow was lost');
    await refused();

    // A successor on the same configuration finds every port free, TCP and UDP.
    const successor = await start('1s');
    assert.deepEqual(logEvents(successor.balancer.log(), 'listen-failed'), []);
    assert.match((await udpFlow()).backend ?? 'nobody', /^nva-\d$/);
    assert.match((await tcpFlow()).backend, /^nva-\d$/);

    assert.equal(await client.backend(), backend, 'the established flow was lost to the successor');
    assert.equal(await isAlive(worker), true);
    const doneMs = performance.now();
    client.socket.end();
    assert.equal(await client.ended(), 'fin');
    client.destroy();
    await eventually(async () => !(await isAlive(worker)), 5000, 'the orphaned worker to end');
    t.diagnostic(`the worker ended ${(performance.now() - doneMs).toFixed(0)} ms after its last flow`);
  });

  void test('a control process that is killed: flows that do not end are reset at the deadline, and the worker ends', async () => {
    const { balancer, worker } = await start('1500ms');
    assert.ok(worker !== undefined);
    const { client, backend } = await tcpFlow();
    const killedMs = performance.now();
    process.kill(balancer.pid, 'SIGKILL');
    await balancer.exit;
    assert.equal(await client.backend(), backend);
    assert.equal(await client.ended(5000), 'reset');
    const lasted = performance.now() - killedMs;
    assert.ok(lasted > 1400 && lasted < 3500, `reset after ${lasted.toFixed(0)} ms`);
    await eventually(async () => !(await isAlive(worker)), 3000, 'the orphaned worker to end');
  });

  void test('a worker that is orphaned without flows ends at once', async () => {
    const { balancer, worker } = await start('20s');
    assert.ok(worker !== undefined);
    assert.ok((await udpFlow()).backend !== undefined);
    process.kill(balancer.pid, 'SIGKILL');
    await eventually(async () => !(await isAlive(worker)), 2000, 'the orphaned worker to end');
  });

  for (const workers of [1, 0]) {
    const shape = `workers: ${workers}`;

    void test(`SIGTERM (${shape}): nothing new is taken, an established flow goes on and may finish, exit code 0`, async (t) => {
      const { balancer, worker } = await start('20s', workers);
      const { client, backend } = await tcpFlow();
      process.kill(balancer.pid, 'SIGTERM');
      await refused();
      assert.equal(await client.backend(), backend);
      assert.equal(await client.ask('still there'), `${backend}: still there`);
      const readiness = await fetch(`http://${host(1)}:9902/readyz`);
      assert.equal(readiness.status, 503);
      assert.equal((await fetch(`http://${host(1)}:9902/healthz`)).status, 200);
      const doneMs = performance.now();
      client.socket.end();
      assert.equal(await client.ended(), 'fin');
      client.destroy();
      assert.equal(await within(balancer.exit, 5000, 'haports to end'), 0);
      t.diagnostic(`ended ${(performance.now() - doneMs).toFixed(0)} ms after its last flow`);
      assert.equal(logEvents(balancer.log(), 'stopped')[0]?.['reset'], 0);
      if (worker !== undefined) assert.equal(await isAlive(worker), false);
    });

    void test(`SIGTERM (${shape}): what is left at the deadline is reset, exit code 0`, async () => {
      const { balancer } = await start('1s', workers);
      const flows = await Promise.all(Array.from({ length: 5 }, tcpFlow));
      const askedMs = performance.now();
      process.kill(balancer.pid, 'SIGTERM');
      for (const { client } of flows) assert.equal(await client.ended(5000), 'reset');
      const lasted = performance.now() - askedMs;
      assert.ok(lasted > 900 && lasted < 3000, `reset after ${lasted.toFixed(0)} ms`);
      assert.equal(await within(balancer.exit, 5000, 'haports to end'), 0);
      const [stopped] = logEvents(balancer.log(), 'stopped');
      assert.deepEqual([stopped?.['finished'], stopped?.['reset']], [0, 5]);
    });

    void test(`a second SIGTERM (${shape}) ends it all at once`, async () => {
      const { balancer, worker } = await start('1h', workers);
      const { client } = await tcpFlow();
      process.kill(balancer.pid, 'SIGTERM');
      await refused();
      assert.equal(client.ending, 'open');
      process.kill(balancer.pid, 'SIGTERM');
      assert.equal(await client.ended(2000), 'reset');
      assert.equal(await within(balancer.exit, 2000, 'haports to end'), 0);
      if (worker !== undefined) assert.equal(await isAlive(worker), false);
    });
  }

  void test('SIGHUP kills nobody: same processes, same flows', async () => {
    const { balancer, worker } = await start('1s');
    assert.ok(worker !== undefined);
    const { client, backend } = await tcpFlow();
    process.kill(balancer.pid, 'SIGHUP');
    process.kill(worker, 'SIGHUP');
    for (let n = 0; n < 5; n++) assert.match((await tcpFlow()).backend, /^nva-\d$/);
    assert.equal(await client.backend(), backend);
    assert.deepEqual(await balancer.workerPids(), [worker]);
    assert.equal(await balancer.stop(), 0);
  });

  void test('Ctrl-C, which reaches the worker as well, is an orderly stop', async () => {
    const { balancer, worker } = await start('20s');
    assert.ok(worker !== undefined);
    const { client, backend } = await tcpFlow();
    process.kill(worker, 'SIGINT');
    process.kill(balancer.pid, 'SIGINT');
    await refused();
    assert.equal(await client.backend(), backend);
    client.socket.end();
    assert.equal(await client.ended(), 'fin');
    client.destroy();
    assert.equal(await within(balancer.exit, 5000, 'haports to end'), 0);
    assert.deepEqual(logEvents(balancer.log(), 'worker-lost'), []);
  });

  void test('workers: 0 serves in one process', async () => {
    const { worker } = await start('1s', 0);
    assert.equal(worker, undefined);
    const names = new Set<string>();
    for (let n = 0; n < 40; n++) names.add((await tcpFlow()).backend);
    assert.deepEqual([...names].sort(), ['nva-1', 'nva-2', 'nva-3']);
    assert.match((await udpFlow()).backend ?? 'nobody', /^nva-\d$/);
  });
});

/** Every counter and histogram series, by name and labels. */
function counters(lines: readonly MetricLine[]): ReadonlyMap<string, number> {
  return new Map(
    lines
      .filter(({ name }) => name.startsWith('haports_') && /_(?:total|count|sum|bucket)$/.test(name))
      .map(({ name, labels, value }) => [`${name} ${JSON.stringify(labels)}`, value]),
  );
}
