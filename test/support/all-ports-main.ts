import { spawn, type ChildProcess } from 'node:child_process';
import { createSocket, type Socket as DatagramSocket } from 'node:dgram';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer, get } from 'node:http';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/*
 * Runs haports with a listener on every port, in a network namespace of its own: with all ports taken, no other process of
 * the machine could open a connection without naming its local address. Tells what it saw as one line of JSON.
 *
 *   node all-ports-main.js <main.js> <workers> <flows>
 */

const FRONTEND = '127.0.0.50';
const WEB = '127.0.0.51';
const BACKENDS = ['127.0.0.61', '127.0.0.62', '127.0.0.63'];
const CLIENT = '127.0.0.40';
const PROBE_PORT = 9000;
const METRICS = { host: '127.0.0.1', port: 9902 };
const AT_ONCE = 100;

export interface AllPortsResult {
  readonly startSeconds: number;
  readonly listeners: { readonly tcp: number; readonly udp: number };
  readonly tcpPorts: string;
  readonly residentBytes: number;
  readonly descriptors: readonly number[];
  readonly healthy: number;
  readonly tcp: FlowResult;
  readonly udp: FlowResult;
  /** Port 1 gone and port 65535 come, of both protocols. */
  readonly changed: SocketChange;
  /** Then port 1 come again. */
  readonly added: SocketChange;
  readonly replaced: { readonly ms: number; readonly descriptors: readonly number[] };
  readonly tcpAfter: FlowResult;
  readonly udpAfter: FlowResult;
  readonly webhookPosts: number;
  readonly errors: readonly string[];
}

/** What a reload did to the sockets of all processes. */
export interface SocketChange {
  readonly ms: number;
  readonly kept: number;
  readonly closed: number;
  readonly opened: number;
}

export interface FlowResult {
  readonly right: number;
  readonly wrong: readonly string[];
  readonly ms: number;
}

interface LogLine extends Readonly<Record<string, unknown>> {
  readonly event?: string;
  readonly level?: string | number;
  readonly msg?: string;
}

async function main(mainPath: string, workers: number, flows: number): Promise<AllPortsResult> {
  const folder = mkdtempSync(join(tmpdir(), 'haports-all-ports-'));
  const configPath = join(folder, 'config.json');
  const ports = somePorts(flows);
  const closeBackends = await openBackends([...ports]);
  let webhookPosts = 0;
  const hook = createHttpServer((_request, response) => {
    webhookPosts++;
    response.end();
  });
  await new Promise<void>((resolve) => hook.listen(9999, '127.0.0.1', resolve));
  const write = (listenPorts: string | undefined): void =>
    writeFileSync(configPath, JSON.stringify(configuration(workers, listenPorts)));
  write('1-65534');
  const startedMs = Date.now();
  const child = spawn(process.execPath, [mainPath, 'run', '-c', configPath], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const lines: LogLine[] = [];
  const waiting = follow(child, lines);
  try {
    const listening = await waiting((line) => line.event === 'listening', 60_000, 'listening');
    const startSeconds = (Date.now() - startedMs) / 1000;
    await eventually(async () => (await healthy()) === 2 * BACKENDS.length, 15_000, 'probes to go up');
    const reload = async (listenPorts: string | undefined): Promise<SocketChange> => {
      const before = socketsOfAll(child);
      const outcomes = (): number =>
        lines.filter(({ event }) => event === 'reloaded' || event === 'reload-failed').length;
      const count = outcomes();
      write(listenPorts);
      const askedMs = Date.now();
      child.kill('SIGHUP');
      await eventually(() => Promise.resolve(outcomes() > count), 30_000, 'the reload');
      return { ms: Date.now() - askedMs, ...compare(before, socketsOfAll(child)) };
    };
    const changed = await reload('2-65535');
    const added = await reload(undefined);
    const descriptors = processesOf(child).map((pid) => socketsOf(pid).size);
    const [tcp, udp] = [await timed(() => tcpFlows(ports)), await timed(() => udpFlows(ports))];
    const [victim] = childrenOf(child.pid ?? 0);
    const killedMs = Date.now();
    if (victim !== undefined) process.kill(victim, 'SIGKILL');
    const wanted = sum(descriptors.slice(1));
    const isWhole = (): boolean =>
      sum(
        processesOf(child)
          .slice(1)
          .map((pid) => socketsOf(pid).size),
      ) >=
      wanted - 8;
    if (victim !== undefined) await eventually(() => Promise.resolve(isWhole()), 30_000, 'the replacement');
    const replaced = {
      ms: Date.now() - killedMs,
      descriptors: processesOf(child).map((pid) => socketsOf(pid).size),
    };
    await eventually(async () => (await healthy()) === 2 * BACKENDS.length, 10_000, 'probes');
    const [tcpAfter, udpAfter] = [await timed(() => tcpFlows(ports)), await timed(() => udpFlows(ports))];
    const errors = lines.filter(({ level, event }) => isBad(level) && event !== 'worker-lost');
    return {
      startSeconds,
      listeners: listening['listeners'] as AllPortsResult['listeners'],
      tcpPorts: String(listening['tcpPorts']),
      residentBytes: Number(listening['residentBytes']),
      descriptors,
      healthy: await healthy(),
      ...{ changed, added, tcp, udp, replaced, tcpAfter, udpAfter, webhookPosts },
      errors: errors.map((line) => String(line.msg)),
    };
  } catch (error) {
    const last = lines.slice(-15).map((line) => JSON.stringify(line).slice(0, 600));
    throw new Error(`${String(error)}\n${last.join('\n')}`, { cause: error });
  } finally {
    for (const pid of childrenOf(child.pid ?? 0)) process.kill(pid, 'SIGKILL');
    child.kill('SIGKILL');
    hook.close();
    closeBackends();
    rmSync(folder, { recursive: true, force: true });
  }
}

function configuration(workers: number, listenPorts: string | undefined): object {
  const pool = (name: string) => ({
    name,
    backends: BACKENDS.map((address, index) => ({ name: `${name}-${index + 1}`, address })),
  });
  const probe = { port: PROBE_PORT, interval: '5s', timeout: '2s' };
  return {
    dataPlane: { workers },
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
      {
        ...{ name: 'ha-ports', frontend: 'hub', backendPool: 'nvas', probe: 'open', haPorts: true },
        ...(listenPorts === undefined ? {} : { listenPorts }),
      },
      {
        ...{ name: 'http', frontend: 'web', backendPool: 'webs', probe: 'alive', protocol: 'tcp' },
        ...{ frontendPort: 80, backendPort: PROBE_PORT },
      },
    ],
    metrics: { listen: `${METRICS.host}:${METRICS.port}` },
    events: { webhook: 'http://127.0.0.1:9999/' },
    shutdown: { deadline: '1s' },
  };
}

