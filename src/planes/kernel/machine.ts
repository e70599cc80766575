import { networkInterfaces } from 'node:os';
import {
  fromBytes,
  isLoopback,
  parseCidr,
  parseIpAddress,
  type Cidr,
  type IpAddress,
} from '../../model/address.js';
import { BalancerError, errorCode } from '../../model/errors.js';
import type { TablePressure } from '../../model/events.js';
import type { Clock } from '../../runtime/clock.js';
import type { Files } from '../../runtime/files.js';
import type { TableUse } from '../contract.js';
import type { Tools } from '../netfilter/tools.js';
import type { KernelProgram } from './program.js';

/** A setting of the machine that a mode depends on. */
export interface NeededSysctl {
  /** `net.ipv4.ip_forward`. */
  readonly key: string;
  readonly value: number;
  /** What happens without it. */
  readonly why: string;
  /** Whether nothing at all is forwarded without it. */
  readonly fatal: boolean;
}

/** One that is not as it must be. */
export interface WrongSysctl extends NeededSysctl {
  readonly found: number;
}

/** What the mode needs. `interfaces`: names of the machine's links. */
export function neededSysctls(
  program: KernelProgram,
  interfaces: readonly string[],
): readonly NeededSysctl[] {
  const { mode } = program.options;
  const families = ([4, 6] as const).filter((family) =>
    program.frontends.some(({ address }) => address.family === family),
  );
  // The ingress of an interface sends on by itself, and a machine that only talks to itself forwards nothing.
  const forwards = mode !== 'floating-l2' && program.backends.some(({ address }) => !isLoopback(address));
  const forwarding = families.map((family) => ({
    key: family === 4 ? 'net.ipv4.ip_forward' : 'net.ipv6.conf.all.forwarding',
    ...{ value: 1, fatal: forwards, why: `no packet of IPv${family} is forwarded` },
  }));
  const redirects = ['all', ...interfaces].map((name) => ({
    key: `net.ipv4.conf.${slashed(name)}.send_redirects`,
    ...{ value: 0, fatal: false, why: 'senders are told of ways past this machine' },
  }));
  const reversePath = ['all', ...interfaces].map((name) => ({
    key: `net.ipv4.conf.${slashed(name)}.rp_filter`,
    ...{ value: 0, fatal: false, why: 'packets that are answered another way are dropped' },
  }));
  const isFour = families.includes(4);
  return [
    ...(forwards ? forwarding : []),
    ...(isFour && forwards ? redirects : []),
    ...(isFour && mode !== 'nat' ? reversePath : []),
    {
      key: 'net.netfilter.nf_conntrack_acct',
      ...{ value: 1, fatal: false, why: 'bytes and packets of flows are not counted' },
    },
    {
      key: 'net.netfilter.nf_conntrack_timestamp',
      ...{ value: 1, fatal: false, why: 'it is not known how old flows are that began before this process' },
    },
  ];
}

/** Those that are otherwise. A kernel without the setting needs it not, or not yet. Never rejects. */
export async function wrongSysctls(
  tools: Tools,
  needed: readonly NeededSysctl[],
): Promise<readonly WrongSysctl[]> {
  if (needed.length === 0) return [];
  // It fails where one is not there, and tells the others all the same.
  const { stdout } = await tools.run(
    'sysctl',
    needed.map(({ key }) => key),
  );
  const found = new Map(
    stdout.split('\n').flatMap((line) => {
      const [key, value] = line.split(' = ');
      return key === undefined || value === undefined ? [] : [[key.trim(), Number(value)] as const];
    }),
  );
  return needed.flatMap((one) => {
    const value = found.get(one.key);
    return value === undefined || value === one.value ? [] : [{ ...one, found: value }];
  });
}

/** Sets them. Those that could not be are given back. */
export async function setSysctls(
  tools: Tools,
  wrong: readonly WrongSysctl[],
): Promise<readonly WrongSysctl[]> {
  if (wrong.length === 0) return [];
  await tools.run('sysctl', ['-q', '-w', ...wrong.map(({ key, value }) => `${key}=${value}`)]);
  return wrongSysctls(tools, wrong);
}

