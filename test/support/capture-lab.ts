import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { StatusView } from '../../src/api/views.js';
import { adminApi, type AdminAnswer } from './admin-api.js';
import type { AskedFlow, ClientPlan, FlowAnswer } from './capture-flows.js';
import { eventually, within } from './deadline.js';
import { NamespaceLab } from './namespaces.js';
import { parseMetrics, type MetricLine } from './metrics-text.js';

/*
 *   c1 (10.50.1.2) --+
 *                    +-- lb (frontends 10.50.0.9, fd00:50::9; 10.50.3.1) -- be (10.50.3.11-13, fd00:50:3::11-13)
 *   c2 (10.50.2.2) --+
 *
 * The balancer is the built process, inside `lb`. Its frontends are addresses of lb's loopback, clients route there.
 */

/** `HAPORTS_MAIN`: another build than that of `npm run build`. */
const MAIN = resolve(process.env['HAPORTS_MAIN'] ?? join('dist', 'main.js'));
const SUPPORT = import.meta.dirname;
const START_MS = 30_000;

export const CLIENTS = ['c1', 'c2'] as const;
export type ClientName = (typeof CLIENTS)[number];

export const FRONTEND = { 4: '10.50.0.9', 6: 'fd00:50::9' } as const;
/** On the frontend's own address: it must stay reachable there. */
export const METRICS = `${FRONTEND[4]}:9902`;
/** A second frontend, for tests that need two. */
export const OTHER_FRONTEND = '10.50.0.10';
export const BACKENDS = {
  4: ['10.50.3.11', '10.50.3.12', '10.50.3.13'],
  6: ['fd00:50:3::11', 'fd00:50:3::12', 'fd00:50:3::13'],
} as const;
export const CLIENT_ADDRESS = {
  c1: { 4: '10.50.1.2', 6: 'fd00:50:1::2' },
  c2: { 4: '10.50.2.2', 6: 'fd00:50:2::2' },
} as const;

/** One HA-ports rule to the three backends of each family asked for, captured. */
export function captureConfig(
  capture: object,
  options: {
    readonly families?: readonly (4 | 6)[];
    readonly dataPlane?: object;
    readonly rule?: object;
    readonly top?: object;
  } = {},
): object {
  const families = options.families ?? [4];
  return {
    dataPlane: { kind: 'userspace', workers: 1, capture, ...options.dataPlane },
    frontends: families.map((family) => ({ name: `hub${family}`, address: FRONTEND[family] })),
    backendPools: families.map((family) => ({
      name: `nvas${family}`,
      backends: BACKENDS[family].map((address) => ({ address })),
    })),
    rules: families.map((family) => ({
      name: `ha-ports${family}`,
      frontend: `hub${family}`,
      backendPool: `nvas${family}`,
      haPorts: true,
      ...options.rule,
    })),
    metrics: { listen: METRICS },
    shutdown: { deadline: '1s' },
    ...options.top,
  };
}

/** How `haports run` is started inside the balancer's namespace. */
export interface LaunchOptions {
  /** What comes before `node dist/main.js run -c ...`, such as setpriv or a launcher of descriptors. */
  readonly launcher?: readonly string[];
  /** Returns without waiting until it serves: for starts that are to fail. */
  readonly waitFor?: 'serving' | 'nothing';
}

/** The four namespaces, and what runs in them. Whoever opens it closes it. */
export class CaptureLab {
  readonly spaces: NamespaceLab;
  readonly #processes = new Set<CapturedHaports>();

  private constructor(spaces: NamespaceLab) {
    this.spaces = spaces;
  }