/** The edges, ssh's, and others at random but always the same. */
function somePorts(count: number): ReadonlySet<number> {
  const ports = new Set([1, 22, 53, 80, 443, 32768, 60999, 61000, 65535]);
  for (let seed = 12345; ports.size < count;) {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    const port = 1 + ((seed >>> 8) % 65535);
    if (port !== PROBE_PORT) ports.add(port);
  }
  return ports;
}

/** Each answers with its own address and port. */
async function openBackends(ports: readonly number[]): Promise<() => void> {
  const closers: (() => void)[] = [];
  for (const address of BACKENDS) {
    const web = createHttpServer((_request, response) => response.end('fine'));
    await new Promise<void>((resolve) => web.listen(PROBE_PORT, address, resolve));
    closers.push(() => web.close());
    for (const port of ports) {
      const server = createServer((socket) => {
        socket.on('error', () => undefined);
        socket.end(`${address} ${port}`);
      });
      const socket = createSocket('udp4');
      socket.on('message', (_data, { address: to, port: toPort }) =>
        socket.send(`${address} ${port}`, toPort, to),
      );
      await Promise.all([
        new Promise<void>((resolve) => server.listen(port, address, resolve)),
        new Promise<void>((resolve) => socket.bind({ port, address }, resolve)),
      ]);
      closers.push(() => server.close());
      closers.push(() => socket.close());
    }
  }
  return () => {
    for (const close of closers) close();
  };
}

function isRight(answer: string, port: number): boolean {
  const [address = '', from] = answer.split(' ');
  return BACKENDS.includes(address) && Number(from) === port;
}

async function tcpFlows(ports: ReadonlySet<number>): Promise<string[]> {
  return inParallel(ports, (port) => {
    const { promise, resolve } = deferred<string>();
    let text = '';
    const socket = connect({ host: FRONTEND, port, localAddress: CLIENT, timeout: 10_000 });
    socket.on('data', (data) => (text += data.toString()));
    socket.on('end', () => resolve(text));
    socket.on('timeout', () => socket.destroy(new Error('timeout')));
    socket.on('error', (error) => resolve(error.message));
    return promise;
  });
}

