import { networkInterfaces } from 'node:os';
import { fromBytes, parseIpAddress, type IpAddress } from '../../model/address.js';
import { parseCidr, type Cidr } from '../../model/cidr.js';

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
