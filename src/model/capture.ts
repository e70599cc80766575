import { fromBytes, type Cidr, type IpAddress } from './address.js';
import { fnv1a } from './fnv1a.js';
import type { PortSet } from './ports.js';

/*
 * Capture: the kernel steers every port of the frontends to a few sockets, so that no port needs a socket of its own.
 * It stands and falls with an nft table that this process owns. A map gives every TCP port a private address of this
 * machine, which the accepted socket tells.
 */

/** `redirect`: one socket a frontend, and conntrack tells where a datagram was sent. `bind`: one socket a port. */
export type UdpCapture = 'redirect' | 'bind';

/** What the operator asks for. */
export interface CaptureOptions {
  /** @default 'redirect' */
  readonly udp: UdpCapture;
  /** Never captured on any frontend, and already left out of the rules' ports. @default 22 */
  readonly excludedPorts: PortSet;
  /** What a start does where capture is impossible: fail, or a socket a port. @default 'none' */
  readonly fallback: 'none' | 'bind';
  /** TCP port of the socket; the UDP port of worker `w` is this plus `w`. @default 61000 */
  readonly port: number;
  /** IPv4 addresses that stand for ports, a /16 for each frontend; prefix 4 to 16. @default 240.0.0.0/4 */
  readonly block: Cidr;
}

/** What the sockets and the ruleset must agree on. It stays the same for the life of the process. */
export type CapturePlan = Pick<CaptureOptions, 'udp' | 'port' | 'block'>;

/*
 * Private addresses of this machine that stand for the ports of captured frontends. Each frontend has a slot:
 *
 *   IPv4   its slot's /16 of the configured block; the last two bytes are the port
 *   IPv6   fd68:6170:6f72:7473:<slot>::<port>, a unique local prefix (RFC 4193)
 *
 * Port 0, which no flow can have, stands for the frontend's UDP socket.
 */

/** "haports" in ASCII, after the fd of unique local addresses. */
const PREFIX6 = [0xfd, 0x68, 0x61, 0x70, 0x6f, 0x72, 0x74, 0x73];

/** How many frontends, IPv4 and IPv6 together, a block has room for; prefix length 4 to 16. */
export function captureRoom(block: Cidr): number {
  let room = 0;
  for (let slot = 0; slot < slotsOf(block); slot++) if (isUsable(block, slot)) room++;
  return room;
}

/**
 * By the text of their addresses, the slots of frontends. A slot follows from the address, and only where two would
 * have the same from the others too: so it hardly ever changes when frontends come and go. Throws RangeError where
 * there are more frontends than slots.
 */
export function captureSlots(frontends: readonly IpAddress[], block: Cidr): ReadonlyMap<string, number> {
  const slots = new Map<string, number>();
  const taken = new Set<number>();
  const count = slotsOf(block);
  const sorted = [...new Map(frontends.map((address) => [address.text, address])).values()].sort((a, b) =>
    a.text < b.text ? -1 : 1,
  );
  for (const address of sorted) {
    let slot = fnv1a(address.bytes) % count;
    for (let tried = 0; taken.has(slot) || !isUsable(block, slot); slot = (slot + 1) % count) {
      if (++tried > count) throw new RangeError(`No room for ${frontends.length} frontends in ${block.text}`);
    }
    taken.add(slot);
    slots.set(address.text, slot);
  }
  return slots;
}

/** The address that stands for a port of the frontend in a slot; port 0: for its UDP socket. */
export function captureAddress(family: 4 | 6, slot: number, port: number, block: Cidr): IpAddress {
  const low = [port >> 8, port & 0xff];
  if (family === 6) return fromBytes([...PREFIX6, slot >> 8, slot & 0xff, 0, 0, 0, 0, ...low]);
  const [first = 0, second = 0] = block.address.bytes;
  const high = ((first << 8) | second) + slot;
  return fromBytes([high >> 8, high & 0xff, ...low]);
}

/** What `captureAddress` was given; undefined for any other address. */
export function capturedPort(
  { family, bytes }: IpAddress,
  block: Cidr,
): { readonly slot: number; readonly port: number } | undefined {
  const at = (index: number): number => bytes[index] ?? 0;
  if (family === 6) {
    if (PREFIX6.some((byte, index) => at(index) !== byte)) return undefined;
    if ((at(10) | at(11) | at(12) | at(13)) !== 0) return undefined;
    return { slot: (at(8) << 8) | at(9), port: (at(14) << 8) | at(15) };
  }
  const [first = 0, second = 0] = block.address.bytes;
  const slot = ((at(0) << 8) | at(1)) - ((first << 8) | second);
  return slot < 0 || slot >= slotsOf(block) ? undefined : { slot, port: (at(2) << 8) | at(3) };
}

function slotsOf({ prefixLength }: Cidr): number {
  return 2 ** Math.max(0, 16 - prefixLength);
}

/** 255.0.0.0/8 has the broadcast address, and what starts with 0 or 127 is not routed. */
function isUsable(block: Cidr, slot: number): boolean {
  const [first = 0] = captureAddress(4, slot, 0, block).bytes;
  return first !== 0 && first !== 127 && first !== 255;
}
