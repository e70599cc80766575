import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { AllPortsResult } from '../support/all-ports-main.js';
import { eventually } from '../support/deadline.js';
import { childrenOf } from '../support/haports-process.js';
import { labConfig } from '../support/lab-config.js';
import { logEvents } from '../support/log-lines.js';
import { loopbackBlock } from '../support/loopback.js';

const MAIN = join(process.cwd(), 'dist', 'main.js');
const ALL_PORTS_MAIN = fileURLToPath(new URL('../support/all-ports-main.js', import.meta.url));
const LIMIT = 20_000;
const FLOWS = 1000;
const host = loopbackBlock();

/** Why the tests cannot run here; undefined: they can. */
function lacking(): string | undefined {
  const hard = execFileSync('sh', ['-c', 'ulimit -Hn']).toString().trim();
  if (hard !== 'unlimited' && Number(hard) < LIMIT)
    return `the hard descriptor limit is ${hard}, not ${LIMIT}`;
  return undefined;
}

function withoutNamespaces(): string | undefined {
  const tried = spawnSync('unshare', ['-n', 'sh', '-c', 'ip link set lo up']);
  return tried.status === 0 ? undefined : 'network namespaces or iproute2 are missing';
}

/** `haports run` with this descriptor limit. */
class LimitedProcess {
  readonly child: ChildProcess;
  readonly #folder = mkdtempSync(join(tmpdir(), 'haports-limited-'));
  #log = '';

