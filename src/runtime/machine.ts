import { networkInterfaces } from 'node:os';
import { cidrContains, ipAddress, isLoopback, parseCidr, type IpAddress } from '../model/address.js';
import { errorCode } from '../model/errors.js';
import { systemFiles, type Files } from './files.js';

/**
 * How many files and sockets this process may have open (its soft RLIMIT_NOFILE); undefined where none is set. That is
 * the hard limit as well: Node raises the one to the other when it starts (src/node.cc, PlatformInit), so only who raises
 * the hard limit gives it more. To be asked before there are many sockets: Node's report looks up a host name for each
 * of them, one after another.
 */
export function descriptorLimit(): number | undefined {
  const report: unknown = process.report.getReport();
  const limits = member(report, 'userLimits');
  const soft = member(member(limits, 'open_files'), 'soft');
  return typeof soft === 'number' ? soft : undefined;
}

function member(value: unknown, key: string): unknown {
  if (typeof value !== 'object' || value === null) return undefined;
  return (value as Readonly<Record<string, unknown>>)[key];
}

export interface ResidentMemory {
  /** This one and its children. */
  readonly processes: number;
  /** Resident set sizes added up: pages that several share count for each. What sockets take of the kernel is not in it. */
  readonly bytes: number;
}

/** Of this process and its children; undefined where the system has no /proc. */
export async function residentMemory(files: Files = systemFiles): Promise<ResidentMemory | undefined> {
  try {
    const { pid } = process;
    const children = await files.readText(`/proc/${pid}/task/${pid}/children`);
    const pids = [String(pid), ...children.split(' ').filter((child) => child.trim() !== '')];
    const sizes = await Promise.all(pids.map((one) => residentBytes(files, one.trim())));
    return { processes: pids.length, bytes: sizes.reduce((sum, size) => sum + size, 0) };
  } catch {
    return undefined;
  }
}

/** 0 for one that has ended meanwhile. */
async function residentBytes(files: Files, pid: string): Promise<number> {
  const status = await files.readText(`/proc/${pid}/status`).catch(() => '');
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
}

interface Candidate {
  readonly source: IpAddress;
  readonly prefixLength: number;
  readonly isNeighbour: boolean;
}

/**
 * Local addresses to try towards a destination, best first, where the system cannot be asked: with a listener on every
 * port it finds none for a socket without an address. First those that share a network with it, the longest prefix first, then
 * the machine's others as the system lists them, those that stand alone (a frontend's /32) last. Loopback for loopback.
 */
export function localCandidates(
  destination: IpAddress,
  interfaces: ReturnType<typeof networkInterfaces> = networkInterfaces(),
): readonly IpAddress[] {
  const { family } = destination;
  if (isLoopback(destination)) return [ipAddress(family === 4 ? '127.0.0.1' : '::1')];
  const found: Candidate[] = [];
  for (const entries of Object.values(interfaces)) {
    for (const { address, cidr, internal } of entries ?? []) {
      if (internal || cidr === null) continue;
      const source = ipAddress(address);
      // Means nothing without its interface, and reaches nobody beyond it.
      if (source.family !== family || isLinkLocal(source)) continue;
      const prefixLength = Number(cidr.split('/')[1]);
      found.push({ source, prefixLength, isNeighbour: sharesNetwork(source, destination, prefixLength) });
    }
  }
  const rank = ({ isNeighbour, prefixLength }: Candidate): number => {
    if (isNeighbour) return -prefixLength;
    return prefixLength === (family === 4 ? 32 : 128) ? 2 : 1;
  };
  return found.sort((a, b) => rank(a) - rank(b)).map(({ source }) => source);
}

/**
 * Connects from the address that the system chooses. With a listener on every port it finds no port for a socket without
 * an address (EADDRNOTAVAIL), but does for one that has an address of which not every port is listened on: then each
 * local candidate is tried. Rejects with the first error where none of them has a port either.
 */
export async function fromAnyAddress<T>(
  destination: () => IpAddress | Promise<IpAddress>,
  connect: (source: IpAddress | undefined) => Promise<T>,
): Promise<T> {
  const isShortOfPorts = (error: unknown): boolean =>
    ['EADDRNOTAVAIL', 'EADDRINUSE'].includes(errorCode(error) ?? '');
  try {
    return await connect(undefined);
  } catch (error) {
    if (!isShortOfPorts(error)) throw error;
    for (const candidate of localCandidates(await destination())) {
      try {
        return await connect(candidate);
      } catch (failure) {
        // That address has no port either: a fully bound frontend's.
        if (!isShortOfPorts(failure)) throw failure;
      }
    }
    throw error;
  }
}

/** fe80::/10. */
function isLinkLocal({ family, bytes: [first = 0, second = 0] }: IpAddress): boolean {
  return family === 6 && first === 0xfe && (second & 0xc0) === 0x80;
}

function sharesNetwork(a: IpAddress, b: IpAddress, prefixLength: number): boolean {
  const block = parseCidr(a.text.split('%')[0] ?? '');
  return block !== undefined && cidrContains({ ...block, prefixLength }, b);
}