  static async open(): Promise<CaptureLab> {
    const spaces = await NamespaceLab.create(...CLIENTS, 'lb', 'be');
    try {
      for (const [index, client] of CLIENTS.entries()) {
        const [net4, net6] = [`10.50.${index + 1}`, `fd00:50:${index + 1}:`];
        await spaces.link(
          { in: client, addresses: [`${net4}.2/24`, `${net6}:2/64`] },
          { in: 'lb', addresses: [`${net4}.1/24`, `${net6}:1/64`] },
        );
        await spaces.ip(client, `route add default via ${net4}.1`);
        await spaces.ip(client, `-6 route add default via ${net6}:1`);
      }
      await spaces.link(
        { in: 'lb', addresses: ['10.50.3.1/24', 'fd00:50:3::1/64'] },
        {
          in: 'be',
          addresses: [
            ...BACKENDS[4].map((address) => `${address}/24`),
            ...BACKENDS[6].map((address) => `${address}/64`),
          ],
        },
      );
      await spaces.ip('be', 'route add default via 10.50.3.1');
      await spaces.ip('be', '-6 route add default via fd00:50:3::1');
      await spaces.address('lb', 'lo', `${FRONTEND[4]}/32`, `${OTHER_FRONTEND}/32`, `${FRONTEND[6]}/128`);
    } catch (error) {
      await spaces.close();
      throw error;
    }
    return new CaptureLab(spaces);
  }

  /** Backends on these ports: echoes, TCP and UDP, that name address and port. Resolves once all listen. */
  async startBackends(ports: readonly number[], addresses: readonly string[] = BACKENDS[4]): Promise<void> {
    await this.startEcho('be', ports, addresses);
  }

  /** The same in any of the namespaces. */
  async startEcho(
    name: string,
    ports: readonly number[],
    addresses: readonly string[],
  ): Promise<ChildProcess> {
    const child = this.spaces.spawn(name, process.execPath, [join(SUPPORT, 'capture-echo-main.js')]);
    child.stdin?.end(JSON.stringify({ addresses, ports }));
    const [stdout, stderr] = [collect(child.stdout), collect(child.stderr)];
    await eventually(
      () => {
        if (child.exitCode !== null) throw new Error(`The echo ended with ${child.exitCode}`);
        return stdout().includes('ready');
      },
      START_MS,
      `echoes on ${ports.length} ports: ${stderr()}`,
    ).catch((error: unknown) => {
      throw new Error(`No echo on ${addresses.join(', ')}: ${stderr()}`, { cause: error });
    });
    return child;
  }

  /** Asks once on each flow, from a client's namespace; the answers are in the order of the flows. */
  async ask(
    client: string,
    flows: readonly AskedFlow[],
    options: { readonly concurrency?: number; readonly timeoutMs?: number } = {},
  ): Promise<readonly FlowAnswer[]> {
    const { concurrency = 50, timeoutMs = 5000 } = options;
    const plan: ClientPlan = { flows, concurrency, timeoutMs };
    const script = join(SUPPORT, 'capture-client-main.js');
    const text = await this.spaces.must(client, process.execPath, [script], {
      input: JSON.stringify(plan),
      timeoutMs: 120_000,
    });
    return JSON.parse(text) as readonly FlowAnswer[];
  }

  /** TCP connections of a client that stay open. Each `ask` sends on all and gives how many answered rightly. */
  async hold(client: ClientName, flows: readonly AskedFlow[]): Promise<{ ask(): Promise<number> }> {
    const script = join(SUPPORT, 'capture-hold-main.js');
    const child = this.spaces.spawn(client, process.execPath, [script]);
    const [stdout, stderr] = [collect(child.stdout), collect(child.stderr)];
    let rounds = 0;
    const ask = async (line: string): Promise<number> => {
      child.stdin?.write(`${line}\n`);
      const round = rounds++;
      const answer = await eventually(
        () => {
          if (child.exitCode !== null) throw new Error(`The client ended: ${stderr()}`);
          return stdout().split('\n').slice(0, -1)[round];
        },
        10_000,
        `answers on ${flows.length} connections`,
      );
      return Number(answer);
    };
    assert.equal(await ask(JSON.stringify(flows)), flows.length, 'all connections are open');
    return { ask: () => ask('again') };
  }

