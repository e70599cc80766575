import { spawn, type ChildProcess, type SpawnOptions } from 'node:child_process';
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { connect, type NetConnectOpts } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { StatusView } from '../../src/api/views.js';
import { adminApi, ask, type AdminAnswer, type Answer } from './admin-api.js';
import { eventually, within } from './deadline.js';
import { parseMetrics, type MetricLine } from './metrics-text.js';

/** `HAPORTS_MAIN`: another build than that of `npm run build`. */
export const MAIN = resolve(process.env['HAPORTS_MAIN'] ?? join('dist', 'main.js'));

const [CONFIG, SOCKET] = ['config.json', 'admin.sock'];
const START_MS = 60_000;

/** What a command line left behind. */
export interface CommandResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the built command to its end; `uid` and `gid` are whom it runs as. */
export async function haports(
  args: readonly string[],
  timeoutMs = 20_000,
  user: { readonly uid?: number; readonly gid?: number } = {},
): Promise<CommandResult> {
  const child = spawn(process.execPath, [MAIN, ...args], { stdio: ['ignore', 'pipe', 'pipe'], ...user });
  const [stdout, stderr] = [collect(child.stdout), collect(child.stderr)];
  try {
    const code = await within(exitOf(child), timeoutMs, `haports ${args.join(' ')} to end`);
    return { code, stdout: stdout(), stderr: stderr() };
  } finally {
    child.kill('SIGKILL');
  }
}

export interface RunOptions {
  /** The program. @default the built one */
  readonly main?: string;
  /** Beside `run -c`. */
  readonly args?: readonly string[];
  /** Beside this process's own. */
  readonly env?: Readonly<Record<string, string>>;
  /** Before `node main.js run`, such as setpriv(1). */
  readonly launcher?: readonly string[];
  /** `nothing`: returns at once, for starts that are to fail. @default 'serving' */
  readonly waitFor?: 'serving' | 'nothing';
  /** Starts it elsewhere, such as in a network namespace, where its metrics are out of reach. */
  readonly spawn?: (argv: readonly string[], options: SpawnOptions) => ChildProcess;
}

/** The built process, `haports run` with this configuration. */
export class HaportsProcess {
  readonly child: ChildProcess;
  readonly log: () => string;
  readonly exit: Promise<number | null>;
  /** Of its admin API, where the configuration chooses none. */
  readonly socket: string;
  /** Of its metrics, where it has any: `127.0.0.1:9902`. */
  readonly #metricsAt: string;
  readonly #folder: string;

  private constructor(child: ChildProcess, folder: string, metricsAt: string) {
    this.child = child;
    this.log = collect(child.stderr);
    this.exit = exitOf(child);
    this.socket = join(folder, SOCKET);
    this.#metricsAt = metricsAt;
    this.#folder = folder;
    collect(child.stdout);
  }

  /** Resolves once `/readyz` says so and the admin API answers, which comes last; without metrics once its status says so. */
  static async start(
    configuration: {
      readonly metrics?: { readonly listen?: string };
      readonly admin?: unknown;
      readonly frontends?: unknown;
    },
    options: RunOptions = {},
  ): Promise<HaportsProcess> {
    const folder = await mkdtemp(join(tmpdir(), 'haports-test-'));
    // It may run as another user, who makes the admin socket here.
    await chmod(folder, 0o777);
    const path = join(folder, CONFIG);
    const socket = join(folder, SOCKET);
    const hasMetrics = options.spawn === undefined && configuration.metrics !== undefined;
    const written = { admin: { socket }, ...configuration };
    await writeFile(path, JSON.stringify(written), { mode: 0o644 });
    const { launcher = [], main = MAIN, args = [], spawn: start = spawnHere } = options;
    const child = start([...launcher, process.execPath, main, 'run', '-c', path, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...options.env },
    });
    const started = new HaportsProcess(child, folder, configuration.metrics?.listen ?? '');
    if (options.waitFor === 'nothing') return started;
    try {
      const isReady = async (): Promise<boolean> =>
        hasMetrics
          ? (await started.askMetrics('/readyz')).status === 200 && (await isListening(written.admin))
          : isServing(await adminApi(socket, 'GET', '/v1/status'));
      await eventually(async () => started.#hasEnded || (await isReady()), START_MS, 'haports to be ready');
      if (started.#hasEnded) throw new Error(`haports ended with ${child.exitCode}`);
    } catch (error) {
      await started.kill();
      throw new Error(`haports did not start:\n${started.log()}`, { cause: error });
    }
    return started;
  }

  get #hasEnded(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error('haports has no process');
    return this.child.pid;
  }

