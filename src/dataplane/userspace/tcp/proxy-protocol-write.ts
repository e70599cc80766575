import type { IpAddress } from '../../../model/address.js';
import type { FiveTuple } from '../../../model/five-tuple.js';

/** What a PROXY protocol header says of a connection; both addresses are of one family. */
export type ProxyIdentity = Omit<FiveTuple, 'protocol'>;

const V2_SIGNATURE: readonly number[] = [13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10];
const V2_PROXY = 0x21;
const V2_TCP_OVER_IPV4 = 0x11;
const V2_TCP_OVER_IPV6 = 0x21;

/** The PROXY protocol header (HAProxy, doc/proxy-protocol.txt, sections 2.1 and 2.2) of a TCP connection. */
export function writeProxyHeader(version: 'v1' | 'v2', identity: ProxyIdentity): Buffer {
  return version === 'v1' ? writeV1(identity) : writeV2(identity);
}

function writeV1({ source, sourcePort, destination, destinationPort }: ProxyIdentity): Buffer {
  const addresses = `${withoutZone(source)} ${withoutZone(destination)}`;
  return Buffer.from(`PROXY TCP${source.family} ${addresses} ${sourcePort} ${destinationPort}\r\n`, 'latin1');
}

function writeV2({ source, sourcePort, destination, destinationPort }: ProxyIdentity): Buffer {
  const family = source.family === 4 ? V2_TCP_OVER_IPV4 : V2_TCP_OVER_IPV6;
  const bodyBytes = source.bytes.length + destination.bytes.length + 4;
  const ports = [sourcePort >> 8, sourcePort & 0xff, destinationPort >> 8, destinationPort & 0xff];
  return Buffer.from([
    ...V2_SIGNATURE,
    V2_PROXY,
    family,
    bodyBytes >> 8,
    bodyBytes & 0xff,
    ...source.bytes,
    ...destination.bytes,
    ...ports,
  ]);
}

/** A zone means something on this machine only. */
function withoutZone({ text, zone }: IpAddress): string {
  return zone === undefined ? text : text.slice(0, -zone.length - 1);
}
