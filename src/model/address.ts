import ipaddr from 'ipaddr.js';

/** An IP address in canonical form. IPv4-mapped IPv6 (RFC 4291, 2.5.5.2) is always held as IPv4. */
export interface IpAddress {
  readonly family: 4 | 6;
  /** 4 or 16 bytes, network order. A plain array: a typed one takes 200 bytes of memory, and each flow has an address. */
  readonly bytes: readonly number[];
  /** Canonical text: dotted quad, or RFC 5952, with `%zone` where one was given. */
  readonly text: string;
  /** Interface name of a scoped IPv6 address (`fe80::1%eth0`), RFC 4007. Not part of the hash. */
  readonly zone?: string;
}

/**
 * Parses a literal address. Returns undefined on anything else: host names, short forms such as `127.1`,
 * octal or hexadecimal parts, or an address with a prefix length.
 */
export function parseIpAddress(text: string): IpAddress | undefined {
  if (ipaddr.IPv4.isValidFourPartDecimal(text)) return fromBytes(ipaddr.IPv4.parse(text).toByteArray());
  if (!text.includes(':') || !ipaddr.IPv6.isValid(text)) return undefined;
  const parsed = ipaddr.IPv6.parse(text);
  return fromBytes(parsed.toByteArray(), parsed.zoneId);
}

/** As parseIpAddress, for text that is known to be an address (the kernel's). Throws on anything else. */
export function ipAddress(text: string): IpAddress {
  const parsed = dottedQuad(text) ?? parseIpAddress(text);
  if (parsed === undefined) throw new TypeError(`Not an IP address: "${text}"`);
  return parsed;
}

/** IPv4 as the kernel writes it, ten times faster than the general way; undefined for everything else. */
function dottedQuad(text: string): IpAddress | undefined {
  const bytes = [0, 0, 0, 0];
  let part = 0;
  let value = 0;
  let digits = 0;
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (code === 0x2e && digits > 0 && part < 3) {
      bytes[part++] = value;
      value = 0;
      digits = 0;
    } else if (code >= 0x30 && code <= 0x39 && (digits === 0 || value > 0)) {
      value = value * 10 + code - 0x30;
      digits++;
      if (value > 255) return undefined;
    } else {
      return undefined;
    }
  }
  if (part !== 3 || digits === 0) return undefined;
  bytes[3] = value;
  return { family: 4, bytes, text };
}

/** Builds an address from 4 or 16 network-order bytes; IPv4-mapped bytes become IPv4. */
export function fromBytes(bytes: Iterable<number>, zone?: string): IpAddress {
  const octets = [...bytes];
  if (octets.length === 4) return { family: 4, bytes: octets, text: octets.join('.') };
  const address = new ipaddr.IPv6(octets);
  if (address.isIPv4MappedAddress()) return fromBytes(octets.slice(12));
  const text = address.toRFC5952String();
  return zone === undefined
    ? { family: 6, bytes: octets, text }
    : { family: 6, bytes: octets, text: `${text}%${zone}`, zone };
}

/** An address's text without its zone. */
export function unzonedText({ text, zone }: IpAddress): string {
  return zone === undefined ? text : text.slice(0, -(zone.length + 1));
}

/** 16 bytes: an IPv6 address's own, or those of the IPv4-mapped form of an IPv4 address (RFC 4291, 2.5.5.2). */
export function ipv6Bytes({ family, bytes }: IpAddress): readonly number[] {
  return family === 6 ? bytes : [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ...bytes];
}

/** A dotted quad as the kernel writes it, as an unsigned 32-bit number. Nothing is checked. */
export function ipv4Number(text: string): number {
  let value = 0;
  let octet = 0;
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (code === 0x2e) {
      value = value * 256 + octet;
      octet = 0;
    } else {
      octet = octet * 10 + code - 0x30;
    }
  }
  return value * 256 + octet;
}

/** Whether this is `0.0.0.0` or `::`. */
export function isWildcard(address: IpAddress): boolean {
  return address.bytes.every((byte) => byte === 0);
}

/** Whether this is in 127.0.0.0/8 or is `::1`. */
export function isLoopback(address: IpAddress): boolean {
  if (address.family === 4) return address.bytes[0] === 127;
  return address.bytes.every((byte, index) => byte === (index === 15 ? 1 : 0));
}

