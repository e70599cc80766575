import assert from 'node:assert/strict';
import { spawn, spawnSync, type ChildProcess, type SpawnOptions } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readlinkSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { systemTools, type Tools } from '../../src/planes/netfilter/tools.js';
import { builtFile, runCommand, type Outcome } from './commands.js';
import { within } from './deadline.js';
import { HaportsProcess, type RunOptions } from './haports-process.js';
import { Shell } from './shell.js';
import { Traffic, type ServePlan } from './traffic.js';

/*
 * A lab is a set of hosts, each a network namespace, described as data: nothing of the machine itself is touched.
 * Names hold the process id and a counter, so that labs run side by side, and the next lab removes what a killed
 * test has left behind.
 */

const PREFIX = 'haptest';
const TOOLS = ['ip', 'nft', 'conntrack', 'perl'];
/** Where `ip netns` has its names. */
const NAMESPACES = '/run/netns';
const TRAFFIC_MAIN = builtFile('test/support/traffic-main');
/** Deadlines are for what hangs: a busy machine takes its time. */
const READY_MS = 60_000;
const COMMAND_MS = 60_000;
let labs = 0;
let refusal: string | false | undefined;

/** The reason to skip; false where namespaces can be made and all tools, `also` among them, are installed. */
export function whyNoNamespaces(...also: readonly string[]): string | false {
  if (process.platform !== 'linux') return 'network namespaces need Linux';
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  const folders = (process.env['PATH'] ?? '').split(':');
  const missing = [...TOOLS, ...also].filter(
    (tool) => !folders.some((folder) => existsSync(join(folder, tool))),
  );
  if (missing.length > 0) return `not installed: ${missing.join(', ')}`;
  return (refusal ??= tryNamespace());
}

function tryNamespace(): string | false {
  const trial = `${PREFIX}-${process.pid}-trial`;
  const made = spawnSync('ip', ['netns', 'add', trial], { encoding: 'utf8' });
  if (made.status !== 0) return `network namespaces are refused: ${made.stderr.trim()}`;
  const tables = spawnSync('ip', ['netns', 'exec', trial, 'nft', 'list', 'ruleset'], { encoding: 'utf8' });
  spawnSync('ip', ['netns', 'delete', trial]);
  return tables.status === 0 ? false : `nftables is refused in a network namespace: ${tables.stderr.trim()}`;
}

/** What a host has. Reverse path filters and duplicate address detection are off everywhere. */
export interface HostPlan {
  /** By neighbour, the addresses of this end of a veth pair, with prefix length. The device is named after the neighbour. */
  readonly links?: Readonly<Record<string, readonly string[]>>;
  /** A bridge `br0` over the links to these neighbours. */
  readonly bridge?: { readonly over: readonly string[]; readonly addresses: readonly string[] };
  /** Addresses of the loopback, with prefix length. */
  readonly loopback?: readonly string[];
  /** Routes packets of both families, and sends no redirects. @default false */
  readonly forwards?: boolean;
  /** Set before there are devices, which take over what `default` says. */
  readonly sysctls?: Readonly<Record<string, number>>;
  /** Commands of ip(8), such as `-6 rule add from fd01::/64 lookup 100`. */
  readonly ip?: readonly string[];
}

export type Topology<Name extends string> = Readonly<Record<Name, HostPlan>>;

/** A program and its arguments; a text is split at spaces. */
export type Command = string | readonly string[];
interface CommandOptions {
  readonly input?: string;
  readonly timeoutMs?: number;
}

/** A lab for the tests of this `describe`: opened before the first of them, closed after the last. */
export function useLab<Name extends string>(topology: Topology<Name>): Lab<Name> {
  const lab = new Lab(topology);
  before(() => lab.open());
  after(() => lab.close());
  return lab;
}

