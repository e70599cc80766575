import { ipAddress, type IpAddress } from '../model/address.js';
import {
  fine,
  note,
  problem,
  warning,
  type DoctorFinding,
  type DoctorMachine,
  type ConnectOutcome,
} from './machine.js';

/*
 * Paths that exist for one TCP connection: what is added to this machine's routing is removed again, and what a crash has
 * left behind is removed first.
 */

/** Ahead of the rules of an instance (680), and behind the table of local addresses (0). */
const PREFERENCE = '679';
/** As in planes/netfilter/routing.ts. */
const ROUTE_PROTOCOL = '104';
const FIRST_TABLE = 679_000;
/** Beside the range that the kernel takes ports from. */
const FIRST_PORT = 61_000;

/** For documentation (RFC 5737, RFC 3849), so a backend sends to its default gateway. */
const FOREIGN_ADDRESSES = { 4: '192.0.2.254', 6: '2001:db8::254' } as const;

/**
 * A connection to the frontend's address, sent to one backend by its source port: answers are those of that backend with
 * that address. `index` tells tries apart that run at a time.
 */
export async function connectThrough(
  machine: DoctorMachine,
  { frontend, backend }: Readonly<Record<'frontend' | 'backend', IpAddress>>,
  { port, index }: Readonly<Record<'port' | 'index', number>>,
): Promise<ConnectOutcome> {
  const fromPort = FIRST_PORT + index;
  const table = String(FIRST_TABLE + index);
  const family = `-${frontend.family}`;
  const prefix = `${frontend.text}/${frontend.family === 4 ? 32 : 128}`;
  const gateway = backend.text.split('%', 1)[0] ?? '';
  const route = [prefix, 'via', gateway, 'table', table, 'proto', ROUTE_PROTOCOL];
  const rule = [
    ...['pref', PREFERENCE, 'to', prefix, 'ipproto', 'tcp', 'sport', String(fromPort)],
    ...['lookup', table, 'protocol', ROUTE_PROTOCOL],
  ];
  const placed = await machine.run('ip', [family, 'route', 'replace', ...route]);
  if (placed.exitCode !== 0) return placed.stderr.trim().split('\n')[0] ?? 'no route';
  try {
    const ruled = await machine.run('ip', [family, 'rule', 'add', ...rule]);
    if (ruled.exitCode !== 0) return ruled.stderr.trim().split('\n')[0] ?? 'no rule';
    return await machine.connect({ to: frontend, port, fromPort });
  } finally {
    await machine.run('ip', [family, 'rule', 'del', ...rule]);
    await machine.run('ip', [family, 'route', 'del', ...route]);
  }
}

/** A connection from a foreign address: answers come back only where the backend routes them through this machine. */
export async function connectFromForeignAddress(
  machine: DoctorMachine,
  { backend, port }: { readonly backend: IpAddress; readonly port: number },
): Promise<ConnectOutcome> {
  return machine.connect({ to: backend, port, fromAddress: foreignAddress(backend.family) });
}

function foreignAddress(family: 4 | 6): IpAddress {
  return ipAddress(FOREIGN_ADDRESSES[family]);
}

/** Gives this machine the foreign address for as long as the work takes. */
export async function withForeignAddress<T>(
  machine: DoctorMachine,
  family: 4 | 6,
  work: () => Promise<T>,
): Promise<T> {
  const address = foreignAddress(family);
  const prefix = `${address.text}/${address.family === 4 ? 32 : 128}`;
  const args = [prefix, 'dev', 'lo', ...(address.family === 6 ? ['nodad'] : [])];
  await machine.run('ip', [`-${address.family}`, 'address', 'add', ...args]);
  try {
    return await work();
  } finally {
    await machine.run('ip', [`-${address.family}`, 'address', 'del', prefix, 'dev', 'lo']);
  }
}

/** Removes what an interrupted doctor has left behind. */
export async function removeLeftovers(machine: DoctorMachine): Promise<void> {
  for (const family of ['-4', '-6']) {
    const deletion = [family, 'rule', 'del', 'pref', PREFERENCE, 'protocol', ROUTE_PROTOCOL];
    // One rule goes at a time.
    let isGone = true;
    for (let left = 1001; isGone && left > 0; left -= 1) {
      isGone = (await machine.run('ip', deletion)).exitCode === 0;
    }
  }
}

/** The largest packet that reaches an address whole. */
export type PathMtu =
  | { readonly kind: 'measured'; readonly bytes: number; readonly toldBy?: string; readonly isTold: boolean }
  | { readonly kind: 'unknown'; readonly why: string };

/** IP and ICMP header of an echo request. */
const HEADER_BYTES = { 4: 28, 6: 48 } as const;
/** Every host takes that: RFC 791 (reassembled), RFC 8200. */
const SMALLEST_MTU = { 4: 576, 6: 1280 } as const;
/** IP and TCP header. */
const TCP_HEADER_BYTES = { 4: 40, 6: 60 } as const;
/** Sizes that are tried at a time: 1500 is found in three rounds. */
const AT_ONCE = 8;

