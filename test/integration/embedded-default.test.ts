import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { createSocket, type Socket } from 'node:dgram';
import { connect, createServer, type Server } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { hasCommand, runCommand } from '../support/commands.js';
import { haportsHere } from '../support/command-here.js';
import { eventually, within } from '../support/deadline.js';
import { isAlive } from '../support/haports-process.js';
import { logEvents } from '../support/log-lines.js';
import { parseMetrics, sumMetric } from '../support/metrics-text.js';
import { TcpClient } from '../support/tcp-client.js';
import { UdpClient } from '../support/udp-client.js';

const PORTS = Array.from({ length: 100 }, (_, index) => 8000 + index);
const NVAS = ['127.0.0.11', '127.0.0.12', '127.0.0.13'];
const METRICS = 'http://127.0.0.1:9902';

/** A command in a process group of its own, as a shell gives it, so that Ctrl-C can be told to all of it. */
class Session {
  readonly child: ChildProcess;
  readonly exit: Promise<number | null>;
  stdout = '';
  stderr = '';

  constructor(command: string, args: readonly string[]) {
    this.child = spawn(command, args, { detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => (this.stdout += text));
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.stderr += text));
    this.exit = new Promise((resolve) => this.child.once('exit', resolve));
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error('the command has no process');
    return this.child.pid;
  }

  async banner(timeoutMs: number): Promise<string> {
    await eventually(
      () => {
        if (this.child.exitCode !== null) throw new Error(`it ended:\n${this.stderr}`);
        return this.stdout.includes('Ctrl-C stops it all.\n');
      },
      timeoutMs,
      'the banner',
    );
    return this.stdout;
  }

  /** What a terminal does on Ctrl-C. */
  interrupt(): void {
    process.kill(-this.pid, 'SIGINT');
  }

  /** Pids of all that the command started and that still live. */
  async members(): Promise<readonly number[]> {
    const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
    const groups = await Promise.all(
      pids.map(async (pid) => ((await groupOf(pid)) === this.pid ? [pid] : [])),
    );
    const alive = await Promise.all(groups.flat().map(async (pid) => ((await isAlive(pid)) ? [pid] : [])));
    return alive.flat();
  }

  async kill(): Promise<void> {
    for (const pid of await this.members()) process.kill(pid, 'SIGKILL');
  }
}

async function groupOf(pid: number): Promise<number | undefined> {
  try {
    // The name, in brackets, may hold anything: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
    const text = await readFile(`/proc/${pid}/stat`, 'utf8');
    return Number(text.slice(text.lastIndexOf(')') + 2).split(' ')[2]);
  } catch {
    return undefined;
  }
}

/** The first of the addresses and ports that the embedded default needs and somebody else has. */
async function busyPlace(): Promise<string | undefined> {
  const balanced = ['127.0.0.1', '::1', ...NVAS].flatMap((address) =>
    PORTS.map((port) => ({ address, port })),
  );
  const tcp = [
    ...balanced,
    ...NVAS.map((address) => ({ address, port: 9000 })),
    { address: '127.0.0.1', port: 9902 },
  ];
  for (const { address, port } of tcp) {
    const server = createServer();
    if (!(await isFree(server, (done) => server.listen({ host: address, port }, done))))
      return `tcp ${address} ${port}`;
  }
  for (const { address, port } of balanced) {
    const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
    const bind = (done: () => void) => socket.bind({ address, port, exclusive: true }, done);
    if (!(await isFree(socket, bind))) return `udp ${address} ${port}`;
  }
  return undefined;
}

/** Whether the place can be taken, which it then no longer is. */
async function isFree(holder: Server | Socket, take: (done: () => void) => void): Promise<boolean> {
  const free = await new Promise<boolean>((resolve) => {
    holder.once('error', () => resolve(false));
    take(() => resolve(true));
  });
  await new Promise<void>((resolve) => holder.close(() => resolve()));
  return free;
}

/** The text after a label in the banner. */
function printed(banner: string, label: string): string {
  const line = banner.split('\n').find((text) => text.startsWith(`  ${label} `));
  assert.ok(line !== undefined, `nothing printed for "${label}":\n${banner}`);
  return line.slice(label.length + 2).trim();
}