  /** What it answers where its metrics are: `/metrics`, `/readyz`, `/healthz`. */
  async askMetrics(path: string): Promise<Answer> {
    const colon = this.#metricsAt.lastIndexOf(':');
    const host = this.#metricsAt.slice(0, colon).replace(/^\[|\]$/g, '');
    return ask({ host, port: this.#metricsAt.slice(colon + 1) }, path);
  }

  async metrics(): Promise<readonly MetricLine[]> {
    const { text } = await within(this.askMetrics('/metrics'), 10_000, '/metrics');
    return parseMetrics(text);
  }

  /** A file in its folder, which is removed with it. */
  file(name: string): string {
    return join(this.#folder, name);
  }

  /** The configuration file that it was started with. */
  get configPath(): string {
    return this.file(CONFIG);
  }

  /** Writes a configuration, with the admin socket, as JSON. @default path the file that it was started with */
  async write(configuration: object, path = this.configPath): Promise<string> {
    await writeFile(path, JSON.stringify(this.withSocket(configuration)));
    return path;
  }

  /** A call of the admin API. */
  async call(
    ...args: Parameters<typeof adminApi> extends [string, ...infer Rest] ? Rest : never
  ): Promise<AdminAnswer> {
    return adminApi(this.socket, ...args);
  }

  /** A call that must succeed; gives its body. */
  async must(...args: Parameters<HaportsProcess['call']>): Promise<unknown> {
    const { status, body } = await this.call(...args);
    if (status >= 300) throw new Error(`${args.slice(0, 2).join(' ')}: ${status} ${JSON.stringify(body)}`);
    return body;
  }

  async get<T>(path: string): Promise<T> {
    return (await this.must('GET', path)) as T;
  }

  /** Another configuration by the admin API. */
  async reload(configuration: object): Promise<AdminAnswer> {
    return this.call('POST', '/v1/reload', this.withSocket(configuration));
  }

  withSocket(configuration: object): object {
    return { admin: { socket: this.socket }, ...configuration };
  }

  /** Pids of the data workers. */
  async workerPids(): Promise<readonly number[]> {
    return childrenOf(this.pid);
  }

  /** Orderly: SIGTERM, then waits. */
  async stop(timeoutMs = 20_000): Promise<number | null> {
    this.child.kill('SIGTERM');
    try {
      return await within(this.exit, timeoutMs, () => `haports to stop after SIGTERM:\n${this.log()}`);
    } finally {
      await this.kill();
    }
  }

  /** SIGKILL, to the control process alone: its workers are to notice. */
  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.exit;
    await rm(this.#folder, { recursive: true, force: true });
  }
}

/** Whether an answer of `/v1/status` tells of a process that serves: operators are heard before flows are. */
export function isServing({ status, body }: AdminAnswer): boolean {
  if (status !== 200) return false;
  const { revision, kernel } = body as StatusView;
  return revision > 0 && (kernel === undefined || kernel.state === 'in-place');
}

function spawnHere([program = '', ...args]: readonly string[], options: SpawnOptions): ChildProcess {
  return spawn(program, args, options);
}

/** Open file descriptors of a process. */
export async function descriptorCount(pid: number): Promise<number> {
  return (await readdir(`/proc/${pid}/fd`)).length;
}

/** Resident memory of a process, in bytes. */
export async function residentBytes(pid: number): Promise<number> {
  const match = /^VmRSS:\s+(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'));
  return Number(match?.[1]) * 1024;
}

/** Whether there is such a process; a dead one that nobody has waited for does not count. */
export async function isAlive(pid: number): Promise<boolean> {
  try {
    return !/^State:\s+Z/m.test(await readFile(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

export async function childrenOf(pid: number): Promise<readonly number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return text.trim().split(' ').filter(Boolean).map(Number);
}

/** Whether the admin API can be connected to; true where there is none. Its address comes after its socket. */
async function isListening(admin: unknown): Promise<boolean> {
  const { socket, http } = (admin ?? {}) as { readonly socket?: string; readonly http?: string };
  const colon = http?.lastIndexOf(':') ?? 0;
  const place: NetConnectOpts | undefined =
    http !== undefined && !http.endsWith(':0')
      ? { host: http.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(http.slice(colon + 1)) }
      : socket === undefined
        ? undefined
        : { path: socket };
  if (place === undefined) return true;
  return new Promise((resolve) => {
    const probe = connect(place);
    probe.once('error', () => resolve(false));
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
  });
}

function collect(stream: NodeJS.ReadableStream | null): () => string {
  let text = '';
  stream?.setEncoding('utf8').on('data', (part: string) => (text += part));
  return () => text;
}

function exitOf(child: ChildProcess): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve(child.exitCode);
  return new Promise((resolve) => {
    child.once('exit', (code) => resolve(code));
    child.once('error', () => resolve(null));
  });
}
