import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createHash } from 'node:crypto';
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { campaign } from '../support/campaign.js';
import { hasCommand, runCommand } from '../support/commands.js';
import { eventually } from '../support/deadline.js';
import { HaportsProcess } from '../support/haports-process.js';
import { labConfig } from '../support/lab-config.js';
import { loopbackBlock } from '../support/loopback.js';
import { sumMetric } from '../support/metrics-text.js';
import { NvaHere, startNvas } from '../support/nva-process.js';

const host = loopbackBlock();
/** Tools whose control and data are several flows, which must meet one backend. */
const BY_SOURCE = host(1);
/** Everything else. */
const BY_TUPLE = host(2);
const METRICS = host(3);
const BACKENDS = [host(11), host(12), host(13)];
const IPERF_PORT = 5201;
const REDIS_PORT = 6379;
const HTTP_PORT = 8080;
const ECHO_PORT = 7000;
const MIB = 1024 * 1024;

const configuration = {
  ...labConfig(host, { listenPorts: String(IPERF_PORT) }),
  frontends: [
    { name: 'by-source', address: BY_SOURCE },
    { name: 'by-tuple', address: BY_TUPLE },
  ],
  rules: [
    ['by-source', String(IPERF_PORT), 'source-ip'],
    ['by-tuple', `${REDIS_PORT},${HTTP_PORT},${ECHO_PORT}`, 'five-tuple'],
  ].map(([frontend, listenPorts, distribution]) => ({
    name: `all-${frontend}`,
    frontend,
    backendPool: 'nvas',
    haPorts: true,
    listenPorts,
    distribution,
  })),
  metrics: { listen: `${METRICS}:9902` },
};

interface Report {
  diagnostic(text: string): void;
  skip(text: string): void;
}

/** A test that needs these programs, and says which one is missing. */
function withTools(tools: readonly string[], name: string, run: (t: Report) => Promise<void>): void {
  void test(`${tools.join(', ')}: ${name}`, async (t) => {
    for (const tool of tools) {
      if (!(await hasCommand(tool))) {
        t.skip(`${tool} is not installed`);
        return;
      }
    }
    await run(t);
  });
}

/** Bytes that differ from place to place. */
function pattern(bytes: number): Buffer {
  const buffer = Buffer.alloc(bytes);
  for (let offset = 0; offset < bytes; offset += 4) {
    buffer.writeUInt32LE(Math.imul(offset + 1, 2_654_435_761) >>> 0, offset);
  }
  return buffer;
}

const sha256 = (data: Buffer): string => createHash('sha256').update(data).digest('hex');

/** How long a tool measures a rate that no test looks at. */
const SECONDS = campaign({ share: '1', whole: '3' });

