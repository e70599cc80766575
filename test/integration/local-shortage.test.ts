import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { before, describe, test } from 'node:test';
import type { BackendPoolView } from '../../src/api/views.js';
import { eventually } from '../support/deadline.js';
import type { HaportsProcess } from '../support/haports-process.js';
import { useLab, whyNoNamespaces } from '../support/lab.js';
import { logEvents } from '../support/log-lines.js';
import { parseMetrics, sumMetric } from '../support/metrics-text.js';

const METRICS = '127.0.0.1:9902';
const PORT_RANGE = 'net.ipv4.ip_local_port_range';
const PROBED = 9000;
const SERVED = 7000;
/** Local ports: many, and some that are all taken. */
const MANY = '50000 60000';
const [FIRST, LAST] = [40_000, 40_010];
/** A single failure would take a backend out. */
const pace = { interval: '2s', timeout: '2s', threshold: 1 };

function pool(name: string, addresses: readonly string[]) {
  return { name, backends: addresses.map((address, index) => ({ name: `nva-${index + 1}`, address })) };
}

const rule = (name: string, frontend: string, backendPool: string, probe: string) => ({
  ...{ name, frontend, backendPool, probe },
  ...{ haPorts: true, listenPorts: String(SERVED), flowPolicy: 'firewall' },
});

const CONFIGURATION = {
  frontends: [
    { name: 'hub4', address: '127.0.0.1' },
    { name: 'hub6', address: '::1' },
  ],
  probes: [
    { name: 'by-tcp', protocol: 'tcp', port: PROBED, ...pace },
    { name: 'by-http', protocol: 'http', port: PROBED + 1, path: '/', ...pace },
  ],
  backendPools: [pool('four', ['127.0.0.11', '127.0.0.12']), pool('six', ['fd00::11', 'fd00::12'])],
  rules: [rule('four', 'hub4', 'four', 'by-tcp'), rule('six', 'hub6', 'six', 'by-http')],
  metrics: { listen: METRICS },
  shutdown: { deadline: '1s' },
};

/** Sorted: what the probes of each pool find, and what the last of them was. */
async function findings(haports: HaportsProcess): Promise<readonly string[]> {
  const pools = await haports.get<readonly BackendPoolView[]>('/v1/pools');
  const probes = pools.flatMap(({ name, backends }) =>
    backends.flatMap((backend) =>
      backend.probes.map(({ state, last }) => `${name} ${state} ${last?.verdict}`),
    ),
  );
  return [...new Set(probes)].sort();
}

const DOWN = /"event":"health-changed"[^\n]*"to":"down"|"event":"pool-down"/;

void describe('a shortage of this machine', { skip: whyNoNamespaces('prlimit', 'curl') }, () => {
  const lab = useLab({ lb: { loopback: ['fd00::11/128', 'fd00::12/128'] } });
  const { lb } = lab.hosts;

  before(async () => {
    const addresses = ['127.0.0.11', '127.0.0.12', 'fd00::11', 'fd00::12'];
    const servers = await lb.serve({ addresses, ports: [PROBED, SERVED], protocols: ['tcp'] });
    await servers.health(PROBED + 1);
    const taker = lb.traffic();
    const ports = Array.from({ length: LAST - FIRST + 1 }, (_, index) => FIRST + index);
    await lb.sysctl(PORT_RANGE, MANY);
    await taker.serve({ ports, protocols: ['tcp'] });
  });

  async function start(): Promise<HaportsProcess> {
    const haports = await lb.haports(CONFIGURATION);
    await eventually(
      async () => (await findings(haports)).join() === 'four up success,six up success',
      20_000,
      'all backends to be up',
    );
    return haports;
  }

  async function told(haports: HaportsProcess, phase: string): Promise<readonly unknown[]> {
    const event = `probes-hindered-${phase}`;
    const lines = () => logEvents(haports.log(), event);
    await eventually(() => lines().length > 0, 20_000, event);
    return lines().map(({ cause }) => cause);
  }

  async function hinderedBy(cause: string): Promise<number> {
    const metrics = parseMetrics(await lb.must(['curl', '-s', `http://${METRICS}/metrics`]));
    return sumMetric(metrics, 'haports_probe_inconclusive_total', { reason: cause });
  }

  void test('of local ports leaves backends as they are, and is told once', async () => {
    const haports = await start();
    const client = lb.traffic();
    const live = { protocol: 'tcp', host: '127.0.0.1', port: SERVED, sourcePort: 30_000 } as const;
    const before = await client.open([live]);
    assert.match(before[0]?.by ?? '', /^127\.0\.0\.1[12]$/);
    await lb.sysctl(PORT_RANGE, `${FIRST} ${LAST}`);
    await eventually(
      async () => (await findings(haports)).join() === 'four up inconclusive,six up inconclusive',
      20_000,
      'probes without a port',
    );
    assert.deepEqual(await told(haports, 'started'), ['ports']);
    assert.deepEqual(await client.again(), before, 'a live flow goes on');
    await lb.sysctl(PORT_RANGE, MANY);
    assert.deepEqual(await told(haports, 'ended'), ['ports']);
    assert.deepEqual(await findings(haports), ['four up success', 'six up success']);
    assert.ok((await hinderedBy('ports')) >= 4);
    assert.doesNotMatch(haports.log(), DOWN);
    assert.equal(logEvents(haports.log(), 'probes-hindered-started').length, 1);
    await haports.stop();
  });

  void test('of descriptors leaves backends as they are, and is told once', async () => {
    const haports = await start();
    const limit = (soft: string) => execFileSync('prlimit', [`--pid=${haports.pid}`, `--nofile=${soft}`]);
    // The lowest number that is free must be below it, and those of the standard streams are not.
    limit('3:');
    assert.deepEqual(await told(haports, 'started'), ['descriptors']);
    limit('1024:');
    assert.deepEqual(await told(haports, 'ended'), ['descriptors']);
    assert.deepEqual(await findings(haports), ['four up success', 'six up success']);
    assert.ok((await hinderedBy('descriptors')) >= 1);
    assert.doesNotMatch(haports.log(), DOWN);
    await haports.stop();
  });
});
