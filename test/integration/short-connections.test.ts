import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { campaign } from '../support/campaign.js';
import { eventually } from '../support/deadline.js';
import { descriptorCount } from '../support/haports-process.js';
import { sumMetric } from '../support/metrics-text.js';
import { useService } from '../support/service.js';
import { TcpClient } from '../support/tcp-client.js';

const CONNECTIONS = campaign({ share: 4000, whole: 50_000 });
const AT_A_TIME = 64;

void describe('many short connections through the built process', () => {
  // A client of one address would have too few ports for all those in TIME_WAIT.
  const service = useService({ ports: [7000, 7003], workers: 1 });

  void test(`${CONNECTIONS} of them leave no socket, flow or file descriptor behind`, async (t) => {
    const { process: balancer } = service;
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
          const connection = await TcpClient.connect(service.target(index));
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
