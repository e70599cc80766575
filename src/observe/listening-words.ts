import type { Protocol } from '../model/five-tuple.js';

/**
 * How packets reach a plane: a socket a port; a few sockets to which nftables steers captured ports; or no socket, since
 * the kernel forwards them by itself.
 */
export type TrafficEntry = 'port-sockets' | 'captured' | 'kernel';

/** What `listeners` of a plane's report count, in words that can follow a colon. */
export function listeningWords(
  entry: TrafficEntry,
  { tcp, udp }: Readonly<Record<Protocol, number>>,
): string {
  switch (entry) {
    case 'port-sockets':
      return `listening on ${tcp} TCP and ${udp} UDP ports`;
    case 'captured':
      return `listening on ${tcp} TCP and ${udp} UDP sockets, which get all captured ports`;
    case 'kernel':
      return `the kernel forwards TCP of ${frontends(tcp)} and UDP of ${frontends(udp)}`;
  }
}

/** The same at the beginning of a sentence. */
export function listeningSentence(
  entry: TrafficEntry,
  listeners: Readonly<Record<Protocol, number>>,
): string {
  const words = listeningWords(entry, listeners);
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function frontends(count: number): string {
  return count === 1 ? '1 frontend' : `${count} frontends`;
}
