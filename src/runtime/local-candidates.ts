import { networkInterfaces } from 'node:os';
import { ipAddress, isLoopback, type IpAddress } from '../model/address.js';
import { cidrContains, parseCidr } from '../model/cidr.js';

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

/** fe80::/10. */
function isLinkLocal({ family, bytes: [first = 0, second = 0] }: IpAddress): boolean {
  return family === 6 && first === 0xfe && (second & 0xc0) === 0x80;
}

function sharesNetwork(a: IpAddress, b: IpAddress, prefixLength: number): boolean {
  const block = parseCidr(a.text.split('%')[0] ?? '');
  return block !== undefined && cidrContains({ ...block, prefixLength }, b);
}