void describe('unmodified clients through an HA-ports rule', () => {
  let balancer: HaportsProcess;
  let folder: string;
  const children: ChildProcess[] = [];
  const servers: Server[] = [];

  const flowsOpened = async (protocol: string, labels: Record<string, string> = {}): Promise<number> =>
    sumMetric(await balancer.metrics(), 'haports_flows_opened_total', { protocol, ...labels });

  /** Starts a server on each backend and waits until it takes connections. */
  const serveEverywhere = async (
    port: number,
    command: string,
    argsOf: (address: string) => readonly string[],
  ): Promise<void> => {
    for (const address of BACKENDS) {
      const child = spawn(command, argsOf(address), { cwd: folder, stdio: 'ignore' });
      child.on('error', () => undefined);
      children.push(child);
    }
    for (const address of BACKENDS) {
      await eventually(
        () =>
          new Promise<boolean>((resolve) => {
            const socket = connect({ host: address, port });
            socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
            socket.once('connect', () => socket.destroy());
          }),
        10_000,
        `${command} to listen on ${address}`,
      );
    }
  };

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'haports-tools-'));
    balancer = await HaportsProcess.start(configuration);
  });

  after(async () => {
    await balancer.kill();
    for (const child of children) child.kill('SIGKILL');
    for (const server of servers) {
      server.close();
      server.closeAllConnections();
    }
    await rm(folder, { recursive: true, force: true });
  });

  void describe('iperf3, whose control and data are several flows (distribution source-ip)', () => {
    interface IperfReport {
      readonly error?: string;
      readonly end: {
        readonly sum_sent?: { readonly bits_per_second: number; readonly bytes: number };
        readonly sum_received?: { readonly bits_per_second: number; readonly bytes: number };
        readonly sum?: {
          readonly bits_per_second: number;
          readonly packets: number;
          readonly lost_packets: number;
        };
      };
    }

    const iperf = async (client: string, ...args: readonly string[]): Promise<IperfReport> => {
      const all = ['-c', BY_SOURCE, '-p', String(IPERF_PORT), '-B', client, '-J', ...args];
      const { stdout, stderr } = await runCommand('iperf3', all, { timeoutMs: 25_000 });
      const report = JSON.parse(stdout) as IperfReport;
      assert.equal(report.error, undefined, `iperf3 ${args.join(' ')}: ${report.error} ${stderr}`);
      return report;
    };
    const flowsByBackend = (): Promise<number[]> =>
      Promise.all([1, 2, 3].map((n) => flowsOpened('tcp', { rule: 'all-by-source', backend: `nva-${n}` })));
    const gigabits = (bits: number | undefined): string => `${((bits ?? 0) / 1e9).toFixed(2)} Gbit/s`;

    before(async () => {
      if (!(await hasCommand('iperf3'))) return;
      await serveEverywhere(IPERF_PORT, 'iperf3', (address) =>
        `-s -B ${address} -p ${IPERF_PORT}`.split(' '),
      );
    });

    for (const [index, [title, ...args]] of [
      ['TCP to the backend', '-t', SECONDS],
      ['TCP from the backend', '-t', SECONDS, '-R'],
      ['TCP, four streams', '-t', SECONDS, '-P', '4'],
      ['TCP, four streams from the backend', '-t', SECONDS, '-P', '4', '-R'],
    ].entries()) {
      withTools(['iperf3'], title!, async (t) => {
        const before = await flowsByBackend();
        const { end } = await iperf(host(101 + index), ...args);
        const [sent, received] = [end.sum_sent?.bytes ?? 0, end.sum_received?.bytes ?? 0];
        t.diagnostic(`${gigabits(end.sum_received?.bits_per_second)}, ${(received / MIB).toFixed(0)} MiB`);
        assert.ok(received > MIB, 'hardly anything arrived');
        assert.ok(received <= sent);
        const streams = args.includes('-P') ? 4 : 1;
        const fresh = (await flowsByBackend()).map((count, which) => count - before[which]!);
        assert.deepEqual(
          fresh.filter((count) => count > 0),
          [streams + 1],
          'data streams and control are on one backend',
        );
      });
    }

    for (const [title, ...args] of [
      ['UDP to the backend', '-u', '-b', '50M', '-t', '3', '-l', '1400'],
      ['UDP from the backend', '-u', '-b', '50M', '-t', '3', '-l', '1400', '-R'],
    ]) {
      withTools(['iperf3'], title!, async (t) => {
        const { end } = await iperf(host(110), ...args);
        const { packets, lost_packets: lost, bits_per_second: bits } = end.sum!;
        t.diagnostic(`${(bits / 1e6).toFixed(1)} Mbit/s, ${lost} of ${packets} datagrams lost`);
        assert.ok(packets > 10_000);
        // The machine may be busy with other tests; nothing here is lost on purpose.
        assert.ok(lost / packets < 0.2, `${lost} of ${packets} lost`);
      });
    }
  });

  withTools(['redis-server', 'redis-benchmark'], '10,000 SET and 10,000 GET on 50 connections', async (t) => {
    await serveEverywhere(REDIS_PORT, 'redis-server', (address) => {
      const files = ['--dir', folder, '--save', '', '--appendonly', 'no'];
      return ['--bind', address, '--port', String(REDIS_PORT), '--protected-mode', 'no', ...files];
    });
    const before = await flowsOpened('tcp');
    const args = `-h ${BY_TUPLE} -p ${REDIS_PORT} -n 10000 -c 50 -t set,get --csv`.split(' ');
    const { code, stdout, stderr } = await runCommand('redis-benchmark', args, { timeoutMs: 30_000 });
    assert.equal(code, 0, stderr);
    assert.doesNotMatch(stdout + stderr, /error|reset|closed/i);
    const rates = [...stdout.matchAll(/^"(SET|GET)","([\d.]+)"/gm)].map(([, name, rate]) => ({
      name,
      rate: Number(rate),
    }));
    assert.deepEqual(
      rates.map(({ name }) => name),
      ['SET', 'GET'],
    );
    for (const { name, rate } of rates) t.diagnostic(`${name} ${rate.toFixed(0)} requests/s`);
    assert.ok((await flowsOpened('tcp')) - before >= 100, 'one flow a connection');
    const commands = await Promise.all(
      BACKENDS.map(async (address) => {
        const stats = await runCommand('redis-cli', ['-h', address, 'info', 'stats']);
        return Number(/total_commands_processed:(\d+)/.exec(stats.stdout)?.[1]);
      }),
    );
    t.diagnostic(`commands by backend: ${commands.join(', ')}`);
    assert.ok(commands.every((count) => count > 0));
    assert.ok(commands.reduce((sum, count) => sum + count) >= 20_000);
  });

  void describe('HTTP', () => {
    const FILE = pattern(20 * MIB);
    const served = new Map<string, number>();

    before(async () => {
      for (const address of BACKENDS) {
        const server = createServer((request, response) => {
          served.set(address, (served.get(address) ?? 0) + 1);
          if (request.url === '/file') {
            response.end(FILE);
          } else if (request.method === 'POST') {
            const hash = createHash('sha256');
            request.on('data', (chunk: Buffer) => hash.update(chunk));
            request.on('end', () => response.end(hash.digest('hex')));
          } else {
            response.end(`hello from ${address}\n`);
          }
        });
        servers.push(server);
        await new Promise<void>((resolve, reject) => {
          server.once('error', reject).listen(HTTP_PORT, address, resolve);
        });
      }
    });

    withTools(['wrk'], `32 connections for ${SECONDS} s, no error`, async (t) => {
      const args = ['-t1', '-c', '32', '-d', SECONDS, '--latency', `http://${BY_TUPLE}:${HTTP_PORT}/`];
      const { code, stdout } = await runCommand('wrk', args, { timeoutMs: 20_000 });
      assert.equal(code, 0, stdout);
      assert.doesNotMatch(stdout, /Socket errors|Non-2xx/, stdout);
      const requests = Number(/(\d+) requests in/.exec(stdout)?.[1]);
      const rate = /Requests\/sec:\s+([\d.]+)/.exec(stdout)?.[1];
      t.diagnostic(
        `${requests} requests, ${rate} requests/s, 99 % within ${/99%\s+(\S+)/.exec(stdout)?.[1]}`,
      );
      assert.ok(requests > 100);
      assert.equal(served.size, 3, 'not every backend served');
    });

    withTools(['curl'], 'a body, a 20 MB download and a 20 MB upload arrive as they were', async (t) => {
      const url = `http://${BY_TUPLE}:${HTTP_PORT}`;
      const quiet = ['-sS', '--fail', '--noproxy', '*', '-H', 'Expect:'];
      const page = await runCommand('curl', [...quiet, `${url}/`]);
      assert.equal(page.code, 0, page.stderr);
      assert.ok(
        BACKENDS.some((address) => page.stdout === `hello from ${address}\n`),
        page.stdout,
      );
      const [down, up] = [join(folder, 'down'), join(folder, 'up')];
      const speed = ['-w', '%{speed_download} %{speed_upload}'];
      const download = await runCommand('curl', [...quiet, ...speed, '-o', down, `${url}/file`]);
      assert.equal(download.code, 0, download.stderr);
      assert.equal(sha256(await readFile(down)), sha256(FILE));
      await writeFile(up, FILE);
      const upload = await runCommand('curl', [...quiet, '--data-binary', `@${up}`, `${url}/upload`]);
      assert.equal(upload.code, 0, upload.stderr);
      assert.equal(upload.stdout, sha256(FILE));
      t.diagnostic(`download ${(Number(download.stdout.split(' ')[0]) / MIB).toFixed(0)} MiB/s`);
    });

    withTools(
      ['curl'],
      'a backend that ends a connection in the middle of a body is told as such',
      async () => {
        const servers = BACKENDS.map((address) =>
          createServer((_request, response) => {
            response.writeHead(200, { 'content-length': 1000 });
            response.write('half');
            setImmediate(() => response.socket?.resetAndDestroy());
          }).listen(ECHO_PORT, address),
        );
        await Promise.all(servers.map((server) => once(server, 'listening')));
        try {
          const args = ['-sS', '--noproxy', '*', `http://${BY_TUPLE}:${ECHO_PORT}/`];
          const { code, stderr } = await runCommand('curl', args);
          assert.equal(code, 56, `curl must see a reset, not an end: ${stderr}`);
        } finally {
          for (const server of servers) server.close();
        }
      },
    );
  });

  void describe('UDP', () => {
    let nvas: readonly NvaHere[] = [];

    before(async () => {
      nvas = await startNvas(NvaHere, host, String(ECHO_PORT));
    });

    after(async () => {
      for (const nva of nvas) await nva.kill();
    });

    withTools(['nc'], 'nc -u: one datagram, one answer', async (t) => {
      const args = ['-u', '-w1', BY_TUPLE, String(ECHO_PORT)];
      const { stdout, stderr } = await runCommand('nc', args, { input: 'hello' });
      assert.match(stdout, /^nva-[123]: hello$/, stderr);
      t.diagnostic(stdout);
    });
  });
});
