import { formatEndpoint, type IpAddress } from './address.js';

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
