import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { eventually } from '../support/deadline.js';
import { sumMetric } from '../support/metrics-text.js';
import { NVA_PROBE, useServiceOfProcesses, type OpenFlows } from '../support/service.js';

const FLOWS = 200;

void describe('flow outcomes of the built process', () => {
  const service = useServiceOfProcesses(
    {
      ports: [8000, 8099],
      workers: 1,
      probe: { ...NVA_PROBE, interval: '300ms', threshold: 2 },
      rule: { symmetric: true },
    },
    { keepsClients: true },
  );
  const { nvas } = service;
  let flows: OpenFlows;

  const expectPersistingTcp = async (except: string): Promise<void> => {
    for (const { client, backend } of flows.tcp) {
      assert.equal(client.ending, 'open', `a TCP flow on ${backend} ended`);
      if (backend !== except) assert.equal(await client.backend(), backend);
    }
  };

  const expectMovedUdp = async (): Promise<void> => {
    const moved = await Promise.all(
      flows.udp.map(async ({ client, backend }) => ({ from: backend, to: await client.backend() })),
    );
    for (const { from, to } of moved) {
      if (from === 'nva-2') assert.notEqual(to, 'nva-2', 'a UDP flow stayed on the backend that is down');
      else assert.equal(to, from, 'a UDP flow moved without need');
      assert.ok(to !== undefined, 'a UDP flow got no answer');
    }
  };

  const expectBack = async (): Promise<void> => {
    await service.probeSays('nva-2', 1);
    const counts = await service.newFlows();
    assert.ok(
      (counts.get('tcp nva-2') ?? 0) > 0 && (counts.get('udp nva-2') ?? 0) > 0,
      'recovery brought nothing back',
    );
  };

  void test('200 TCP and 200 UDP flows keep their backend and spread over three', async (t) => {
    flows = await service.openFlows(FLOWS);
    for (const kind of ['tcp', 'udp'] as const) {
      const share = new Map<string, number>();
      for (const { backend } of flows[kind]) share.set(backend, (share.get(backend) ?? 0) + 1);
      t.diagnostic(`${kind}: ${[...share].map(([name, n]) => `${name} ${n}`).join(', ')}`);
      assert.equal(share.size, 3);
      // Binomial: 200 flows, a third each, is 67 +- 6.7; six standard deviations.
      for (const n of share.values()) assert.ok(n > 26 && n < 108, `share of ${n}`);
    }
    await expectPersistingTcp('');
    for (const { client, backend } of flows.udp) assert.equal(await client.backend(), backend);
  });

  void test('probe sick while traffic works: TCP stays, UDP moves, new flows avoid it, recovery brings them back', async () => {
    await nvas[1]!.setHealth('sick');
    await service.probeSays('nva-2', 0);
    await expectPersistingTcp('');
    await expectMovedUdp();
    const counts = await service.newFlows();
    assert.equal(counts.get('tcp nva-2') ?? 0, 0);
    assert.equal(counts.get('udp nva-2') ?? 0, 0);
    assert.equal(counts.get('udp none') ?? 0, 0);
    await nvas[1]!.setHealth('well');
    await expectBack();
    service.closeClients();
  });

  void test('backend frozen: TCP stays and continues after the thaw, UDP moves', async () => {
    flows = await service.openFlows(FLOWS);
    nvas[1]!.freeze();
    try {
      await service.probeSays('nva-2', 0);
      await expectMovedUdp();
      await expectPersistingTcp('nva-2');
      const counts = await service.newFlows();
      assert.equal((counts.get('tcp nva-2') ?? 0) + (counts.get('udp nva-2') ?? 0), 0);
    } finally {
      nvas[1]!.thaw();
    }
    await expectBack();
    await expectPersistingTcp('');
    service.closeClients();
  });

  void test('backend killed: its TCP flows end, others stay, new flows fail over before any verdict, UDP moves', async () => {
    flows = await service.openFlows(FLOWS);
    await nvas[1]!.kill();
    // At once: the probe has not spoken yet, a refused connect is retried and an ICMP answer moves UDP.
    const counts = await service.newFlows();
    assert.equal(counts.get('tcp nva-2') ?? 0, 0);
    assert.equal(counts.get('udp none') ?? 0, 0);
    for (const { client, backend } of flows.tcp) {
      if (backend === 'nva-2') assert.notEqual(await client.ended(), 'open');
      else assert.equal(await client.backend(), backend);
    }
    await expectMovedUdp();
    await service.probeSays('nva-2', 0);
    await nvas[1]!.restart();
    await expectBack();
    service.closeClients();
  });

  void test('nothing is left when all flows are closed', async () => {
    await eventually(
      async () =>
        sumMetric(await service.process.metrics(), 'haports_flows_active', { protocol: 'tcp' }) === 0,
      10_000,
      'no TCP flow to be left',
    );
    assert.equal(await service.process.stop(), 0);
  });
});
