import { endianness } from 'node:os';
import { PROTOCOLS, fromBytes, isWildcard, type IpAddress, type Protocol } from '../../model/address.js';
import { captureSlots, type CapturePlan } from '../../model/capture.js';
import type { Configuration, Rule } from '../../model/configuration.js';
import { errorCode } from '../../model/errors.js';
import type { ListenFailure } from '../../model/events.js';
import { portSetOf, subtractPorts, unionPorts, type PortSet } from '../../model/ports.js';
import { NO_RULE, RulePorts } from '../../selection/rule-ports.js';
import type { CaptureInput, CapturedFrontend } from './table.js';

/** A TCP port with a listener, or a UDP port whose socket is not connected. */
export interface PortInUse {
  readonly protocol: Protocol;
  /** `0.0.0.0` or `::` where it is all of the machine's. */
  readonly address: IpAddress;
  readonly port: number;
  /** Of the socket, as /proc/<pid>/fd names it: `socket:[<inode>]`. */
  readonly inode: string;
}

export type ReadChunks = (path: string) => AsyncIterable<Uint8Array>;

/** From include/net/tcp_states.h, as /proc/net writes it. A UDP socket that is not connected is in that of `close`. */
const WANTED_STATE: Readonly<Record<Protocol, string>> = { tcp: '0A', udp: '07' };

const TABLES: readonly { readonly path: string; readonly protocol: Protocol }[] = [
  { path: '/proc/net/tcp', protocol: 'tcp' },
  { path: '/proc/net/tcp6', protocol: 'tcp' },
  { path: '/proc/net/udp', protocol: 'udp' },
  { path: '/proc/net/udp6', protocol: 'udp' },
];

/**
 * The ports in use in this network namespace, of all processes. A UDP socket that is not connected counts, be it a
 * server or a client that waits for an answer: the kernel knows no difference, and another socket could not be bound
 * there either. Rejects with the system's error, save that a family which the machine lacks has no ports.
 */
export async function portsInUse(readChunks: ReadChunks): Promise<readonly PortInUse[]> {
  const found: PortInUse[] = [];
  for (const { path, protocol } of TABLES) {
    try {
      await readTable(readChunks(path), protocol, found);
    } catch (error) {
      if (errorCode(error) !== 'ENOENT') throw error;
    }
  }
  return found;
}

async function readTable(
  chunks: AsyncIterable<Uint8Array>,
  protocol: Protocol,
  found: PortInUse[],
): Promise<void> {
  const addresses = new Map<string, IpAddress>();
  let rest = '';
  for await (const chunk of chunks) {
    const lines = (rest + Buffer.from(chunk).toString('latin1')).split('\n');
    rest = lines.pop() ?? '';
    const before = found.length;
    for (const line of lines) {
      const port = parseLine(line, protocol, addresses);
      if (port !== undefined) found.push(port);
    }
    // The kernel lists listeners before connections (tcp_seq_start), of which there may be hundreds of thousands.
    if (protocol === 'tcp' && lines.length > 1 && found.length === before) return;
  }
  const last = parseLine(rest, protocol, addresses);
  if (last !== undefined) found.push(last);
}

/** `   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12345 ...` */
function parseLine(
  line: string,
  protocol: Protocol,
  addresses: Map<string, IpAddress>,
): PortInUse | undefined {
  const [, local = '', , state, , , , , , inode = ''] = line.trim().split(/\s+/, 10);
  const colon = local.indexOf(':');
  if (state !== WANTED_STATE[protocol] || colon === -1) return undefined;
  const hex = local.slice(0, colon);
  let address = addresses.get(hex);
  if (address === undefined) {
    address = addressOf(hex);
    addresses.set(hex, address);
  }
  return { protocol, address, port: Number.parseInt(local.slice(colon + 1), 16), inode };
}

/** Words of 32 bits, each as the machine holds it. */
function addressOf(hex: string): IpAddress {
  const words = hex.match(/.{8}/g) ?? [];
  const isLittle = endianness() === 'LE';
  return fromBytes(
    words.flatMap((word) => {
      const bytes = (word.match(/../g) ?? []).map((byte) => Number.parseInt(byte, 16));
      return isLittle ? bytes.reverse() : bytes;
    }),
  );
}

/** What it takes to look into /proc. */
export interface ProcFiles {
  /** See Files.readText. */
  readonly readText: (path: string) => Promise<string>;
  /** See readLinks in files.ts. */
  readonly readLinks: (folder: string) => Promise<ReadonlyMap<string, string>>;
}

