import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync, readlinkSync } from 'node:fs';
import { afterEach, before, describe, test } from 'node:test';
import type { BackendPoolView } from '../../src/api/views.js';
import { campaign } from '../support/campaign.js';
import { eventually } from '../support/deadline.js';
import { HaportsProcess, isAlive } from '../support/haports-process.js';
import { useLab, whyNoNamespaces } from '../support/lab.js';
import { labConfig } from '../support/lab-config.js';
import { logEvents } from '../support/log-lines.js';
import { loopbackBlock } from '../support/loopback.js';
import type { Flow, Traffic } from '../support/traffic.js';

/** Of descriptors. Nine tenths are for listeners: half of them for each protocol. */
const LIMIT = 20_000;
/** Of a process that cannot have all ports, and how many workers could. */
const SHORT = campaign({ share: { limit: 5000, workers: 32 }, whole: { limit: LIMIT, workers: 8 } });
const MOST = (SHORT.limit * 0.9) / 2;
const host = loopbackBlock();

/** Why the tests cannot run here; false: they can. */
function lacking(): string | false {
  const hard = execFileSync('sh', ['-c', 'ulimit -Hn']).toString().trim();
  if (hard === 'unlimited' || Number(hard) >= LIMIT) return false;
  return `the hard descriptor limit is ${hard}, not ${LIMIT}`;
}

/** The n-th line of an event. */
async function lineOf(haports: HaportsProcess, event: string, nth = 1) {
  const lines = () => logEvents(haports.log(), event);
  const { child } = haports;
  await eventually(() => lines().length >= nth || child.exitCode !== null, 60_000, `the line ${event}`);
  const line = lines()[nth - 1];
  assert.ok(line !== undefined, `haports ended, or has not said ${event}:\n${haports.log().slice(-2000)}`);
  return line;
}

/** Inodes of the sockets of all its processes. */
async function socketsOf(haports: HaportsProcess): Promise<ReadonlySet<string>> {
  const pids = [haports.pid, ...(await haports.workerPids())];
  return new Set(pids.flatMap((pid) => descriptorsOf(pid).flatMap((name) => socketAt(pid, name))));
}

function descriptorsOf(pid: number): readonly string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`);
  } catch {
    // It has ended.
    return [];
  }
}

function socketAt(pid: number, descriptor: string): readonly string[] {
  try {
    return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${descriptor}`))?.slice(1) ?? [];
  } catch {
    // Closed since.
    return [];
  }
}

/** What a reload by SIGHUP does to the sockets of all processes, which were `before`. */
async function reload(haports: HaportsProcess, configuration: object, before: ReadonlySet<string>) {
  const nth = logEvents(haports.log(), 'reloaded').length + 1;
  await haports.write(configuration);
  haports.child.kill('SIGHUP');
  const { durationMs } = await lineOf(haports, 'reloaded', nth);
  const after = await socketsOf(haports);
  const kept = [...before].filter((socket) => after.has(socket)).length;
  const counts = { kept, closed: before.size - kept, opened: after.size - kept };
  return { durationMs: Number(durationMs), counts, after };
}

