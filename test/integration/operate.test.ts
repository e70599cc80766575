import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { BackendPoolView, DrainStatus, FlowList, PlanOutcome, StatusView } from '../../src/api/views.js';
import { eventually } from '../support/deadline.js';
import { haportsHere } from '../support/command-here.js';
import { haports } from '../support/haports-process.js';
import { NVA_PROBE, useService } from '../support/service.js';

const FLOWS = 90;

void describe('operating the built process by its commands', () => {
  for (const workers of [1, 2]) suite(workers);
});

function suite(workers: number): void {
  describe(`with ${workers} data worker${workers === 1 ? '' : 's'}`, () => {
    const service = useService({
      ...{ ports: [8000, 8019], workers },
      probe: { ...NVA_PROBE, interval: '300ms' },
      rule: { idleTimeout: { udp: '1m' } },
    });
    const { host } = service;

    /** Which backends new flows reach, TCP and UDP. */
    const reached = async (): Promise<readonly string[]> => {
      const flows = [...(await service.newFlows()).keys()];
      return [...new Set(flows.map((flow) => flow.slice(4)))].sort();
    };

    test('status and backends show what is', async () => {
      const status = await service.json<StatusView>('status');
      assert.deepEqual(status.listeners, { tcp: 20, udp: 20 });
      assert.deepEqual(status.backends, { total: 3, serving: 3 });
      assert.deepEqual(status.problems, []);
      assert.equal(status.workers, workers);
      const [pool] = await service.json<readonly BackendPoolView[]>('backends');
      assert.ok(pool !== undefined);
      const shares = pool.backends.map(({ hashShare }) => hashShare);
      assert.ok(Math.abs(shares.reduce((a, b) => a + b) - 1) < 1e-9);
      assert.ok(shares.every((share) => Math.abs(share - 1 / 3) < 0.02));
      assert.match(await service.ok('backends'), /nva-1 .*serving/);
    });

    test('an admin state acts on the next flow; existing TCP flows meet their policy', async () => {
      const flows = (await service.openFlows(FLOWS)).tcp;
      await service.ok('admin-state', 'nvas/nva-1', 'down');
      assert.deepEqual(await reached(), ['nva-2', 'nva-3']);
      for (const { client, backend } of flows) {
        assert.equal(client.ending, 'open');
        assert.equal(await client.backend(), backend, 'Azure: established TCP stays');
      }
      await service.ok('admin-state', 'nvas/nva-1', 'configured');
      assert.deepEqual(await reached(), ['nva-1', 'nva-2', 'nva-3']);
    });

    test('a weight of 0 keeps new flows away, "configured" gives them back', async () => {
      await service.ok('weight', `nvas/${host(12)}`, '0');
      assert.deepEqual(await reached(), ['nva-1', 'nva-3']);
      await service.ok('weight', 'nvas/nva-2', 'configured');
      assert.deepEqual(await reached(), ['nva-1', 'nva-2', 'nva-3']);
    });

    test('a drain sends no new flow, serves those there are, and spreads their ends after the deadline', async (context) => {
      const { tcp: flows, udp } = await service.openFlows(FLOWS);
      const drained = flows.filter(({ backend }) => backend === 'nva-2');
      assert.ok(drained.length > 10);
      const endedAtMs: number[] = [];
      for (const { client } of drained) {
        void client.ended(30_000).then((ending) => {
          if (ending === 'reset') endedAtMs.push(performance.now());
        });
      }
      const started = await service.json<DrainStatus>(
        ...['drain', 'nvas/nva-2', '--deadline', '4s', '--then', 'reset', '--spread', '2s'],
      );
      const startedAtMs = performance.now();
      assert.equal(started.phase, 'draining');
      assert.equal(started.flows.tcp, drained.length);
      assert.deepEqual(await reached(), ['nva-1', 'nva-3']);
      for (const { client, backend } of drained)
        assert.equal(await client.backend(), backend, 'still served');
      for (const { client, backend } of udp) assert.equal(await client.backend(), backend, 'UDP lame duck');
      assert.equal(endedAtMs.length, 0);
      await eventually(
        () => Promise.resolve(endedAtMs.length === drained.length),
        15_000,
        'all drained flows to end',
      );
      const first = Math.min(...endedAtMs) - startedAtMs;
      const last = Math.max(...endedAtMs) - startedAtMs;
      assert.ok(first > 2500, `the first ended ${first} ms after the start`);
      assert.ok(last - first > 800, `all ended within ${last - first} ms`);
      context.diagnostic(
        `${drained.length} flows ended from ${(first / 1000).toFixed(1)} to ${(last / 1000).toFixed(1)} s after the start`,
      );
      for (const { client, backend } of flows) {
        if (backend !== 'nva-2') assert.equal(client.ending, 'open', `a flow on ${backend} ended`);
      }
      const refused = await service.command('drain', 'nvas/nva-9');
      assert.equal(refused.code, 2);
      assert.match(refused.stderr, /LB_UNKNOWN_BACKEND/);
      await service.ok('drain', 'nvas/nva-2', '--cancel');
      assert.deepEqual(await reached(), ['nva-1', 'nva-2', 'nva-3']);
    });

    test('draining the last backend that serves is refused unless forced', async () => {
      await service.ok('admin-state', 'nvas/nva-1', 'down');
      await service.ok('admin-state', 'nvas/nva-2', 'down');
      const refused = await service.command('drain', 'nvas/nva-3');
      assert.equal(refused.code, 1);
      assert.match(refused.stderr, /LB_CONFLICT: Cannot drain "nva-3": 0 of pool "nvas" would be left/);
      await service.ok('drain', 'nvas/nva-3', '--force');
      await service.ok('drain', 'nvas/nva-3', '--cancel');
      for (const nva of ['nvas/nva-1', 'nvas/nva-2']) await service.ok('admin-state', nva, 'configured');
    });

    test('explain names the live flow and where it is; flows lists it', async () => {
      const { client, backend } = await service.tcp(1);
      const source = `${client.socket.localAddress}:${client.socket.localPort}`;
      const text = await service.ok('explain', 'tcp', source, `${host(1)}:8001`);
      assert.match(text, new RegExp(`goes to ${backend}`));
      const { flows } = await service.json<FlowList>('flows', '--source', host(101), '--protocol', 'tcp');
      assert.ok(flows.some(({ tuple }) => tuple.sourcePort === client.socket.localPort));
    });

    test('plan says what would move, and stops at its gate', async () => {
      const flows = (await service.openFlows(FLOWS)).tcp;
      const { process } = service;
      const file = await process.write(service.configuration({ backends: 2 }), process.file('new.json'));
      const { report } = await service.json<PlanOutcome>('plan', file);
      // A third of the hash space had the backend that goes; Maglev moves little more.
      assert.ok(report.movedShare > 0.32 && report.movedShare < 0.36, `${report.movedShare}`);
      assert.deepEqual(
        report.backends.removed.map(({ name }) => name),
        ['nva-3'],
      );
      const onThird = flows.filter(({ backend }) => backend === 'nva-3').length;
      const { reset, stay } = report.rules[0]!.flows.tcp;
      assert.equal(reset + stay, FLOWS);
      assert.ok(reset === onThird || reset === 0, `${reset} reset, ${onThird} on the backend that goes`);
      const gated = await service.command('plan', file, '--max-moved', '2%');
      assert.equal(gated.code, 3);
      const refused = await service.command('reload', '-c', file, '--max-moved', '2%');
      assert.equal(refused.code, 3, refused.stderr);
      for (const { client } of flows) assert.equal(client.ending, 'open');
    });

    test('reload takes a file over, and refuses one that is wrong with its findings', async () => {
      const { process } = service;
      const file = process.file('next.json');
      await process.write(service.configuration({ pool: { slowStart: '10s' } }), file);
      assert.match(await service.ok('reload', '-c', file), /Reloaded/);
      await process.write({ ...service.configuration(), colour: 'blue' }, file);
      // Once as an operator has it: by a process of its own, which finds the socket in the file.
      const run = workers === 1 ? haports : haportsHere;
      const refused = await run(['reload', '-c', file]);
      assert.equal(refused.code, 2);
      assert.match(refused.stdout + refused.stderr, /LB_UNKNOWN_KEY/);
      const { configuration: loaded } = await service.json<StatusView>('status');
      assert.equal(loaded.lastReload?.ok, false);
    });
  });
}