/**
 * Inodes of the sockets that a process and its children have open, as PortInUse has them. What cannot be read (a child
 * that has just ended, a kernel that tells no children) counts as none. Takes some 20 ms for 1,000 descriptors.
 */
export async function ownSockets(
  { readText, readLinks }: ProcFiles,
  pid: number,
): Promise<ReadonlySet<string>> {
  const children = await readText(`/proc/${pid}/task/${pid}/children`).catch(() => '');
  const inodes = new Set<string>();
  for (const one of [String(pid), ...children.split(' ').filter(Boolean)]) {
    const links = await readLinks(`/proc/${one}/fd`).catch(() => new Map<string, string>());
    for (const target of links.values()) {
      const inode = /^socket:\[(\d+)\]$/.exec(target)?.[1];
      if (inode !== undefined) inodes.add(inode);
    }
  }
  return inodes;
}

export interface CaptureInputs {
  /** What is to be steered to the sockets of the data plane. */
  readonly input: CaptureInput;
  /** Ports that other sockets of this machine have, which are therefore left alone. */
  readonly failures: readonly ListenFailure[];
  /** Those sockets. */
  readonly taken: readonly PortInUse[];
}

/** The data plane forgets a flow first: so much longer does the kernel remember it. */
const UDP_MARGIN_SECONDS = 60;

/** What a configuration steers, and what of it cannot be. `inUse`: ports of other processes. Pure. */
export function captureInputs(
  configuration: Configuration,
  plan: CapturePlan,
  inUse: readonly PortInUse[],
): CaptureInputs {
  const { instance, frontends, rules, workers } = configuration;
  const slots = captureSlots(
    frontends.map(({ address }) => address),
    plan.block,
  );
  const rulePorts = new RulePorts(rules);
  const others = inUse.filter((port) => !isOwn(port, plan));
  const failures: ListenFailure[] = [];
  const sockets = new Set<PortInUse>();
  const wished = frontends.map((frontend): CapturedFrontend => {
    const { name, address } = frontend;
    const ports: Record<Protocol, PortSet> = { tcp: [], udp: [] };
    for (const protocol of PROTOCOLS) {
      if (protocol === 'udp' && plan.udp === 'bind') continue;
      const owners = rulePorts.at(protocol, address);
      const ruleOf = (port: number): Rule | undefined => rules[owners.ownerOf(port)];
      const inTheWay = others.filter(
        (other) => other.protocol === protocol && covers(other, address) && ruleOf(other.port) !== undefined,
      );
      for (const socket of inTheWay) sockets.add(socket);
      const taken = [...new Set(inTheWay.map(({ port }) => port))].sort((a, b) => a - b);
      ports[protocol] = subtractPorts(unionPorts(owners.segments, []), portSetOf(...taken));
      for (const port of taken) {
        const rule = ruleOf(port)?.name ?? '';
        failures.push({ rule, protocol, port, address: address.text, errorCode: 'EADDRINUSE' });
      }
    }
    const slot = slots.get(address.text) ?? -1;
    return { name, address, ports, slot };
  });
  return {
    input: {
      ...{ instance, plan, frontends: wished, workers: Math.max(1, workers) },
      udpEntrySeconds: udpEntrySeconds(configuration),
    },
    failures,
    taken: [...sockets],
  };
}

/** TCP sockets of the data plane itself are on a wildcard address. */
function isOwn({ protocol, address, port }: PortInUse, plan: CapturePlan): boolean {
  return protocol === 'tcp' && port === plan.port && isWildcard(address);
}

/** A socket on `::` may take IPv4 too, which cannot be seen from outside, and mostly does. */
function covers({ address: at }: PortInUse, address: IpAddress): boolean {
  return isWildcard(at) ? at.family === 6 || address.family === 4 : at.text === address.text;
}

function udpEntrySeconds({ rules }: Configuration): number {
  const idleMs = rules
    .filter(({ protocols }) => protocols.includes('udp'))
    .map(({ idleTimeoutMs }) => idleTimeoutMs.udp.value);
  return Math.ceil(Math.max(0, ...idleMs) / 1000) + UDP_MARGIN_SECONDS;
}

/** Those that a configuration does not want, captured or not. */
export function unwanted(
  failures: readonly ListenFailure[],
  { frontends, rules }: Configuration,
): readonly ListenFailure[] {
  const rulePorts = new RulePorts(rules);
  return failures.filter(({ protocol, address, port }) => {
    const frontend = frontends.find((one) => one.address.text === address);
    return frontend === undefined || rulePorts.at(protocol, frontend.address).ownerOf(port) === NO_RULE;
  });
}
