import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterEach, describe, test } from 'node:test';
import { eventually, patience, within } from '../support/deadline.js';
import { isAlive, MAIN } from '../support/haports-process.js';
import { logEvents } from '../support/log-lines.js';
import { sumMetric, type MetricLine } from '../support/metrics-text.js';
import { NVA_PROBE, useService } from '../support/service.js';
import { TcpClient } from '../support/tcp-client.js';

void describe('processes of the built haports', () => {
  const service = useService(
    { ports: [7000, 7003], probe: { ...NVA_PROBE, interval: '1s' } },
    { isStarted: false },
  );
  /** Workers that may outlive their control process, but no test. */
  const workers = new Set<number>();

  afterEach(async () => {
    const { process: balancer } = service;
    for (const pid of await balancer.workerPids().catch(() => [])) workers.add(pid);
    await balancer.kill();
    for (const pid of workers) if (await isAlive(pid)) process.kill(pid, 'SIGKILL');
    workers.clear();
  });

  const start = async (deadline: string, count = 1) => {
    const balancer = await service.start({ top: { shutdown: { deadline }, dataPlane: { workers: count } } });
    const pids = await balancer.workerPids();
    for (const pid of pids) workers.add(pid);
    return { balancer, worker: pids[0] };
  };

  const refused = () =>
    eventually(
      async () => {
        try {
          (await TcpClient.connect(service.target(0), 1000)).destroy();
          return false;
        } catch (error) {
          return error instanceof Error && 'code' in error && error.code === 'ECONNREFUSED';
        }
      },
      3000,
      'new connections to be refused',
    );

  void test('a data worker that is killed is replaced within 2 s, each time, and no counter goes backwards', async (t) => {
    const { balancer, worker } = await start('1s');
    assert.ok(worker !== undefined);
    const { client } = await service.tcp();
    for (let n = 0; n < 20; n++) (await service.tcp()).client.destroy();
    await service.udp();
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
        const next = await TcpClient.connect(service.target(0), 1000);
        const backend = await next.backend(1000);
        next.destroy();
        return backend;
      },
      2000,
      'a new flow to be served',
    );
    const backAfterMs = performance.now() - killedMs;
    t.diagnostic(`a new TCP flow was served ${backAfterMs.toFixed(0)} ms after the kill`);
    assert.match(fresh, /^nva-\d$/);
    assert.ok(backAfterMs < patience(2000));
    assert.match((await service.udp()).backend, /^nva-\d$/);
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

    for (let lost = 1, pid = replacement; lost < 4; lost++) {
      process.kill(pid, 'SIGKILL');
      pid = await eventually(
        async () => (await balancer.workerPids()).find((other) => other !== pid),
        5000,
        `a worker after ${lost} that died`,
      );
      const isCounted = async (): Promise<boolean> =>
        sumMetric(await balancer.metrics(), 'haports_workers_lost_total') === lost + 1;
      await eventually(isCounted, 5000, `${lost + 1} workers to be lost`);
      await eventually(async () => (await service.tcp()).backend, 5000, 'a new flow to be served');
    }
    const [last] = await balancer.workerPids();
    assert.equal(await balancer.stop(), 0);
    assert.equal(await isAlive(last!), false);
  });

  void test('a control process that is killed: TCP flows go on until they are done, then the worker ends', async (t) => {
    const { balancer, worker } = await start('20s');
    assert.ok(worker !== undefined);
    const { client, backend } = await service.tcp();
    await service.udp();
    process.kill(balancer.pid, 'SIGKILL');
    await balancer.exit;
    assert.equal(await client.backend(), backend, 'the established flow was lost');
    await refused();

    // A successor on the same configuration finds every port free, TCP and UDP.
    const successor = await start('20s');
    assert.deepEqual(logEvents(successor.balancer.log(), 'listen-failed'), []);
    assert.match((await service.udp()).backend, /^nva-\d$/);
    assert.match((await service.tcp()).backend, /^nva-\d$/);

    assert.equal(await client.backend(), backend, 'the established flow was lost to the successor');
    assert.equal(await isAlive(worker), true);
    const doneMs = performance.now();
    client.socket.end();
    assert.equal(await client.ended(), 'fin');
    client.destroy();
    await eventually(async () => !(await isAlive(worker)), 5000, 'the orphaned worker to end');
    t.diagnostic(`the worker ended ${(performance.now() - doneMs).toFixed(0)} ms after its last flow`);

    // One that is orphaned without TCP flows ends at once.
    service.closeClients();
    const openFlows = async (): Promise<number> =>
      sumMetric(await successor.balancer.metrics(), 'haports_flows_active', { protocol: 'tcp' });
    await eventually(async () => (await openFlows()) === 0, 5000, 'the flows of the successor to end');
    await service.udp();
    process.kill(successor.balancer.pid, 'SIGKILL');
    await eventually(async () => !(await isAlive(successor.worker!)), 2000, 'its worker to end');
  });

  void test('a control process that is killed: flows that do not end are reset at the deadline, and the worker ends', async () => {
    const { balancer, worker } = await start('1500ms');
    assert.ok(worker !== undefined);
    const { client, backend } = await service.tcp();
    const killedMs = performance.now();
    process.kill(balancer.pid, 'SIGKILL');
    await balancer.exit;
    assert.equal(await client.backend(), backend);
    assert.equal(await client.ended(5000), 'reset');
    const lasted = performance.now() - killedMs;
    assert.ok(lasted > 1400 && lasted < 3500, `reset after ${lasted.toFixed(0)} ms`);
    await eventually(async () => !(await isAlive(worker)), 3000, 'the orphaned worker to end');
  });

  for (const count of [1, 0]) {
    const shape = `workers: ${count}`;

    void test(`SIGTERM (${shape}): nothing new is taken, an established flow goes on and may finish, exit code 0`, async (t) => {
      const { balancer, worker } = await start('20s', count);
      assert.equal(worker === undefined, count === 0, 'workers: 0 serves in one process');
      const reached = [...(await service.newFlows(40)).keys()].sort();
      const backends = service.nvas.map(({ options }) => options.name);
      assert.deepEqual(
        reached,
        ['tcp', 'udp'].flatMap((protocol) => backends.map((name) => `${protocol} ${name}`)),
      );
      const { client, backend } = await service.tcp();
      process.kill(balancer.pid, 'SIGTERM');
      await refused();
      assert.equal(await client.backend(), backend);
      assert.equal(await client.ask('still there'), `${backend}: still there`);
      assert.equal((await balancer.askMetrics('/readyz')).status, 503);
      assert.equal((await balancer.askMetrics('/healthz')).status, 200);
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
      const { balancer } = await start('1s', count);
      const flows = await Promise.all([1, 2, 3, 4, 5].map((n) => service.tcp(n)));
      const askedMs = performance.now();
      process.kill(balancer.pid, 'SIGTERM');
      for (const { client } of flows) assert.equal(await client.ended(5000), 'reset');
      const lasted = performance.now() - askedMs;
      assert.ok(lasted > 900 && lasted < 3000, `reset after ${lasted.toFixed(0)} ms`);
      assert.equal(await within(balancer.exit, 5000, 'haports to end'), 0);
      const [stopped] = logEvents(balancer.log(), 'stopped');
      assert.deepEqual([stopped?.['finished'], stopped?.['reset']], [0, 5]);
    });

    void test(`it outlives the reader of its log, and a second SIGTERM ends it all at once (${shape})`, async () => {
      const { balancer, worker } = await start('1h', count);
      // The reader of its log leaves; what follows is worth lines.
      balancer.child.stderr?.destroy();
      const { client } = await service.tcp();
      process.kill(balancer.pid, 'SIGTERM');
      await refused();
      assert.equal(client.ending, 'open');
      process.kill(balancer.pid, 'SIGTERM');
      assert.equal(await client.ended(2000), 'reset');
      assert.equal(await within(balancer.exit, 2000, 'haports to end'), 0);
      if (worker !== undefined) assert.equal(await isAlive(worker), false);
    });
  }

  void test('SIGHUP ends no process; Ctrl-C, which reaches the worker too, is an orderly stop', async () => {
    const { balancer, worker } = await start('20s');
    assert.ok(worker !== undefined);
    const { client, backend } = await service.tcp();
    process.kill(balancer.pid, 'SIGHUP');
    process.kill(worker, 'SIGHUP');
    for (let n = 0; n < 5; n++) assert.match((await service.tcp()).backend, /^nva-\d$/);
    assert.equal(await client.backend(), backend);
    assert.deepEqual(await balancer.workerPids(), [worker]);
    service.closeClients();

    const last = await service.tcp();
    process.kill(worker, 'SIGINT');
    process.kill(balancer.pid, 'SIGINT');
    await refused();
    assert.equal(await last.client.backend(), last.backend);
    last.client.socket.end();
    assert.equal(await last.client.ended(), 'fin');
    last.client.destroy();
    assert.equal(await within(balancer.exit, 5000, 'haports to end'), 0);
    assert.deepEqual(logEvents(balancer.log(), 'worker-lost'), []);
  });

  void test('a reader of its output that leaves early is no error', async () => {
    const schema = spawn(process.execPath, [MAIN, 'schema'], { stdio: ['ignore', 'pipe', 'pipe'] });
    schema.stdout.destroy();
    let complaint = '';
    schema.stderr.on('data', (text: Buffer) => (complaint += text.toString()));
    const [code] = (await within(once(schema, 'close'), 20_000, 'haports to end')) as [number];
    assert.deepEqual([code, complaint], [0, '']);
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
