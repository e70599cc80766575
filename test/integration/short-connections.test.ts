import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { campaign } from '../support/campaign.js';
import { eventually } from '../support/deadline.js';
import { descriptorCount, HaportsProcess } from '../support/haports-process.js';
import { labConfig } from '../support/lab-config.js';
import { loopbackBlock } from '../support/loopback.js';
import { sumMetric } from '../support/metrics-text.js';
import { NvaProcess } from '../support/nva-process.js';
import { TcpClient } from '../support/tcp-client.js';

const CONNECTIONS = campaign({ share: 10_000, whole: 50_000 });
const AT_A_TIME = 64;
const host = loopbackBlock();

void describe('many short connections through the built process', () => {
  let balancer: HaportsProcess;
  let nvas: readonly NvaProcess[] = [];

  before(async () => {
    nvas = await NvaProcess.startAll(host, '7000-7003');
    balancer = await HaportsProcess.start(labConfig(host, { listenPorts: '7000-7003' }));
  });

  after(async () => {
    // First what start-up may have left running: without a balancer the next line throws.
    for (const nva of nvas) await nva.kill();
    await balancer.kill();
  });

  void test(`${CONNECTIONS} of them leave no socket, flow or file descriptor behind`, async (t) => {
    const [worker] = await balancer.workerPids();
    assert.ok(worker !== undefined);
    const before = await descriptorCount(worker);
    let next = 0;
    let failed = 0;
    const startedMs = performance.now();
    const client = async (): Promise<void> => {
      while (next < CONNECTIONS) {
        const index = next++;
        try {
          const connection = await TcpClient.connect({
            host: host(1),
            port: 7000 + (index % 4),
            // One address has too few ports for all those in TIME_WAIT.
            localAddress: host(100 + (index % 100)),
          });
          assert.match(await connection.ask('x'), /^nva-\d: x$/);
          connection.socket.end();
          connection.destroy();
        } catch {
          failed++;
        }
      }
    };
    await Promise.all(Array.from({ length: AT_A_TIME }, client));
    const seconds = (performance.now() - startedMs) / 1000;
    t.diagnostic(`${CONNECTIONS} connections in ${seconds.toFixed(1)} s, ${failed} failed`);
    assert.equal(failed, 0);

    const flowsLeft = async (): Promise<number> =>
      sumMetric(await balancer.metrics(), 'haports_flows_active');
    await eventually(async () => (await flowsLeft()) === 0, 10_000, 'all flows to end');
    const metrics = await balancer.metrics();
    assert.equal(sumMetric(metrics, 'haports_flows_opened_total', { protocol: 'tcp' }), CONNECTIONS);
    assert.equal(sumMetric(metrics, 'haports_flows_ended_total', { protocol: 'tcp' }), CONNECTIONS);
    await eventually(
      async () => (await descriptorCount(worker)) === before,
      5000,
      `the descriptors to be ${before} again`,
    );
    t.diagnostic(`open descriptors: ${before} before, ${await descriptorCount(worker)} after`);
  });
});
