import type { BenchOptions } from '../options.js';
import { directPeer } from './direct.js';
import { haportsPeer } from './haports.js';
import { haproxyPeer } from './haproxy.js';
import { nginxPeer } from './nginx.js';
import type { Peer } from './peer.js';

/** A peer that is there, with its version. */
export interface FoundPeer {
  readonly peer: Peer;
  readonly version: string;
}

/** The peers asked for that are installed; each missing one is told with a line. */
export async function findPeers(
  options: BenchOptions,
  say: (line: string) => void,
): Promise<readonly FoundPeer[]> {
  const wanted = [
    ...(options.workers.includes(1) ? [directPeer()] : []),
    ...options.workers.flatMap((workers) => [
      haportsPeer(workers, options.main),
      ...(options.against === undefined ? [] : [haportsPeer(workers, options.against, 'before')]),
      haproxyPeer(workers),
      nginxPeer(workers),
    ]),
  ].filter((peer) => options.peers.includes(peer.name));
  const found: FoundPeer[] = [];
  for (const peer of wanted) {
    const version = await peer.version();
    if (version === undefined) say(`left out: ${peer.label}, which is not installed (see bench/README.md)`);
    else found.push({ peer, version });
  }
  return found;
}