/** `net.ipv4.ip_forward is 0, must be 1: no packet of IPv4 is forwarded. Run: sysctl -w net.ipv4.ip_forward=1`. */
export function sysctlText({ key, value, found, why }: WrongSysctl): string {
  return `${key} is ${found}, must be ${value}: ${why}. Run: sysctl -w ${key}=${value}`;
}

/** The error of a start that cannot work; undefined: it can. */
export function sysctlError(wrong: readonly WrongSysctl[]): BalancerError | undefined {
  const fatal = wrong.filter((one) => one.fatal);
  if (fatal.length === 0) return undefined;
  const message = `${fatal.map(sysctlText).join('; ')}; or set dataPlane.kernel.manageSysctls`;
  return new BalancerError(message, { code: 'LB_KERNEL_UNSUPPORTED', source: 'system' });
}

/** sysctl(8) has dots in names of interfaces as slashes. */
function slashed(name: string): string {
  return name.replaceAll('.', '/');
}

export interface MachineDeps {
  readonly tools: Tools;
  /** Names of the machine's links. */
  readonly interfaces: () => readonly string[];
  /** What people should know about this machine. */
  readonly onWarning: (text: string) => void;
}

/** Settings of the machine: set where that is allowed, else told of. Rejects where nothing could be forwarded. */
export async function prepareMachine(
  { tools, interfaces, onWarning }: MachineDeps,
  program: KernelProgram,
): Promise<void> {
  let wrong = await wrongSysctls(tools, neededSysctls(program, interfaces()));
  if (program.options.manageSysctls) {
    const left = await setSysctls(tools, wrong);
    for (const one of wrong) {
      if (left.some(({ key }) => key === one.key)) continue;
      onWarning(`${one.key} was ${one.found} and is ${one.value} now, as manageSysctls asks`);
    }
    wrong = left;
  }
  const error = sysctlError(wrong);
  if (error !== undefined) throw error;
  // Whoever tells of flows says what he misses of these.
  for (const one of wrong) if (!one.key.startsWith('net.netfilter.')) onWarning(sysctlText(one));
}

const FOLDER = '/proc/sys/net/netfilter';

/** What a socket of conntrack may hold before events are lost: it does not get the buffer that conntrack -b asks for. */
const BUFFER = '/proc/sys/net/core/rmem_default';

/** An event takes 1,280 bytes of it, as measured: room for 6,500, a third of a second of 20,000 new flows a second. */
const WANTED_BUFFER_BYTES = 8_388_608;
const EVENT_BYTES = 1280;

/** What flows cannot tell of themselves for want of a sysctl, a sentence each. `followed`: by events. Never rejects. */
export async function missingAccounts(
  files: Files,
  { followed }: { readonly followed: boolean },
): Promise<readonly string[]> {
  const events = [
    'nf_conntrack_events',
    'Flows are seen when they are looked for, not when they come and go',
  ];
  const wanted = [
    ['nf_conntrack_acct', 'Bytes and packets of flows are not counted'],
    ...(followed ? [events] : []),
    ['nf_conntrack_timestamp', 'Flows older than this process seem to begin with it'],
  ];
  const missing = await Promise.all(
    wanted.map(async ([name, effect]) => {
      const value = await readNumber(files, `${FOLDER}/${name}`);
      return value === undefined || value > 0 ? [] : [`${effect}: net.netfilter.${name} is 0, must be 1`];
    }),
  );
  const bytes = followed ? await readNumber(files, BUFFER) : undefined;
  if (bytes === undefined || bytes >= WANTED_BUFFER_BYTES) return missing.flat();
  const room = Math.floor(bytes / EVENT_BYTES);
  const late = `Of more than ${room} flows that come or go at once some are found late, and short ones never`;
  return [...missing.flat(), `${late}: net.core.rmem_default is ${bytes}, should be ${WANTED_BUFFER_BYTES}`];
}

