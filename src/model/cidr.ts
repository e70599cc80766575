import { parseIpAddress, type IpAddress } from './address.js';

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