  constructor(configuration: object) {
    this.write(configuration);
    const limited = ['-c', `ulimit -n ${LIMIT} && exec "$0" "$@"`, process.execPath, MAIN];
    const args = [...limited, 'run', '-c', this.#path];
    this.child = spawn('sh', args, { stdio: ['ignore', 'ignore', 'pipe'] });
    this.child.stderr?.setEncoding('utf8').on('data', (part: string) => (this.#log += part));
  }

  get #path(): string {
    return join(this.#folder, 'config.json');
  }

  write(configuration: object): void {
    writeFileSync(this.#path, JSON.stringify(configuration));
  }

  events(name: string) {
    return logEvents(this.#log, name);
  }

  async until(name: string, count = 1) {
    const { child } = this;
    await eventually(
      () => this.events(name).length >= count || child.exitCode !== null,
      20_000,
      `the line ${name}`,
    );
    const line = this.events(name)[count - 1];
    assert.ok(line !== undefined, `haports ended, or has not said ${name}:\n${this.#log.slice(-2000)}`);
    return line;
  }

  async sockets(): Promise<ReadonlySet<string>> {
    const pids = [this.child.pid ?? 0, ...(await childrenOf(this.child.pid ?? 0))];
    return new Set(
      pids.flatMap((pid) =>
        readdirSync(`/proc/${pid}/fd`).flatMap((name) => {
          try {
            const target = readlinkSync(`/proc/${pid}/fd/${name}`);
            return target.startsWith('socket:') ? [target] : [];
          } catch {
            return [];
          }
        }),
      ),
    );
  }

  async end(): Promise<void> {
    const { child } = this;
    const children = await childrenOf(child.pid ?? 0).catch(() => []);
    child.kill('SIGKILL');
    for (const pid of children) process.kill(pid, 'SIGKILL');
    await eventually(() => child.exitCode !== null || child.signalCode !== null, 5000, 'the end');
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

void describe('a socket a port', { skip: lacking() ?? false }, () => {
  const started: LimitedProcess[] = [];

  afterEach(async () => {
    for (const one of started.splice(0)) await one.end();
  });

  const start = (workers: number, listenPorts?: string) => {
    const one = new LimitedProcess(configurationOf(workers, listenPorts));
    started.push(one);
    return one;
  };

  for (const workers of [0, 1]) {
    test(`takes 9,000 ports of each protocol under a limit of 20,000, and says once what is missing, with ${workers} workers`, async () => {
      const haports = start(workers);
      const { listeners, seconds, residentBytes } = await haports.until('listening');
      const { tcp, udp } = listeners as { readonly tcp: number; readonly udp: number };
      // Where nobody else of this machine listens on a low port, it is 9,000 of each.
      assert.equal(tcp + udp, 18_000);
      assert.ok(Math.min(tcp, udp) >= 8_980, `${tcp} TCP and ${udp} UDP ports`);
      assert.ok(Number(seconds) > 0 && Number(seconds) < 20, `It took ${String(seconds)} s`);
      assert.ok(Number(residentBytes) > 50e6, `${String(residentBytes)} bytes`);
      const [short, ...more] = haports.events('descriptors-short');
      assert.equal(more.length, 0);
      // (65,535 less 9902) twice or nearly, over nine tenths.
      assert.equal(short?.['limit'], LIMIT);
      assert.ok(Math.abs(Number(short['needed']) - 145_634) < 10, String(short['needed']));
      assert.equal(short['workers'], 8);
      assert.match(short.msg, /LimitNOFILE=\d+.*ulimit.*prlimit.*workers.*capture/);
      assert.equal(haports.events('listen-failed').length, 1);
    });
  }

  test('adds and removes single ports of 18,000 without touching the others', async () => {
    const haports = start(1, '1-8990');
    await haports.until('listening');
    const before = await haports.sockets();
    assert.ok(before.size >= 17_980, `${before.size} sockets`);
    haports.write(configurationOf(1, '2-8991'));
    haports.child.kill('SIGHUP');
    const { durationMs } = await haports.until('reloaded');
    const after = await haports.sockets();
    const kept = [...before].filter((socket) => after.has(socket)).length;
    assert.deepEqual({ closed: before.size - kept, opened: after.size - kept }, { closed: 2, opened: 2 });
    assert.ok(Number(durationMs) < 5000, `${String(durationMs)} ms`);
  });

  test('refuses a reload that is beyond the limit, saying what would help, and serves on', async () => {
    const haports = start(1, '1-100');
    await haports.until('listening');
    const before = await haports.sockets();
    haports.write(configurationOf(1));
    haports.child.kill('SIGHUP');
    const { msg } = await haports.until('reload-failed');
    assert.match(msg, /LimitNOFILE=\d+.*"dataPlane.workers" to 8/);
    assert.deepEqual(await haports.sockets(), before);
  });

  test('takes all 65,535 ports with 8 workers, and every flow arrives', async (t) => {
    const missing = withoutNamespaces();
    if (missing !== undefined) {
      t.skip(missing);
      return;
    }
    const result = await allPorts(8);
    t.diagnostic(JSON.stringify(result));
    assert.deepEqual(result.listeners, { tcp: 65_535, udp: 65_534 });
    assert.equal(result.tcpPorts, 'owned');
    assert.equal(result.healthy, 6);
    for (const flows of [result.tcp, result.udp, result.tcpAfter, result.udpAfter]) {
      assert.deepEqual(flows.wrong, []);
      assert.equal(flows.right, FLOWS);
    }
    // Probes come and go meanwhile, with a socket each.
    assert.ok(result.changed.kept >= 131_069 - 2, JSON.stringify(result.changed));
    assert.ok(result.added.kept >= 131_069, JSON.stringify(result.added));
    for (const { opened, closed } of [result.changed, result.added]) {
      assert.ok(opened <= 10 && closed <= 10, `${opened} opened, ${closed} closed`);
    }
    assert.ok(Math.max(...result.descriptors) < LIMIT * 0.9);
  });
});

function configurationOf(workers: number, listenPorts?: string) {
  const { rules, ...rest } = labConfig(host, { listenPorts: '', top: { dataPlane: { workers } } });
  const [rule] = rules as readonly object[];
  return { ...rest, rules: [{ ...rule, listenPorts }] };
}

function allPorts(workers: number): Promise<AllPortsResult> {
  const script = `ip link set lo up && exec "$0" "$@"`;
  const args = [process.execPath, ALL_PORTS_MAIN, MAIN, String(workers), String(FLOWS)];
  const child = spawn('unshare', ['-n', 'sh', '-c', script, ...args], { timeout: 280_000 });
  let [out, err] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (part: string) => (out += part));
  child.stderr.setEncoding('utf8').on('data', (part: string) => (err += part));
  return new Promise((resolve, reject) => {
    child.once('close', (code) => {
      if (code === 0) resolve(JSON.parse(out) as AllPortsResult);
      else reject(new Error(`It ended with ${code}: ${err.slice(0, 4000)}`));
    });
  });
}
