import type { Peer } from './peer.js';

/** No balancer: the client talks to the first backend. What the load tools and backends can do at most. */
export function directPeer(): Peer {
  return {
    label: 'direct',
    name: 'direct',
    workers: 1,
    udp: true,
    version: () => Promise.resolve('no balancer'),
    start: () => Promise.resolve(undefined),
  };
}