describe('a socket a port', { skip: lacking() }, () => {
  const started: HaportsProcess[] = [];

  afterEach(async () => {
    for (const haports of started.splice(0)) {
      const workers = await haports.workerPids().catch(() => []);
      await haports.kill();
      for (const pid of workers) await eventually(async () => !(await isAlive(pid)), 10_000, 'the end');
    }
  });

  const start = async (workers: number, listenPorts?: string) => {
    const launcher = ['sh', '-c', `ulimit -n ${SHORT.limit} && exec "$0" "$@"`];
    const one = await HaportsProcess.start(configurationOf(workers, listenPorts), {
      launcher,
      waitFor: 'nothing',
    });
    started.push(one);
    return one;
  };

  for (const workers of [0, 1]) {
    test(`takes ${MOST} ports of each protocol under a limit of ${SHORT.limit}, and says once what is missing, with ${workers} workers`, async () => {
      const haports = await start(workers);
      const { listeners, seconds, residentBytes } = await lineOf(haports, 'listening');
      const { tcp, udp } = listeners as { readonly tcp: number; readonly udp: number };
      // Where nobody else of this machine listens on a low port, it is half of each.
      assert.equal(tcp + udp, 2 * MOST);
      assert.ok(Math.min(tcp, udp) >= MOST - 20, `${tcp} TCP and ${udp} UDP ports`);
      assert.ok(Number(seconds) > 0 && Number(seconds) < 20, `It took ${String(seconds)} s`);
      assert.ok(Number(residentBytes) > 50e6, `${String(residentBytes)} bytes`);
      const [short, ...more] = logEvents(haports.log(), 'descriptors-short');
      assert.equal(more.length, 0);
      // (65,535 less 9902) twice or nearly, over nine tenths.
      assert.equal(short?.['limit'], SHORT.limit);
      assert.ok(Math.abs(Number(short['needed']) - 145_634) < 10, String(short['needed']));
      assert.equal(short['workers'], SHORT.workers);
      assert.match(short.msg, /LimitNOFILE=\d+.*ulimit.*prlimit.*workers.*capture/);
      assert.equal(logEvents(haports.log(), 'listen-failed').length, 1);
    });
  }

  test(`adds and removes single ports of ${2 * (MOST - 10)} without touching the others; refuses what is beyond the limit, and serves on`, async () => {
    const haports = await start(1, `1-${MOST - 10}`);
    await lineOf(haports, 'listening');
    const before = await socketsOf(haports);
    assert.ok(before.size >= 2 * (MOST - 10), `${before.size} sockets`);
    const { counts, durationMs, after } = await reload(haports, configurationOf(1, `2-${MOST - 9}`), before);
    assert.deepEqual(counts, { kept: before.size - 2, closed: 2, opened: 2 });
    assert.ok(durationMs < 5000, `${durationMs} ms`);

    await haports.write(configurationOf(1));
    haports.child.kill('SIGHUP');
    const { msg } = await lineOf(haports, 'reload-failed');
    assert.match(msg, new RegExp(`LimitNOFILE=\\d+.*"dataPlane.workers" to ${SHORT.workers}`));
    assert.deepEqual(await socketsOf(haports), after);
  });
});

function configurationOf(workers: number, listenPorts?: string) {
  const { rules, ...rest } = labConfig(host, { listenPorts: '', top: { dataPlane: { workers } } });
  const [rule] = rules as readonly object[];
  return { ...rest, rules: [{ ...rule, listenPorts }] };
}

const [FRONTEND, WEB, CLIENT, HOOK] = ['127.0.0.50', '127.0.0.51', '127.0.0.40', '127.0.0.1'];
const BACKENDS = ['127.0.0.61', '127.0.0.62', '127.0.0.63'];
const [PROBE_PORT, HOOK_PORT, WORKERS] = [9000, 9999, 8];
const FLOWS = campaign({ share: 300, whole: 1000 });

