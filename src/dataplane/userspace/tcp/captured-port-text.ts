import type { Cidr } from '../../../model/cidr.js';
import { ipv4Number } from '../udp/client-keys.js';

/** Ports fit below this factor, slots above. */
const PORTS = 65_536;

/** What private IPv6 addresses begin with, see model/capture-address.ts; a slot or a second colon follows. */
const PREFIX6 = 'fd68:6170:6f72:7473:';

/**
 * Slot times 65,536 plus port of a private address as the kernel writes it; -1 for any other address. The same as
 * `capturedPort(ipAddress(text))`, which takes 0.2 us for IPv4 and 19 us for IPv6; this takes 0.1 us for both.
 */
export function capturedPortOfText(text: string, block: Cidr): number {
  if (text.startsWith(PREFIX6)) return ofTail6(text);
  if (text.includes(':')) return -1;
  const [first = 0, second = 0] = block.address.bytes;
  const offset = ipv4Number(text) - (first * 256 + second) * PORTS;
  return offset >= 0 && offset < PORTS * 2 ** Math.max(0, 16 - block.prefixLength) ? offset : -1;
}

/** `7::1bb` after the prefix, or `:1bb` in slot 0. A port is never 0, so the zeros before it are always shortened. */
function ofTail6(text: string): number {
  const gap = text.indexOf('::', PREFIX6.length - 1);
  if (gap < 0) return -1;
  const slot = gap < PREFIX6.length ? 0 : group(text, PREFIX6.length, gap);
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
