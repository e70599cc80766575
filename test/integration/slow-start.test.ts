import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import type { BackendPoolView } from '../../src/api/views.js';
import { eventually } from '../support/deadline.js';
import { NVA_PROBE, useService } from '../support/service.js';
import { TcpClient } from '../support/tcp-client.js';

const SLOW_START_MS = 5000;
const BATCH = 60;

interface Reading {
  readonly atMs: number;
  readonly share: number;
  readonly weight: number;
  readonly origin: string;
}

void describe('slow start of the built process', () => {
  const service = useService({
    ports: [8000, 8009],
    probe: { ...NVA_PROBE, interval: '100ms' },
    pool: { slowStart: `${SLOW_START_MS}ms` },
  });
  const { nvas } = service;

  before(async () => {
    // On a busy machine a first verdict may miss the second that a start waits for; its backend then comes back later.
    const isRamping = async () => (await members()).some(({ weightOrigin }) => weightOrigin !== 'configured');
    for (let start = 1; start < 5 && (await isRamping()); start++) await service.start();
  });

  const members = async () => (await service.process.get<BackendPoolView>('/v1/pools/nvas')).backends;

  const read = async (): Promise<Reading> => {
    const backend = (await members()).find(({ name }) => name === 'nva-2');
    assert.ok(backend !== undefined);
    const { hashShare: share, weight, weightOrigin: origin } = backend;
    return { atMs: performance.now(), share, weight, origin };
  };

  /** How many of some new flows the backend that comes back gets. */
  const newFlows = async (): Promise<number> => {
    const clients = await Promise.all(
      Array.from({ length: BATCH }, async (_, index) => {
        const client = await TcpClient.connect(service.target(index));
        const backend = await client.backend();
        client.destroy();
        return backend;
      }),
    );
    return clients.filter((backend) => backend === 'nva-2').length;
  };

  test('nobody ramps at the start', async () => {
    const { share, origin } = await read();
    assert.ok(Math.abs(share - 1 / 3) < 0.02, `${share}`);
    assert.equal(origin, 'configured');
  });

  test('a backend that comes back gets a tenth of its share, and a tenth more at a time; real flows follow', async (context) => {
    await nvas[1]!.setHealth('sick');
    await eventually(async () => (await read()).share === 0, 5000, 'nva-2 to be taken out');
    await nvas[1]!.setHealth('well');
    const first = await eventually(
      async () => {
        const reading = await read();
        return reading.share > 0 && reading;
      },
      5000,
      'nva-2 to serve',
    );
    const startMs = first.atMs;
    const readings = [first];
    const flows: { readonly atMs: number; readonly share: number; readonly got: number }[] = [];
    while (readings.at(-1)!.origin === 'slow-start') {
      const reading = await read();
      readings.push(reading);
      assert.ok(reading.atMs - startMs < SLOW_START_MS + 5000, 'the ramp ends');
      flows.push({ atMs: reading.atMs - startMs, share: reading.share, got: await newFlows() });
    }
    // Of weight w against 1 and 1: w / (w + 2).
    const fair = (percent: number): number => percent / (percent + 200);
    assert.ok(first.share < fair(30), `it starts with ${first.share} of the hash space`);
    for (const [index, { share }] of readings.entries()) {
      assert.ok(share >= (readings[index - 1]?.share ?? 0) - 0.01, 'the share never shrinks');
    }
    for (const { atMs, share } of readings.slice(0, -1)) {
      // Readings are late by up to a batch of flows, never early.
      const percent = 10 * (Math.floor((10 * (atMs - startMs)) / SLOW_START_MS) + 1);
      assert.ok(share < fair(percent + 20) + 0.02, `${share} of the hash space after ${atMs - startMs} ms`);
    }
    const steps = [...new Set(readings.map(({ share }) => share.toFixed(3)))];
    assert.ok(steps.length >= 4, `it rises in steps: ${steps.join(' ')}`);
    const { share: last, atMs: endMs } = readings.at(-1)!;
    assert.ok(Math.abs(last - 1 / 3) < 0.02, `in the end it has ${last}`);
    assert.ok(endMs - startMs > SLOW_START_MS * 0.7, `the ramp took ${endMs - startMs} ms`);

    const got = flows.reduce((sum, batch) => sum + batch.got, 0);
    const expected = flows.reduce((sum, batch) => sum + batch.share * BATCH, 0);
    assert.ok(
      Math.abs(got - expected) < 5 * Math.sqrt(expected) + 0.15 * expected,
      `${got} new flows during the ramp, ${expected.toFixed(0)} expected`,
    );
    assert.ok(
      got < (flows.length * BATCH) / 3,
      `${got} of ${flows.length * BATCH} new flows during the ramp`,
    );
    context.diagnostic(
      `shares ${steps.join(' ')} over ${((endMs - startMs) / 1000).toFixed(1)} s; ` +
        `${got} of ${flows.length * BATCH} new flows meanwhile, ${expected.toFixed(0)} expected`,
    );
  });
});