/** Who answers `hello` from a source port of the caller's choice; undefined where that port is taken. */
async function tcpFrom(localPort: number, port: number): Promise<string | undefined> {
  const answer = new Promise<string | undefined>((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, localAddress: '127.0.0.1', localPort }, () =>
      socket.write('hello'),
    );
    socket.once('data', (data: Buffer) => {
      resolve(data.toString().split(':')[0]);
      socket.resetAndDestroy();
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE' || error.code === 'EADDRNOTAVAIL') resolve(undefined);
      else reject(error);
    });
  });
  return within(answer, 5000, 'an answer');
}

void describe('the embedded default, tried as a new user would', () => {
  let session: Session;
  let banner = '';
  let skip: string | undefined;

  before(async () => {
    const busy = await busyPlace();
    if (busy !== undefined) {
      skip = `somebody else has ${busy}, which the embedded default needs`;
      return;
    }
    session = new Session(process.execPath, ['dist/main.js', 'demo']);
    try {
      banner = await session.banner(30_000);
    } catch (error) {
      await session.kill();
      throw error;
    }
  });

  after(async () => {
    if (skip === undefined) await session.kill();
  });

  const story = (
    name: string,
    run: (t: { diagnostic(text: string): void; skip(text: string): void }) => Promise<void>,
  ) =>
    void test(name, async (t) => {
      if (skip !== undefined) t.skip(skip);
      else await run(t);
    });

  const probeSays = (backend: string, up: 0 | 1): Promise<unknown> =>
    eventually(
      async () => {
        const text = await (await fetch(`${METRICS}/metrics`)).text();
        return sumMetric(parseMetrics(text), 'haports_probe_up', { backend }) === up;
      },
      15_000,
      `the probe to find ${backend} ${up === 1 ? 'up' : 'down'}`,
    );

  story('says what runs, what to try and where to look', async () => {
    assert.match(
      banner,
      /^haports balances 127\.0\.0\.1, TCP and UDP, ports 8000-8099, over nva-1, nva-2, nva-3\n/,
    );
    assert.match(banner, /^haports balances ::1, /m);
    assert.equal(printed(banner, 'TCP'), String.raw`printf 'hello\n' | nc -N 127.0.0.1 8000`);
    assert.equal(printed(banner, 'UDP'), 'printf hello | nc -u -w1 127.0.0.1 8000');
    assert.equal(printed(banner, 'browser'), 'http://127.0.0.1:8080/');
    assert.equal(printed(banner, 'metrics'), `${METRICS}/metrics`);
    const [applied] = logEvents(session.stderr, 'applied');
    assert.deepEqual(applied?.['listeners'], { tcp: 200, udp: 200 });
    assert.equal(applied['failures'], 0);
    await Promise.resolve();
  });

  story('the printed TCP and UDP lines do what they promise', async (t) => {
    if (!(await hasCommand('nc'))) {
      t.skip('nc is not installed');
      return;
    }
    for (const label of ['TCP', 'UDP']) {
      const line = printed(banner, label);
      const { code, stdout, stderr } = await runCommand('sh', ['-c', line]);
      assert.match(stdout, /^nva-[123]: hello\n?$/, `${line} gave "${stdout}" and "${stderr}"`);
      assert.equal(code, 0);
      t.diagnostic(`${line}  ->  ${stdout.trim()}`);
    }
  });

  story('a browser gets a page, over IPv4 and IPv6, from every backend in turn', async (t) => {
    const seen = new Set<string>();
    for (const url of [printed(banner, 'browser'), 'http://[::1]:8080/']) {
      for (let n = 0; n < 30; n++) {
        const response = await fetch(url, { headers: { accept: 'text/html' } });
        assert.equal(response.status, 200);
        assert.equal(response.headers.get('content-type'), 'text/html; charset=utf-8');
        seen.add(/<h1>(nva-\d)<\/h1>/.exec(await response.text())?.[1] ?? 'nobody');
      }
    }
    assert.deepEqual([...seen].sort(), ['nva-1', 'nva-2', 'nva-3']);
    if (!(await hasCommand('curl'))) {
      t.diagnostic('curl is not installed');
      return;
    }
    for (const url of ['http://127.0.0.1:8080/', 'http://[::1]:8080/']) {
      const { code, stdout } = await runCommand('curl', ['-gsS', '--noproxy', '*', url]);
      assert.equal(code, 0);
      assert.match(stdout, /^hello from nva-[123], port 8080, your address \S+\n$/);
      t.diagnostic(`curl ${url}  ->  ${stdout.trim()}`);
    }
  });

  story('UDP answers on both addresses and on the first and last port', async () => {
    for (const host of ['127.0.0.1', '::1']) {
      for (const port of [8000, 8099]) {
        const client = await UdpClient.open({ host, port });
        try {
          const answer = await client.ask();
          assert.match(answer?.text ?? 'nothing', /^nva-[123]: q/);
          assert.deepEqual([answer?.from.address, answer?.from.port], [host, port]);
        } finally {
          client.close();
        }
      }
    }
  });

  story('the printed explain line names the very backend that its client gets', async (t) => {
    const line = printed(banner, 'explain');
    assert.match(line, / tcp 127\.0\.0\.1:40000 127\.0\.0\.1:8000$/);
    let compared = 0;
    // 40000 may be taken just now; further ports show that it was no luck.
    for (let sourcePort = 40_000; sourcePort < 40_020 && compared < 5; sourcePort++) {
      const backend = await tcpFrom(sourcePort, 8000);
      if (backend === undefined) continue;
      compared++;
      const asked = line.replace(':40000 ', `:${sourcePort} `);
      const [, args = ''] = /main\.js (.*)$/.exec(asked) ?? [];
      // The line itself once, its words every time.
      const { code, stdout } =
        compared === 1 ? await runCommand('sh', ['-c', asked]) : await haportsHere(args.split(' '));
      assert.equal(code, 0);
      assert.match(
        stdout,
        new RegExp(`^\\s+goes to ${backend} at 127\\.0\\.0\\.1[123]:8000, by its hash$`, 'm'),
      );
    }
    t.diagnostic(`${compared} source ports compared`);
    assert.equal(compared, 5);
  });

  story('the printed sick line takes a backend out, and /well brings it back', async () => {
    const line = printed(banner, 'sick').split('  ')[0]!;
    assert.equal(line, 'curl -X POST http://127.0.0.11:9000/sick');
    if (await hasCommand('curl')) {
      const { stdout } = await runCommand('sh', ['-c', `${line} -sS --noproxy '*'`]);
      assert.equal(stdout, 'nva-1 is sick now\n');
    } else {
      await fetch('http://127.0.0.11:9000/sick', { method: 'POST' });
    }
    await probeSays('nva-1', 0);
    const backends = async (): Promise<Set<string>> => {
      const names = new Set<string>();
      for (let n = 0; n < 60; n++) {
        const client = await TcpClient.connect({ host: '127.0.0.1', port: 8000 + n });
        names.add(await client.backend());
        client.destroy();
      }
      return names;
    };
    assert.deepEqual([...(await backends())].sort(), ['nva-2', 'nva-3']);
    await fetch('http://127.0.0.11:9000/well', { method: 'POST' });
    await probeSays('nva-1', 1);
    assert.ok((await backends()).has('nva-1'), 'it got no new flow');
  });

  story('metrics and health answer', async () => {
    for (const [path, type] of [
      ['/metrics', /^text\/plain; version=0\.0\.4/],
      ['/healthz', /json|text/],
      ['/readyz', /json|text/],
    ] as const) {
      const response = await fetch(`${METRICS}${path}`);
      assert.equal(response.status, 200, path);
      assert.match(response.headers.get('content-type') ?? '', type);
    }
  });

  story('SIGTERM ends it all: no process and no port is left', async () => {
    assert.ok((await session.members()).length >= 5, 'control, worker and three NVAs');
    process.kill(session.pid, 'SIGTERM');
    assert.equal(await within(session.exit, 10_000, 'haports to end'), 0);
    assert.deepEqual(await session.members(), []);
    assert.equal(await busyPlace(), undefined);
  });

  for (const how of ['Ctrl-C', 'SIGTERM to npm'] as const) {
    story(`npm start serves, and ${how} leaves no process behind`, async () => {
      const npm = new Session('npm', ['start']);
      try {
        const text = await npm.banner(120_000);
        const client = await TcpClient.connect({ host: '127.0.0.1', port: 8000 });
        assert.match(await client.backend(), /^nva-[123]$/);
        client.destroy();
        assert.match(text, /^ {2}TCP .*\n {2}UDP /m);
        if (how === 'Ctrl-C') npm.interrupt();
        else process.kill(npm.pid, 'SIGTERM');
        await within(npm.exit, 15_000, 'npm to end');
        await eventually(async () => (await npm.members()).length === 0, 5000, 'every process to be gone');
      } finally {
        await npm.kill();
      }
    });
  }
});