async function udpFlows(ports: ReadonlySet<number>): Promise<string[]> {
  return inParallel(ports, (port) => {
    const { promise, resolve } = deferred<string>();
    const socket: DatagramSocket = createSocket('udp4');
    const timer = setTimeout(() => resolve('timeout'), 10_000);
    socket.on('error', (error) => resolve(error.message));
    socket.on('message', (data, { address, port: from }) => {
      resolve(address === FRONTEND && from === port ? data.toString() : `from ${address} ${from}`);
    });
    socket.bind({ address: CLIENT, port: 0 }, () => socket.send('hello', port, FRONTEND));
    return promise.finally(() => {
      clearTimeout(timer);
      socket.close();
    });
  });
}

/** What went wrong. */
async function inParallel(
  ports: ReadonlySet<number>,
  ask: (port: number) => Promise<string>,
): Promise<string[]> {
  const left = [...ports];
  const wrong: string[] = [];
  const work = async (): Promise<void> => {
    for (let port = left.pop(); port !== undefined; port = left.pop()) {
      const answer = await ask(port);
      if (!isRight(answer, port)) wrong.push(`${port}: ${answer}`);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return wrong.concat(ports.size === 0 ? ['no port was tried'] : []);
}

async function timed(work: () => Promise<string[]>): Promise<FlowResult> {
  const startedMs = Date.now();
  const wrong = await work();
  const flows = Number(process.argv[4]);
  return { right: flows - wrong.length, wrong: wrong.slice(0, 5), ms: Date.now() - startedMs };
}

/** Backends that a probe finds up, as the metrics say. */
async function healthy(): Promise<number> {
  const { promise, resolve } = deferred<string>();
  const asked = get({ ...METRICS, path: '/metrics', localAddress: '127.0.0.1', agent: false }, (response) => {
    let text = '';
    response.on('data', (data: Buffer) => (text += data.toString()));
    response.on('end', () => resolve(text));
  });
  asked.on('error', (error) => resolve(error.message));
  const metrics = await promise;
  return [...metrics.matchAll(/^haports_backend_eligible\{[^}]*\} 1$/gm)].length;
}

function follow(child: ChildProcess, lines: LogLine[]) {
  let rest = '';
  child.stderr?.setEncoding('utf8').on('data', (part: string) => {
    const parts = (rest + part).split('\n');
    rest = parts.pop() ?? '';
    for (const line of parts) lines.push(parseLine(line));
  });
  return async (wanted: (line: LogLine) => boolean, withinMs: number, what: string): Promise<LogLine> => {
    await eventually(() => Promise.resolve(lines.some(wanted) || child.exitCode !== null), withinMs, what);
    const found = lines.find(wanted);
    if (found === undefined) throw new Error(`haports ended before ${what}`);
    return found;
  };
}

function parseLine(line: string): LogLine {
  try {
    return JSON.parse(line) as LogLine;
  } catch {
    return { msg: line };
  }
}

function isBad(level: string | number | undefined): boolean {
  return level === 'error' || level === 'warn' || (typeof level === 'number' && level >= 40);
}

/** The inodes of a process's sockets. */
function socketsOf(pid: number): ReadonlySet<string> {
  const sockets = new Set<string>();
  let names: string[] = [];
  try {
    names = readdirSync(`/proc/${pid}/fd`);
  } catch {
    // It has ended.
  }
  for (const name of names) {
    try {
      const target = readlinkSync(`/proc/${pid}/fd/${name}`);
      if (target.startsWith('socket:')) sockets.add(target);
    } catch {
      // Closed since.
    }
  }
  return sockets;
}

function socketsOfAll(child: ChildProcess): ReadonlySet<string> {
  return new Set(processesOf(child).flatMap((pid) => [...socketsOf(pid)]));
}

function compare(before: ReadonlySet<string>, after: ReadonlySet<string>) {
  const kept = [...before].filter((socket) => after.has(socket)).length;
  return { kept, closed: before.size - kept, opened: after.size - kept };
}

function processesOf({ pid = 0 }: ChildProcess): readonly number[] {
  return [pid, ...childrenOf(pid)];
}

function childrenOf(pid: number): readonly number[] {
  try {
    const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
    return text.trim().split(' ').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((a, b) => a + b, 0);
}

async function eventually(done: () => Promise<boolean>, withinMs: number, what: string): Promise<void> {
  const untilMs = Date.now() + withinMs;
  while (!(await done())) {
    if (Date.now() > untilMs) throw new Error(`Waited ${withinMs} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function deferred<T>(): { readonly promise: Promise<T>; readonly resolve: (value: T) => void } {
  let resolve: (value: T) => void = () => undefined;
  const promise = new Promise<T>((settle) => (resolve = settle));
  return { promise, resolve };
}

const [, , mainPath = '', workers = '', flows = ''] = process.argv;
const result = await main(mainPath, Number(workers), Number(flows));
process.stdout.write(`${JSON.stringify(result)}\n`);
