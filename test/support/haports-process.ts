import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { connect, type NetConnectOpts } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually, within } from './deadline.js';
import { parseMetrics, type MetricLine } from './metrics-text.js';

const MAIN = join(process.cwd(), 'dist', 'main.js');

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
  /** The configuration file, written already. @default one of its own */
  readonly path?: string;
  /** Beside `run -c`. */
  readonly args?: readonly string[];
  /** Beside this process's own. */
  readonly env?: Readonly<Record<string, string>>;
}

/** The built process, `haports run` with this configuration. */
export class HaportsProcess {
  readonly child: ChildProcess;
  readonly log: () => string;
  readonly exit: Promise<number | null>;
  readonly #metricsUrl: string;
  readonly #folder: string;

  private constructor(child: ChildProcess, log: () => string, metricsUrl: string, folder: string) {
    this.child = child;
    this.log = log;
    this.exit = exitOf(child);
    this.#metricsUrl = metricsUrl;
    this.#folder = folder;
  }

  /** Resolves once `/readyz` says so and the admin API, where there is one, answers: it comes last. */
  static async start(
    configuration: { readonly metrics: { readonly listen: string }; readonly admin?: unknown },
    options: RunOptions = {},
  ): Promise<HaportsProcess> {
    const folder = await mkdtemp(join(tmpdir(), 'haports-test-'));
    const path = options.path ?? join(folder, 'config.json');
    if (options.path === undefined) await writeFile(path, JSON.stringify(configuration));
    const args = [MAIN, 'run', '-c', path, ...(options.args ?? [])];
    const env = { ...process.env, ...options.env };
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'], env });
    collect(child.stdout);
    const log = collect(child.stderr);
    const started = new HaportsProcess(child, log, `http://${configuration.metrics.listen}`, folder);
    try {
      await eventually(
        async () => {
          if (child.exitCode !== null) throw new Error(`haports ended with ${child.exitCode}`);
          const ready = await fetch(`http://${configuration.metrics.listen}/readyz`);
          return ready.status === 200 && (await isListening(configuration.admin));
        },
        20_000,
        'haports to be ready',
      );
    } catch (error) {
      await started.kill();
      throw new Error(`haports did not start:\n${log()}`, { cause: error });
    }
    return started;
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error('haports has no process');
    return this.child.pid;
  }

  async metrics(): Promise<readonly MetricLine[]> {
    const response = await within(fetch(`${this.#metricsUrl}/metrics`), 10_000, '/metrics');
    return parseMetrics(await response.text());
  }

  /** The configuration file that it was started with. */
  get configPath(): string {
    return join(this.#folder, 'config.json');
  }

  /** Pids of the data workers. */
  async workerPids(): Promise<readonly number[]> {
    return childrenOf(this.pid);
  }

  /** Orderly: SIGTERM, then waits. */
  async stop(timeoutMs = 15_000): Promise<number | null> {
    this.child.kill('SIGTERM');
    try {
      return await within(this.exit, timeoutMs, 'haports to stop after SIGTERM');
    } finally {
      await this.kill();
    }
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.exit;
    await rm(this.#folder, { recursive: true, force: true });
  }
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
