import { spawn, spawnSync, type ChildProcess, type SpawnOptions } from 'node:child_process';
import { runCommand, type Outcome } from './commands.js';
import { within } from './deadline.js';

/*
 * Network namespaces for tests that change the kernel's state: nothing of the machine itself is touched. Names hold
 * the process id of the test, so that what a killed test has left behind is found and removed by the next one.
 */

const PREFIX = 'haptest';
const TOOLS = ['ip', 'nft', 'conntrack'];
let labs = 0;

/** The reason to skip, to be printed; false where namespaces can be made and all tools, `also` among them, are there. */
export function whyNoNamespaces(...also: readonly string[]): string | false {
  if (process.platform !== 'linux') return 'network namespaces need Linux';
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  const missing = [...TOOLS, ...also].filter(
    (tool) => spawnSync('sh', ['-c', `command -v ${tool}`]).status !== 0,
  );
  if (missing.length > 0) return `not installed: ${missing.join(', ')}`;
  const own = `${PREFIX}-${process.pid}-trial`;
  const made = spawnSync('ip', ['netns', 'add', own], { encoding: 'utf8' });
  if (made.status !== 0) return `network namespaces are refused: ${made.stderr.trim()}`;
  const tables = spawnSync('ip', ['netns', 'exec', own, 'nft', 'list', 'ruleset'], { encoding: 'utf8' });
  spawnSync('ip', ['netns', 'delete', own]);
  return tables.status === 0 ? false : `nftables is refused in a network namespace: ${tables.stderr.trim()}`;
}

/** One side of a veth pair: its namespace, and its addresses with prefix length, IPv4 and IPv6. */
export interface LinkEnd {
  readonly in: string;
  readonly addresses: readonly string[];
}

/** Namespaces with short names, what joins them, and the processes started in them. Whoever creates it closes it. */
export class NamespaceLab {
  readonly #tag: string;
  readonly #names = new Set<string>();
  readonly #children = new Set<ChildProcess>();
  readonly #atExit = (): void => {
    for (const name of this.#names) spawnSync('ip', ['netns', 'delete', this.full(name)]);
  };

  private constructor(tag: string) {
    this.#tag = tag;
  }

  /** Each with its loopback up. Removes first what tests that are no more have left. */
  static async create(...names: readonly string[]): Promise<NamespaceLab> {
    await removeOrphans();
    const lab = new NamespaceLab(`${PREFIX}-${process.pid}-${++labs}`);
    process.once('exit', lab.#atExit);
    try {
      for (const name of names) {
        await must('ip', ['netns', 'add', lab.full(name)]);
        lab.#names.add(name);
        await must('ip', ['-n', lab.full(name), 'link', 'set', 'lo', 'up']);
        // Link-local addresses too are then final at once.
        await lab.sysctl(name, 'net.ipv6.conf.default.accept_dad', 0);
      }
    } catch (error) {
      await lab.close();
      throw error;
    }
    return lab;
  }

  /** The name that `ip netns` knows. */
  full(name: string): string {
    return `${this.#tag}-${name}`;
  }

  /** What comes before a command line so that it runs inside. `ip` becomes the program: the process id stays. */
  prefix(name: string): readonly string[] {
    return ['ip', 'netns', 'exec', this.full(name)];
  }

  /** A veth pair; each device is named after the namespace at its other end (15 characters at most). */
  async link(a: LinkEnd, b: LinkEnd): Promise<void> {
    const ends = `link add ${b.in} netns ${this.full(a.in)} type veth peer name ${a.in} netns ${this.full(b.in)}`;
    await must('ip', ends.split(' '));
    for (const [end, device] of [
      [a, b.in],
      [b, a.in],
    ] as const) {
      await this.ip(end.in, `link set ${device} up`);
      await this.address(end.in, device, ...end.addresses);
    }
  }

  /** Addresses with prefix length; IPv6 without duplicate address detection, usable at once. */
  async address(name: string, device: string, ...addresses: readonly string[]): Promise<void> {
    for (const address of addresses) {
      const nodad = address.includes(':') ? ' nodad' : '';
      await this.ip(name, `address add ${address} dev ${device}${nodad}`);
    }
  }

  /** `ip` inside the namespace, words apart by one space. Rejects when it fails. */
  async ip(name: string, command: string): Promise<string> {
    return must('ip', ['-n', this.full(name), ...command.split(' ')]);
  }

  /** `net.ipv4.ip_forward`. */
  async sysctl(name: string, key: string, value: number | string): Promise<void> {
    const path = `/proc/sys/${key.replaceAll('.', '/')}`;
    await this.must(name, 'sh', ['-c', `echo ${value} > ${path}`]);
  }

  /** Runs a program inside to its end, whatever its exit code. */
  async run(
    name: string,
    program: string,
    args: readonly string[],
    options: { readonly input?: string; readonly timeoutMs?: number } = {},
  ): Promise<Outcome> {
    return runCommand('ip', ['netns', 'exec', this.full(name), program, ...args], options);
  }

  /** Runs a program inside to its end and gives its output. Rejects when it fails. */
  async must(
    name: string,
    program: string,
    args: readonly string[],
    options: { readonly input?: string; readonly timeoutMs?: number } = {},
  ): Promise<string> {
    return must('ip', ['netns', 'exec', this.full(name), program, ...args], options);
  }

  /** Loads an nft script inside. Rejects when nft refuses it. */
  async nft(name: string, script: string): Promise<void> {
    await this.must(name, 'nft', ['-f', '-'], { input: script });
  }

  /** Starts a process inside, which `close` ends if nobody has. Its pid is that of the program. */
  spawn(
    name: string,
    program: string,
    args: readonly string[],
    options: SpawnOptions = { stdio: ['pipe', 'pipe', 'pipe'] },
  ): ChildProcess {
    const child = spawn('ip', ['netns', 'exec', this.full(name), program, ...args], options);
    this.#children.add(child);
    child.once('exit', () => this.#children.delete(child));
    child.once('error', () => this.#children.delete(child));
    return child;
  }

  /** Ends all processes inside, by their ids, and deletes the namespaces with all that is in them. Never rejects. */
  async close(): Promise<void> {
    await Promise.allSettled([...this.#children].map((child) => kill(child)));
    for (const name of this.#names) await remove(this.full(name));
    this.#names.clear();
    process.removeListener('exit', this.#atExit);
  }
}

async function must(
  program: string,
  args: readonly string[],
  options: { readonly input?: string; readonly timeoutMs?: number } = {},
): Promise<string> {
  const { code, stdout, stderr } = await runCommand(program, args, options);
  if (code !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${code}: ${stderr.trim()}`);
  return stdout;
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  child.kill('SIGKILL');
  await within(exit, 5000, `process ${child.pid} to end`);
}

/** A namespace lives on unseen while a process is inside: those are grandchildren of a test, and ended first. */
async function remove(full: string): Promise<void> {
  const inside = await runCommand('ip', ['netns', 'pids', full]).catch(() => undefined);
  for (const pid of inside?.stdout.split('\n').map(Number) ?? []) {
    if (pid > 1 && pid !== process.pid) endProcess(pid);
  }
  await runCommand('ip', ['netns', 'delete', full]).catch(() => undefined);
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
    const [full = ''] = line.split(' ');
    const pid = Number(new RegExp(`^${PREFIX}-(\\d+)-`).exec(full)?.[1] ?? process.pid);
    if (!isRunning(pid)) await remove(full);
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
