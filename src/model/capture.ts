import { fromBytes, ipv4Number, type Cidr, type IpAddress } from './address.js';
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
const PREFIX6_TEXT = 'fd68:6170:6f72:7473:';

/** Ports fit below this factor, slots above. */
const PORTS = 65_536;

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

/**
 * Slot times 65,536 plus port of what `captureAddress` gave, as the kernel writes it; -1 for any other address. It reads
 * the text, which is all that a socket tells: 0.1 us, where parsing an IPv6 address first takes 19 us.
 */
export function capturedPort(text: string, block: Cidr): number {
  if (text.startsWith(PREFIX6_TEXT)) return ofTail6(text);
  if (text.includes(':')) return -1;
  const [first = 0, second = 0] = block.address.bytes;
  const offset = ipv4Number(text) - (first * 256 + second) * PORTS;
  return offset >= 0 && offset < PORTS * slotsOf(block) ? offset : -1;
}

/** `7::1bb` after the prefix, or `:1bb` in slot 0. A port is never 0, so the zeros before it are always shortened. */
function ofTail6(text: string): number {
  const gap = text.indexOf('::', PREFIX6_TEXT.length - 1);
  if (gap < 0) return -1;
  const slot = gap < PREFIX6_TEXT.length ? 0 : group(text, PREFIX6_TEXT.length, gap);
  const port = group(text, gap + 2, text.length);
  return slot < 0 || port < 0 ? -1 : slot * PORTS + port;
}

/** One group of an IPv6 address, lower case; -1 if it is none. */
function group(text: string, start: number, end: number): number {
  if (end <= start || end - start > 4) return -1;
  let value = 0;
  for (let index = start; index < end; index++) {
    const code = text.charCodeAt(index);
    if (code >= 0x30 && code <= 0x39) value = value * 16 + code - 0x30;
    else if (code >= 0x61 && code <= 0x66) value = value * 16 + code - 0x57;
    else return -1;
  }
  return value;
}

function slotsOf({ prefixLength }: Cidr): number {
  return 2 ** Math.max(0, 16 - prefixLength);
}

/** 255.0.0.0/8 has the broadcast address, and what starts with 0 or 127 is not routed. */
function isUsable(block: Cidr, slot: number): boolean {
  const [first = 0] = captureAddress(4, slot, 0, block).bytes;
  return first !== 0 && first !== 127 && first !== 255;
}
