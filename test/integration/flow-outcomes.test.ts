import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { eventually } from '../support/deadline.js';
import { HaportsProcess } from '../support/haports-process.js';
import { labConfig } from '../support/lab-config.js';
import { loopbackBlock } from '../support/loopback.js';
import { sumMetric } from '../support/metrics-text.js';
import { NvaProcess } from '../support/nva-process.js';
import { TcpClient } from '../support/tcp-client.js';
import { UdpClient } from '../support/udp-client.js';

const FLOWS = 200;
const PORTS = [8000, 8007, 8042, 8099];
const address = loopbackBlock();
const FRONTEND = address(1);

const configuration = labConfig(address, {
  listenPorts: '8000-8099',
  probe: { protocol: 'http', port: 9000, path: '/healthz', interval: '300ms', threshold: 2 },
  rule: { symmetric: true },
});

interface Flows {
  readonly tcp: readonly { readonly client: TcpClient; readonly backend: string }[];
  readonly udp: readonly { readonly client: UdpClient; readonly backend: string }[];
}

function targetOf(index: number, client: number) {
  return { host: FRONTEND, port: PORTS[index % PORTS.length]!, localAddress: address(client) };
}

async function openFlows(): Promise<Flows> {
  const targets = Array.from({ length: FLOWS }, (_, index) => targetOf(index, 100 + (index % 100)));
  const tcp = await Promise.all(
    targets.map(async (target) => {
      const client = await TcpClient.connect(target);
      return { client, backend: await client.backend() };
    }),
  );
  const udp = await Promise.all(
    targets.map(async (target) => {
      const client = await UdpClient.open(target);
      const backend = await client.backend();
      assert.ok(backend !== undefined, 'a UDP flow got no answer');
      return { client, backend };
    }),
  );
  return { tcp, udp };
}

function closeFlows(flows: Flows): void {
  for (const { client } of flows.tcp) client.destroy();
  for (const { client } of flows.udp) client.close();
}

/** How many new TCP and UDP flows of 60 each reach which backend. */
async function newFlows(): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  const count = (backend: string): void => void counts.set(backend, (counts.get(backend) ?? 0) + 1);
  await Promise.all(
    Array.from({ length: 60 }, async (_, index) => {
      const tcp = await TcpClient.connect(targetOf(index, 201));
      count(`tcp ${await tcp.backend()}`);
      tcp.destroy();
      const udp = await UdpClient.open(targetOf(index, 201));
      count(`udp ${(await udp.backend()) ?? 'none'}`);
      udp.close();
    }),
  );
  return counts;
}

void describe('flow outcomes of the built process', () => {
  let balancer: HaportsProcess;
  const nvas: NvaProcess[] = [];
  let flows: Flows;

  const probeSays = (backend: string, up: 0 | 1): Promise<unknown> =>
    eventually(
      async () => sumMetric(await balancer.metrics(), 'haports_probe_up', { backend }) === up,
      10_000,
      `the probe of ${backend} to say ${up}`,
    );

  before(async () => {
    for (const number of [1, 2, 3]) {
      const nva = { name: `nva-${number}`, address: address(10 + number) };
      nvas.push(await NvaProcess.start({ ...nva, ports: '8000-8099', healthPort: 9000 }));
    }
    balancer = await HaportsProcess.start(configuration);
  });

  after(async () => {
    // First what start-up may have left running: without a balancer the next line throws.
    for (const nva of nvas) await nva.kill();
    await balancer.kill();
  });

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
    await probeSays('nva-2', 1);
    const counts = await newFlows();
    assert.ok(
      (counts.get('tcp nva-2') ?? 0) > 0 && (counts.get('udp nva-2') ?? 0) > 0,
      'recovery brought nothing back',
    );
  };

  void test('200 TCP and 200 UDP flows keep their backend and spread over three', async (t) => {
    flows = await openFlows();
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
    await probeSays('nva-2', 0);
    await expectPersistingTcp('');
    await expectMovedUdp();
    const counts = await newFlows();
    assert.equal(counts.get('tcp nva-2') ?? 0, 0);
    assert.equal(counts.get('udp nva-2') ?? 0, 0);
    assert.equal(counts.get('udp none') ?? 0, 0);
    await nvas[1]!.setHealth('well');
    await expectBack();
    closeFlows(flows);
  });

  void test('backend frozen: TCP stays and continues after the thaw, UDP moves', async () => {
    flows = await openFlows();
    nvas[1]!.freeze();
    try {
      await probeSays('nva-2', 0);
      await expectMovedUdp();
      await expectPersistingTcp('nva-2');
      const counts = await newFlows();
      assert.equal((counts.get('tcp nva-2') ?? 0) + (counts.get('udp nva-2') ?? 0), 0);
    } finally {
      nvas[1]!.thaw();
    }
    await expectBack();
    await expectPersistingTcp('');
    closeFlows(flows);
  });

  void test('backend killed: its TCP flows end, others stay, new flows fail over before any verdict, UDP moves', async () => {
    flows = await openFlows();
    await nvas[1]!.kill();
    // At once: the probe has not spoken yet, a refused connect is retried and an ICMP answer moves UDP.
    const counts = await newFlows();
    assert.equal(counts.get('tcp nva-2') ?? 0, 0);
    assert.equal(counts.get('udp none') ?? 0, 0);
    for (const { client, backend } of flows.tcp) {
      if (backend === 'nva-2') assert.notEqual(await client.ended(), 'open');
      else assert.equal(await client.backend(), backend);
    }
    await expectMovedUdp();
    await probeSays('nva-2', 0);
    await nvas[1]!.restart();
    await expectBack();
    closeFlows(flows);
  });

  void test('nothing is left when all flows are closed', async () => {
    await eventually(
      async () => sumMetric(await balancer.metrics(), 'haports_flows_active', { protocol: 'tcp' }) === 0,
      10_000,
      'no TCP flow to be left',
    );
    assert.equal(await balancer.stop(), 0);
  });
});