/** Orders by family, then bytes, then zone; 0 means the same address. */
export function compareAddresses(a: IpAddress, b: IpAddress): number {
  if (a.family !== b.family) return a.family - b.family;
  for (let index = 0; index < a.bytes.length; index++) {
    const difference = (a.bytes[index] ?? 0) - (b.bytes[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return (a.zone ?? '') < (b.zone ?? '') ? -1 : (a.zone ?? '') > (b.zone ?? '') ? 1 : 0;
}

/** `1.2.3.4:80` or `[::1]:80`. */
export function formatEndpoint(address: IpAddress, port: number): string {
  return address.family === 6 ? `[${address.text}]:${port}` : `${address.text}:${port}`;
}

/** Parses `1.2.3.4:80` and `[::1]:80`; undefined on anything else or a port outside 0-65535. */
export function parseEndpoint(
  text: string,
): { readonly address: IpAddress; readonly port: number } | undefined {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  if (match === null) return undefined;
  const address = parseIpAddress(match[1] ?? match[2] ?? '');
  const port = Number(match[3]);
  if (address === undefined || port > 65535) return undefined;
  if (match[2] !== undefined && address.family === 6) return undefined;
  return { address, port };
}

/** An address block. A bare address is a block of one. IPv4-mapped IPv6 counts as IPv4. */
export interface Cidr {
  readonly address: IpAddress;
  readonly prefixLength: number;
  readonly text: string;
}

/** Parses `10.0.0.0/8`, `fd00::/8` or a bare address; undefined on anything else, host bits set included. */
export function parseCidr(text: string): Cidr | undefined {
  const [addressText = '', prefixText, extra] = text.split('/');
  const address = parseIpAddress(addressText);
  if (address === undefined || extra !== undefined || address.zone !== undefined) return undefined;
  const bits = address.bytes.length * 8;
  if (prefixText !== undefined && !/^\d{1,3}$/.test(prefixText)) return undefined;
  // `::ffff:10.0.0.0/104` names an IPv4 block by its mapped form.
  const mapped = address.family === 4 && addressText.includes(':');
  const prefixLength = prefixText === undefined ? bits : Number(prefixText) - (mapped ? 96 : 0);
  if (prefixLength < 0 || prefixLength > bits) return undefined;
  for (let bit = prefixLength; bit < bits; bit++) {
    if (((address.bytes[bit >> 3] ?? 0) >> (7 - (bit & 7))) & 1) return undefined;
  }
  return { address, prefixLength, text: `${address.text}/${prefixLength}` };
}

export function cidrContains(block: Cidr, address: IpAddress): boolean {
  if (block.address.family !== address.family) return false;
  const whole = block.prefixLength >> 3;
  for (let index = 0; index < whole; index++) {
    if (block.address.bytes[index] !== address.bytes[index]) return false;
  }
  const rest = block.prefixLength & 7;
  if (rest === 0) return true;
  const shift = 8 - rest;
  return (block.address.bytes[whole] ?? 0) >> shift === (address.bytes[whole] ?? 0) >> shift;
}

/** Whether an address is in both. */
export function cidrsOverlap(a: Cidr, b: Cidr): boolean {
  return cidrContains(a, b.address) || cidrContains(b, a.address);
}

/** A TCP connection to try; the system chooses what is absent. */
export interface ConnectTarget {
  readonly to: IpAddress;
  readonly port: number;
  readonly fromPort?: number;
  readonly fromAddress?: IpAddress;
}

export type Protocol = 'tcp' | 'udp';

export const PROTOCOLS: readonly Protocol[] = ['tcp', 'udp'];

/** IANA protocol numbers, as they stand in the hash input. */
export const PROTOCOL_NUMBER: Readonly<Record<Protocol, number>> = { tcp: 6, udp: 17 };

/** What names a flow, seen from the client: source is the client, destination the frontend. */
export interface FiveTuple {
  readonly protocol: Protocol;
  readonly source: IpAddress;
  readonly sourcePort: number;
  readonly destination: IpAddress;
  readonly destinationPort: number;
}

/** `tcp 192.0.2.7:40000 -> 192.0.2.1:443` */
export function formatFiveTuple(tuple: FiveTuple): string {
  const source = formatEndpoint(tuple.source, tuple.sourcePort);
  return `${tuple.protocol} ${source} -> ${formatEndpoint(tuple.destination, tuple.destinationPort)}`;
}