/** What a ping of one size has shown. */
interface Echo {
  readonly fits: boolean;
  /** What a router on the way, or this machine, has said that fits. */
  readonly told?: { readonly bytes: number; readonly by?: string };
  /** Why nothing can be known from it. */
  readonly failure?: string;
}

/**
 * Measures with echo requests that may not be fragmented, from `mtu` bytes down. What routers on the way say, or have said
 * to the kernel before, is tried first. Takes up to five seconds where packets vanish; never rejects.
 */
async function measurePath(machine: DoctorMachine, to: IpAddress, mtu: number): Promise<PathMtu> {
  const smallest: number = SMALLEST_MTU[to.family];
  const [large, small] = await Promise.all([
    echo(machine, to, mtu),
    echo(machine, to, Math.min(smallest, mtu)),
  ]);
  if (large.fits) return { kind: 'measured', bytes: mtu, isTold: false };
  if (large.failure !== undefined) return { kind: 'unknown', why: large.failure };
  if (!small.fits) return { kind: 'unknown', why: 'it does not answer echo requests' };
  let [low, high, last] = [smallest, mtu, large];
  while (last.told !== undefined && last.told.bytes > low && last.told.bytes < high) {
    const { bytes, by } = last.told;
    last = await echo(machine, to, bytes);
    if (last.fits) return { kind: 'measured', bytes, isTold: true, toldBy: by };
    high = bytes;
  }
  while (high - low > 1) {
    const sizes = between(low, high);
    const echoes = await Promise.all(sizes.map((size) => echo(machine, to, size)));
    const fitting = echoes.filter(({ fits }) => fits).length;
    [low, high] = [sizes[fitting - 1] ?? low, sizes[fitting] ?? high];
  }
  return { kind: 'measured', bytes: low, isTold: false };
}

/** Evenly, without both ends, ascending. */
function between(low: number, high: number): readonly number[] {
  const count = Math.min(AT_ONCE, high - low - 1);
  return Array.from({ length: count }, (_, index) =>
    Math.floor(low + ((index + 1) * (high - low)) / (count + 1)),
  );
}

async function echo(machine: DoctorMachine, { family, text }: IpAddress, bytes: number): Promise<Echo> {
  const size = String(bytes - HEADER_BYTES[family]);
  // Two, for one may be lost. `do`: not to be cut up, here neither.
  const args = [`-${family}`, '-n', '-M', 'do', '-c', '2', '-i', '0.2', '-W', '1', '-s', size, text];
  const { exitCode, stdout, stderr, failure } = await machine.run('ping', args);
  if (exitCode === 0) return { fits: true };
  if (failure === 'ENOENT')
    return { fits: false, failure: 'ping is not installed (apt-get install iputils-ping)' };
  const said = `${stdout}\n${stderr}`;
  const hint = /(?:Frag needed|too (?:big|long)).*?mtu ?[=:] ?(\d+)/i.exec(said)?.[1];
  if (hint !== undefined) {
    const by = /^From (\S+) .*(?:Frag needed|too big)/im.exec(said)?.[1];
    return { fits: false, told: { bytes: Number(hint), by } };
  }
  if (exitCode === 1) return { fits: false };
  return { fits: false, failure: failure ?? `ping says "${stderr.trim().split('\n')[0] ?? ''}"` };
}

export interface PathQuestion {
  readonly to: IpAddress;
  /** Largest packet that leaves for it: of the interface that packets come in by, or go out by. */
  readonly mtu: number;
  /** How packets come back: through this machine, or past it. */
  readonly answers: 'through' | 'past';
}

/** What the path to a backend takes, with what to do where that is less than what may be sent to it. */
export async function pathMtuFinding(machine: DoctorMachine, question: PathQuestion): Promise<DoctorFinding> {
  const { to, mtu } = question;
  const path = await measurePath(machine, to, mtu);
  if (path.kind === 'unknown') return note(`Path MTU not measured: ${path.why}`);
  const { bytes, isTold, toldBy } = path;
  if (bytes >= mtu) return fine(`Packets of ${bytes} bytes arrive whole (path MTU)`);
  const text = `The path to it takes packets of ${bytes} bytes, and ${mtu} bytes may be sent (path MTU)`;
  const fixes = fixesOf(question, bytes);
  if (!isTold) {
    return problem(`${text}: larger ones are dropped silently: connections open and then stall`, ...fixes);
  }
  const told = toldBy === undefined ? 'a router has said so before' : `${toldBy} says so`;
  const forget = toldBy === undefined ? ['if that is already fixed: ip route flush cache'] : [];
  return warning(
    `${text}: ${told}, which helps where its ICMP errors get to the clients`,
    ...fixes,
    ...forget,
  );
}

function fixesOf({ to, mtu, answers }: PathQuestion, bytes: number): readonly string[] {
  const segment = bytes - TCP_HEADER_BYTES[to.family];
  return [
    `on what is between: an MTU of ${mtu} on all interfaces`,
    answers === 'through'
      ? `or here: nft add rule inet filter forward ip${to.family === 6 ? '6' : ''} daddr ${to.text} tcp flags syn tcp option maxseg size set ${segment}, and the same with saddr`
      : `or on the backend, where answers do not pass here: ip -${to.family} route change default via <its gateway> advmss ${segment}`,
  ];
}
