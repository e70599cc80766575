import { networkInterfaces } from 'node:os';
import { parseIpAddress, type IpAddress } from '../../model/address.js';

/** The machine's own addresses of a family, as they are when asked. */
export type OwnAddresses = (family: 4 | 6) => readonly IpAddress[];

/** What the operating system lists, in its order, without duplicates. Link-local IPv6 carries its interface as zone. */
export const ownAddresses: OwnAddresses = (family) => addressesOf(family, networkInterfaces());

/** The addresses in a listing as `os.networkInterfaces()` gives it. */
export function addressesOf(
  family: 4 | 6,
  interfaces: ReturnType<typeof networkInterfaces>,
): readonly IpAddress[] {
  const found = new Map<string, IpAddress>();
  for (const [name, entries] of Object.entries(interfaces)) {
    for (const entry of entries ?? []) {
      const scoped = entry.family === 'IPv6' && entry.scopeid !== 0;
      const address = parseIpAddress(scoped ? `${entry.address}%${name}` : entry.address);
      if (address?.family === family) found.set(address.text, address);
    }
  }
  return [...found.values()];
}
