import { endianness } from 'node:os';
import { fromBytes, type IpAddress } from '../model/address.js';
import { errorCode } from '../model/errors.js';
import type { Protocol } from '../model/five-tuple.js';

/** A TCP port that somebody listens on, or a UDP port that somebody receives from anybody on. */
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