/** In a namespace: with all ports taken, no other process of the machine could connect without naming its local address. */
describe('a socket for each of 65,535 ports', { skip: lacking() || whyNoNamespaces() }, () => {
  const { box } = useLab({ box: {} }).hosts;
  const ports = somePorts(FLOWS);
  let servers: Traffic;
  before(async () => {
    servers = await box.serve({ addresses: BACKENDS, ports });
    for (const address of BACKENDS) await servers.health(PROBE_PORT, 200, address);
    await servers.health(HOOK_PORT, 200, HOOK);
  });

  test(`takes all with ${WORKERS} workers, and every flow arrives`, async (t) => {
    const haports = await box.haports(allPortsConfiguration('1-65534'), { waitFor: 'nothing' });
    const client = box.traffic();
    const healthy = async (): Promise<void> => {
      const serving = async (pool: string) =>
        (await haports.get<BackendPoolView>(`/v1/pools/${pool}`)).serving;
      const all = async () => (await serving('nvas')) + (await serving('webs')) === 2 * BACKENDS.length;
      await eventually(all, 30_000, 'probes to go up');
    };
    const askAll = async (): Promise<void> => {
      for (const protocol of ['tcp', 'udp'] as const) {
        const flows = ports.map((port): Flow => ({ protocol, host: FRONTEND, port, source: CLIENT }));
        const answers = await client.ask(flows, { timeoutMs: 10_000, atOnce: 100 });
        const wrong = answers.filter(
          ({ by, port }, index) => !BACKENDS.includes(by) || port !== ports[index],
        );
        assert.deepEqual(wrong.slice(0, 5), [], `${wrong.length} of ${protocol}`);
      }
    };
    const { listeners, tcpPorts, seconds } = await lineOf(haports, 'listening');
    await healthy();
    const changed = await reload(haports, allPortsConfiguration('2-65535'), await socketsOf(haports));
    const added = await reload(haports, allPortsConfiguration(), changed.after);
    assert.equal(tcpPorts, 'owned');
    assert.deepEqual(listeners, { tcp: 65_535, udp: 65_534 });
    // Probes come and go meanwhile, with a socket each.
    assert.ok(changed.counts.kept >= 131_069 - 2, JSON.stringify(changed.counts));
    assert.ok(added.counts.kept >= 131_069, JSON.stringify(added.counts));
    for (const { opened, closed } of [changed.counts, added.counts]) {
      assert.ok(opened <= 10 && closed <= 10, `${opened} opened, ${closed} closed`);
    }
    const workers = await haports.workerPids();
    const descriptors = workers.map((pid) => descriptorsOf(pid).length);
    assert.ok(Math.max(...descriptors) < LIMIT * 0.9);
    await healthy();
    await askAll();

    const [victim] = workers;
    process.kill(victim!, 'SIGKILL');
    const isWhole = async (): Promise<boolean> => {
      const replacement = (await haports.workerPids()).find((pid) => !workers.includes(pid));
      return replacement !== undefined && descriptorsOf(replacement).length >= descriptors[0]! - 8;
    };
    await eventually(isWhole, 60_000, 'the replacement');
    await healthy();
    await askAll();
    // Only verdicts of pools go there: a busy machine may bring some.
    const webhookPosts = await servers.health(HOOK_PORT, 200, HOOK);
    const reloads = [changed, added].map(({ durationMs, counts }) => ({ durationMs, ...counts }));
    t.diagnostic(JSON.stringify({ seconds, reloads, descriptors, webhookPosts }));
  });
});

function allPortsConfiguration(listenPorts?: string) {
  const pool = (name: string) => ({
    name,
    backends: BACKENDS.map((address, index) => ({ name: `${name}-${index + 1}`, address })),
  });
  const probe = { port: PROBE_PORT, interval: '5s', timeout: '2s' };
  return {
    dataPlane: { workers: WORKERS },
    frontends: [
      { name: 'hub', address: FRONTEND },
      { name: 'web', address: WEB },
    ],
    probes: [
      { name: 'open', protocol: 'tcp', ...probe },
      { name: 'alive', protocol: 'http', path: '/', ...probe },
    ],
    backendPools: [pool('nvas'), pool('webs')],
    rules: [
      { name: 'ha-ports', frontend: 'hub', backendPool: 'nvas', probe: 'open', haPorts: true, listenPorts },
      {
        ...{ name: 'http', frontend: 'web', backendPool: 'webs', probe: 'alive', protocol: 'tcp' },
        ...{ frontendPort: 80, backendPort: PROBE_PORT },
      },
    ],
    metrics: { listen: '127.0.0.1:9902' },
    events: { webhook: `http://${HOOK}:${HOOK_PORT}/` },
    shutdown: { deadline: '1s' },
    logging: { format: 'json' },
  };
}

/** The edges, ssh's, and others at random but always the same. */
function somePorts(count: number): readonly number[] {
  const ports = new Set([1, 22, 53, 80, 443, 32768, 60999, 61000, 65535]);
  for (let seed = 12345; ports.size < count;) {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    const port = 1 + ((seed >>> 8) % 65535);
    if (port !== PROBE_PORT) ports.add(port);
  }
  return [...ports];
}
