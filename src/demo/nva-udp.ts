import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { once } from 'node:events';
import type { IpAddress } from '../model/address.js';

/** The longest payload of an IPv4 datagram: 65,535 less the IPv4 and UDP headers (RFC 791, RFC 768). */
const MAX_PAYLOAD_BYTES = 65_507;

export interface NvaUdpOptions {
  readonly name: string;
  readonly address: IpAddress;
  readonly port: number;
}

/** What to answer to a datagram: with the name before it where that fits, else as it came. */
export function udpAnswer(prefix: Uint8Array, payload: Uint8Array): Uint8Array {
  if (prefix.length + payload.length > MAX_PAYLOAD_BYTES) return payload;
  return Buffer.concat([prefix, payload]);
}

/** Opens an echo on one port. Rejects with the system's error. The caller closes it. */
export async function openNvaUdp(options: NvaUdpOptions): Promise<Socket> {
  const { name, address, port } = options;
  const socket = createSocket({ type: address.family === 4 ? 'udp4' : 'udp6', recvBufferSize: 1 << 20 });
  const prefix = Buffer.from(`${name}: `);
  socket.on('message', (payload: Buffer, from: RemoteInfo) => {
    // Answering oneself would never end.
    if (from.port === port && from.address === address.text) return;
    socket.send(udpAnswer(prefix, payload), from.port, from.address, () => undefined);
  });
  socket.bind({ address: address.text, port, exclusive: true });
  await once(socket, 'listening');
  // An ICMP error for an answer is of no interest here.
  socket.on('error', () => undefined);
  return socket;
}
