import { parseCidr, type Cidr } from '../../model/cidr.js';

/** What `ip` is asked for the networks of this machine's own links, one call a family. */
export const LINK_NETWORKS_ARGS = [
  ['-4', 'route', 'show', 'proto', 'kernel', 'scope', 'link'],
  ['-6', 'route', 'show', 'proto', 'kernel'],
] as const;

/**
 * The networks in its answers: `10.2.0.0/24 dev eth0 scope link src 10.2.0.1`. Hosts, and link-local addresses, which each
 * link has, are left out.
 */
export function linkNetworks(listing: string): Cidr[] {
  return listing.split('\n').flatMap((line) => {
    const network = parseCidr(line.split(' ')[0] ?? '');
    if (network === undefined || network.text.startsWith('fe80:')) return [];
    return network.prefixLength === network.address.bytes.length * 8 ? [] : [network];
  });
}