async function readNumber(files: Files, path: string): Promise<number | undefined> {
  try {
    const value = Number((await files.readText(path)).trim());
    return Number.isFinite(value) ? value : undefined;
  } catch (error) {
    // Conntrack is a module that may not be loaded yet.
    if (errorCode(error) !== undefined) return undefined;
    throw error;
  }
}

const LOOK_MS = 1000;

/** Early enough to do something about it; as for source ports. */
const HIGH = 0.75;
/** Lower, so that it does not come and go. */
const NORMAL = 0.7;

/** Looks every second how full the machine's conntrack is, and reports when that becomes, or ceases to be, a danger. */
export class ConntrackUse {
  readonly #deps: { readonly clock: Clock; readonly files: Files };
  readonly #emit: (event: TablePressure) => void;
  #level: TablePressure['pressure'] = 'normal';
  #use: TableUse | undefined;
  #cancel: (() => void) | undefined;

  constructor(deps: { readonly clock: Clock; readonly files: Files }, emit: (event: TablePressure) => void) {
    this.#deps = deps;
    this.#emit = emit;
  }

  /** All entries, everybody's, when last looked; undefined: there is no conntrack. */
  get use(): TableUse | undefined {
    return this.#use;
  }

  /** Resolves when it has looked for the first time. Does not keep the process alive. */
  async start(): Promise<void> {
    this.#cancel = () => undefined;
    await this.#look();
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  async #look(): Promise<void> {
    const [used, limit] = await Promise.all(
      ['count', 'max'].map((name) => readNumber(this.#deps.files, `${FOLDER}/nf_conntrack_${name}`)),
    );
    if (this.#cancel === undefined) return;
    this.#use = used === undefined || limit === undefined ? undefined : { used, limit };
    if (this.#use !== undefined) this.#judge(this.#use);
    this.#cancel = this.#deps.clock.setTimer(LOOK_MS, () => void this.#look(), { unref: true });
  }

  #judge({ used, limit }: TableUse): void {
    const share = limit === 0 ? 0 : used / limit;
    const calm = this.#level === 'normal' ? HIGH : NORMAL;
    const level = share >= 1 ? 'exhausted' : share >= calm ? 'high' : 'normal';
    if (level === this.#level) return;
    this.#level = level;
    this.#emit({ type: 'table-pressure', atMs: this.#deps.clock.wallMs(), pressure: level, used, limit });
  }
}

/** Names of the machine's links, but for loopback. */
export function ownInterfaces(interfaces = networkInterfaces()): readonly string[] {
  return Object.entries(interfaces).flatMap(([name, entries]) =>
    entries?.some(({ internal }) => internal) === true ? [] : [name],
  );
}

/** Networks of the machine's own links, as they are now; loopback and link-local ones are not among them. */
export function ownNetworks(interfaces = networkInterfaces()): readonly Cidr[] {
  const found = new Map<string, Cidr>();
  for (const entries of Object.values(interfaces)) {
    for (const entry of entries ?? []) {
      if (entry.internal || (entry.family === 'IPv6' && entry.scopeid !== 0)) continue;
      const network = networkOf(entry.cidr ?? '');
      if (network !== undefined) found.set(network.text, network);
    }
  }
  return [...found.values()].sort((a, b) => (a.text < b.text ? -1 : 1));
}

/** The block that an address with a prefix length lies in; undefined for an address alone. */
function networkOf(cidr: string): Cidr | undefined {
  const [text = '', prefixText] = cidr.split('/');
  const address = parseIpAddress(text);
  const prefixLength = Number(prefixText);
  if (address === undefined || prefixLength >= address.bytes.length * 8) return undefined;
  return parseCidr(`${masked(address, prefixLength).text}/${prefixLength}`);
}

function masked({ bytes }: IpAddress, prefixLength: number): IpAddress {
  return fromBytes(
    bytes.map((byte, index) => {
      const kept = Math.max(0, Math.min(8, prefixLength - index * 8));
      return byte & (0xff00 >> kept);
    }),
  );
}