  /** Starts the built process. Resolves once its admin API tells that it serves. */
  async start(configuration: object, options: LaunchOptions = {}): Promise<CapturedHaports> {
    const folder = await mkdtemp(join(tmpdir(), 'haports-capture-'));
    // It may run as somebody else, who makes the admin socket here.
    await chmod(folder, 0o777);
    const path = join(folder, 'config.json');
    const socket = join(folder, 'admin.sock');
    await writeFile(path, JSON.stringify({ ...configuration, admin: { socket } }));
    await chmod(path, 0o644);
    const argv = [...(options.launcher ?? []), process.execPath, MAIN, 'run', '-c', path];
    const [program = '', ...args] = argv;
    const child = this.spaces.spawn('lb', program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const started = new CapturedHaports(child, { folder, path, socket });
    this.#processes.add(started);
    if (options.waitFor !== 'nothing') await started.ready();
    return started;
  }

  /** `nft list ruleset` of the balancer's namespace, without the tables named. */
  async ruleset(without: readonly string[] = []): Promise<string> {
    const text = await this.spaces.must('lb', 'nft', ['list', 'ruleset'], { timeoutMs: 30_000 });
    return text
      .split(/^(?=table )/m)
      .filter((table) => !without.some((name) => table.startsWith(`table ${name} {`)))
      .join('');
  }

  /** All that a process of haports may leave behind in the balancer's namespace: tables, addresses, routes, rules. */
  async kernelState(): Promise<string> {
    const ip = ['address', 'rule', '-6 rule', 'route show table all', '-6 route show table all'];
    const parts = [await this.ruleset()];
    for (const command of ip) parts.push(`# ip ${command}`, await this.spaces.ip('lb', command));
    return withoutClocks(parts.join('\n'));
  }

  /** Metrics as a client's namespace gets them. */
  async metrics(client: ClientName, listen: string): Promise<readonly MetricLine[]> {
    const text = await this.spaces.must(client, 'curl', ['-sS', '-m', '5', `http://${listen}/metrics`]);
    return parseMetrics(text);
  }

  async close(): Promise<void> {
    for (const each of this.#processes) await each.kill();
    await this.spaces.close();
  }
}

/** The built process inside the balancer's namespace. */
export class CapturedHaports {
  readonly child: ChildProcess;
  readonly socket: string;
  readonly configPath: string;
  readonly log: () => string;
  readonly exit: Promise<number | null>;
  readonly #folder: string;

  constructor(
    child: ChildProcess,
    paths: { readonly folder: string; readonly path: string; readonly socket: string },
  ) {
    this.child = child;
    this.socket = paths.socket;
    this.configPath = paths.path;
    this.#folder = paths.folder;
    collect(child.stdout);
    this.log = collect(child.stderr);
    this.exit = new Promise((resolve) => {
      child.once('exit', (code) => resolve(code));
      child.once('error', () => resolve(null));
    });
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error('haports has no process');
    return this.child.pid;
  }

  /** Rejects with its log when it ends instead, or takes too long. */
  async ready(): Promise<void> {
    try {
      await eventually(
        async () => {
          if (this.child.exitCode !== null) return true;
          return isServing(await adminApi(this.socket, 'GET', '/v1/status'));
        },
        START_MS,
        'haports to be ready',
      );
      if (this.child.exitCode !== null) throw new Error(`haports ended with ${this.child.exitCode}`);
    } catch (error) {
      await this.kill();
      throw new Error(`haports did not start:\n${this.log()}`, { cause: error });
    }
  }

  /** The body of a GET of the admin API. */
  async get<T>(path: string): Promise<T> {
    const { status, body } = await adminApi(this.socket, 'GET', path);
    if (status !== 200) throw new Error(`GET ${path}: ${status} ${JSON.stringify(body)}`);
    return body as T;
  }

  /** Another configuration by the admin API. Gives status and body of the answer. */
  async reload(configuration: object): Promise<{ readonly status: number; readonly body: unknown }> {
    const full = { ...configuration, admin: { socket: this.socket } };
    return adminApi(this.socket, 'POST', '/v1/reload', full);
  }

  /** SIGTERM, then waits for its exit code. */
  async stop(timeoutMs = 20_000): Promise<number | null> {
    this.child.kill('SIGTERM');
    try {
      return await within(this.exit, timeoutMs, `haports to stop after SIGTERM:\n${this.log()}`);
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

/** Life times and counters change by themselves. */
function withoutClocks(text: string): string {
  return text.replaceAll(/ (expires|age|valid_lft|preferred_lft) \S+/g, '').replaceAll(/ +$/gm, '');
}

function collect(stream: NodeJS.ReadableStream | null): () => string {
  let text = '';
  stream?.setEncoding('utf8').on('data', (part: string) => (text += part));
  return () => text;
}