/** The caller opens and closes it. */
export class Lab<Name extends string> {
  readonly hosts: Readonly<Record<Name, Host>>;
  readonly #topology: Topology<Name>;
  readonly #children = new Set<ChildProcess>();
  readonly #processes = new Set<HaportsProcess>();
  readonly #atExit = (): void => {
    for (const { namespace } of this.#all()) {
      endProcesses(processesIn([namespace]));
      spawnSync('ip', ['netns', 'delete', namespace]);
    }
  };
  // eslint-disable-next-line n/no-process-exit -- runs what is to be done at the exit
  readonly #atSignal = (): void => process.exit(1);

  constructor(topology: Topology<Name>) {
    this.#topology = topology;
    const tag = `${PREFIX}-${process.pid}-${++labs}`;
    const names = Object.keys(topology) as Name[];
    const hosts = names.map((name) => [name, new Host(name, `${tag}-${name}`, this)] as const);
    this.hosts = Object.fromEntries(hosts) as Record<Name, Host>;
  }

  #all(): readonly Host[] {
    return Object.values(this.hosts);
  }

  host(name: Name): Host {
    return this.hosts[name];
  }

  /** Removes first what tests that are no more have left. */
  async open(): Promise<void> {
    await removeOrphans();
    process.once('exit', this.#atExit).once('SIGTERM', this.#atSignal);
    try {
      await batch(this.#all().map(({ namespace }) => `netns add ${namespace}`));
      await Promise.all(this.#all().map((host) => host.setSysctls(sysctlsOf(this.#plan(host)))));
      await batch(this.#pairs());
      await Promise.all(this.#all().map((host) => this.#configure(host)));
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  #plan({ name }: Host): HostPlan {
    return this.#topology[name as Name];
  }

  #pairs(): readonly string[] {
    return this.#all().flatMap(({ name, namespace }) =>
      Object.keys(this.#plan(this.host(name as Name)).links ?? {}).flatMap((other) => {
        const peer = this.host(other as Name);
        if (name > other && this.#plan(peer).links?.[name] !== undefined) return [];
        return `link add ${other} netns ${namespace} type veth peer name ${name} netns ${peer.namespace}`;
      }),
    );
  }

  async #configure(host: Host): Promise<void> {
    const { links = {}, bridge, loopback = [], ip = [] } = this.#plan(host);
    const lines = ['link set lo up'];
    if (bridge !== undefined) lines.push('link add br0 type bridge', 'link set br0 up');
    for (const other of Object.keys(links)) {
      if (bridge?.over.includes(other) === true) lines.push(`link set ${other} master br0`);
      lines.push(`link set ${other} up`);
    }
    const all = { lo: loopback, br0: bridge?.addresses ?? [], ...links };
    for (const [device, addresses] of Object.entries(all)) lines.push(...addressLines(device, addresses));
    await host.batch(lines);
    for (const family of ['-4', '-6']) {
      const some = ip.filter((line) => line.startsWith(family) || (family === '-4' && !line.startsWith('-')));
      await host.batch(
        some.map((line) => line.replace(/^-[46] /, '')),
        [family],
      );
    }
  }

  /** Starts a process that `close` ends if it still runs. It does not keep the test runner alive. */
  adopt(child: ChildProcess): ChildProcess {
    this.#children.add(child);
    child.once('exit', () => this.#children.delete(child)).once('error', () => this.#children.delete(child));
    return child;
  }

  adoptHaports(haports: HaportsProcess): HaportsProcess {
    this.#processes.add(haports);
    return haports;
  }

  /** Ends all processes inside, by their ids, and deletes the namespaces with all that is in them. Never rejects. */
  async close(): Promise<void> {
    await Promise.allSettled([...this.#processes].map((haports) => haports.kill()));
    await Promise.allSettled([...this.#children].map(kill));
    const namespaces = this.#all().map(({ namespace }) => namespace);
    endProcesses(processesIn(namespaces));
    // Each that there is.
    await batch(
      namespaces.map((namespace) => `netns delete ${namespace}`),
      ['-force'],
    ).catch(() => undefined);
    process.removeListener('exit', this.#atExit).removeListener('SIGTERM', this.#atSignal);
  }
}

/** One network namespace, and what can be done inside. */
export class Host {
  readonly name: string;
  /** The name that `ip netns` knows. */
  readonly namespace: string;
  readonly #lab: Pick<Lab<string>, 'adopt' | 'adoptHaports'>;
  #startedShell: Shell | undefined;

  constructor(name: string, namespace: string, lab: Pick<Lab<string>, 'adopt' | 'adoptHaports'>) {
    this.name = name;
    this.namespace = namespace;
    this.#lab = lab;
  }

  /** What comes before a command line so that it runs inside. `ip` becomes the program: the process id stays. */
  get prefix(): readonly string[] {
    return ['ip', 'netns', 'exec', this.namespace];
  }

  get #shell(): Shell {
    if (this.#startedShell === undefined) {
      this.#startedShell = new Shell(this.prefix);
      this.#lab.adopt(this.#startedShell.child);
    }
    return this.#startedShell;
  }

  /** Runs a program to its end, whatever its exit code. */
  async run(command: Command, options: CommandOptions = {}): Promise<Outcome> {
    return this.#shell.run(words(command), { timeoutMs: COMMAND_MS, ...options });
  }

  /** Runs a program to its end and gives its output. Rejects when it fails. */
  async must(command: Command, options: CommandOptions = {}): Promise<string> {
    return outputOf(words(command), await this.run(command, options), options);
  }

  /** The kernel's tools, as `systemTools()` runs them. */
  get tools(): Tools {
    return {
      run: async (tool, args, options) => {
        const ended = this.run([tool, ...args], options);
        const { code, stdout, stderr } = await ended.catch((error: unknown) => ({
          ...{ code: null, stdout: '', stderr: String(error) },
        }));
        return { exitCode: code ?? undefined, stdout, stderr, ...(code === null && { failure: 'killed' }) };
      },
      follow: (...args) => systemTools({ namespace: this.namespace }).follow(...args),
    };
  }

  /** Loads an nft script. Rejects when nft refuses it. */
  async nft(script: string): Promise<void> {
    await this.must('nft -f -', { input: script });
  }

  /** `ip` inside, with its output. Rejects when it fails. */
  async ip(command: string): Promise<string> {
    return this.must(['ip', ...words(command)]);
  }

  /** What a device has sent so far. */
  async sent(device: string): Promise<{ readonly bytes: number; readonly packets: number }> {
    const listed = await this.ip(`-s -j link show ${device}`);
    const [link] = JSON.parse(listed) as readonly { stats64: { tx: { bytes: number; packets: number } } }[];
    assert.ok(link);
    return link.stats64.tx;
  }

  /** Addresses with prefix length; IPv6 is usable at once. */
  async address(device: string, ...addresses: readonly string[]): Promise<void> {
    await this.batch(addressLines(device, addresses));
  }

  /** Lines for `ip -batch`. */
  async batch(lines: readonly string[], options: readonly string[] = []): Promise<void> {
    if (lines.length > 0) await this.must(['ip', ...options, '-batch', '-'], { input: textOf(lines) });
  }

  /** `net.ipv4.ip_forward`. */
  async sysctl(key: string, value: number | string): Promise<void> {
    await this.setSysctls({ [key]: value });
  }

  async setSysctls(values: Readonly<Record<string, number | string>>): Promise<void> {
    const lines = Object.entries(values).map(
      ([key, value]) => `echo '${value}' > /proc/sys/${key.replaceAll('.', '/')}`,
    );
    await this.must(['sh', '-ec', lines.join('\n')]);
  }

  /** Starts a process, which the lab ends. Its pid is that of the program. */
  spawn(command: Command, options: SpawnOptions = { stdio: ['pipe', 'pipe', 'inherit'] }): ChildProcess {
    return this.#lab.adopt(spawn('ip', [...this.prefix.slice(1), ...words(command)], options));
  }

  /** Starts a process and waits until it prints something: it is ready then. */
  async start(command: Command): Promise<ChildProcess> {
    const child = this.spawn(command);
    const ended = once(child, 'exit').then(() => Promise.reject(new Error('It ended at once')));
    ended.catch(() => undefined);
    await within(
      Promise.race([once(child.stdout!, 'data'), ended]),
      READY_MS,
      `${String(command)} to be ready`,
    );
    child.stdout?.resume();
    return child;
  }

  /** A process that asks, and serves. */
  traffic(): Traffic {
    return new Traffic(this.spawn([process.execPath, TRAFFIC_MAIN]));
  }

  /** Servers in a process of their own. Resolves once all listen. */
  async serve(plan: ServePlan): Promise<Traffic> {
    const traffic = this.traffic();
    await traffic.serve(plan);
    return traffic;
  }

  /** Starts the built process. Resolves once its admin API says that it serves, if `waitFor` is not `nothing`. */
  async haports(configuration: object, options: RunOptions = {}): Promise<HaportsProcess> {
    const started = await HaportsProcess.start(configuration, {
      ...options,
      spawn: (argv, how) => this.spawn(argv, how),
    });
    return this.#lab.adoptHaports(started);
  }

  /** Process ids inside, but for the one that runs commands. */
  pids(): readonly number[] {
    return processesIn([this.namespace]).filter((pid) => pid !== this.#startedShell?.child.pid);
  }
}

function words(command: Command): readonly string[] {
  return typeof command === 'string' ? command.split(' ') : command;
}

function addressLines(device: string, addresses: readonly string[]): string[] {
  return addresses.map(
    (address) => `address add ${address} dev ${device}${address.includes(':') ? ' nodad' : ''}`,
  );
}

/** A type that nothing sends, since the mask cannot be empty. */
const NO_ICMPV6_ERROR = 127;

function sysctlsOf({ forwards, sysctls }: HostPlan): Readonly<Record<string, number>> {
  const everywhere = (key: string): Record<string, number> =>
    Object.fromEntries(['all', 'default'].map((scope) => [`net.ipv4.conf.${scope}.${key}`, 0]));
  return {
    'net.ipv6.conf.default.accept_dad': 0,
    ...(forwards === true ? { 'net.ipv4.ip_forward': 1, 'net.ipv6.conf.all.forwarding': 1 } : {}),
    // Packets come and go by ways that a reverse path filter does not expect.
    ...everywhere('rp_filter'),
    // With one arm everything leaves by where it came: no redirects to a shorter way.
    ...(forwards === true ? everywhere('send_redirects') : {}),
    // ICMP errors are limited by the host they go to, by the namespace and, in older kernels, by the whole machine, where labs
    // that run side by side would take them from each other. Errors outside these masks are not limited.
    'net.ipv4.icmp_ratemask': 0,
    'net.ipv6.icmp.ratemask': NO_ICMPV6_ERROR,
    ...sysctls,
  };
}

async function batch(lines: readonly string[], options: readonly string[] = []): Promise<void> {
  if (lines.length === 0) return;
  const command = { input: textOf(lines), timeoutMs: COMMAND_MS };
  outputOf(['ip', '-batch'], await runCommand('ip', [...options, '-batch', '-'], command), command);
}

function textOf(lines: readonly string[]): string {
  return `${lines.join('\n')}\n`;
}

/** Throws where a command has failed. */
function outputOf(
  command: readonly string[],
  { code, stdout, stderr }: Outcome,
  { input = '' }: CommandOptions,
): string {
  if (code !== 0) throw new Error(`${command.join(' ')} ended with ${code}: ${stderr.trim()}\n${input}`);
  return stdout;
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await within(exit, 5000, `process ${child.pid} to end`);
}

/** A namespace lives on unseen while a process is inside: those are grandchildren of a test, and ended first. */
async function remove(namespace: string): Promise<void> {
  endProcesses(processesIn([namespace]));
  await runCommand('ip', ['netns', 'delete', namespace]).catch(() => undefined);
}

function processesIn(namespaces: readonly string[]): readonly number[] {
  const links = new Set(
    namespaces.map((name) => `net:[${statSync(`${NAMESPACES}/${name}`, { throwIfNoEntry: false })?.ino}]`),
  );
  const isInside = (pid: number): boolean => {
    try {
      return links.has(readlinkSync(`/proc/${pid}/ns/net`));
    } catch {
      // It ended in between.
      return false;
    }
  };
  return readdirSync('/proc').map(Number).filter(Boolean).filter(isInside);
}

function endProcesses(pids: readonly number[]): void {
  for (const pid of pids) if (pid > 1 && pid !== process.pid) endProcess(pid);
}

function endProcess(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended in between.
  }
}

async function removeOrphans(): Promise<void> {
  const { stdout } = await runCommand('ip', ['netns', 'list']);
  for (const line of stdout.split('\n')) {
    const [namespace = ''] = line.split(' ');
    const pid = Number(new RegExp(`^${PREFIX}-(\\d+)-`).exec(namespace)?.[1] ?? process.pid);
    if (!isRunning(pid)) await remove(namespace);
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}
