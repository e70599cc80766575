import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';

/*
 * Backends of the capture lab in one process: TCP and UDP echoes on many ports of several addresses. Whatever comes in
 * is answered by `<address> <port> <what came in>`. Standard input: one line of JSON. Prints `ready`.
 */

const BACKLOG = 1024;
const BUFFER_BYTES = 2 ** 20;

/** What stands on standard input. */
export interface EchoPlan {
  readonly addresses: readonly string[];
  readonly ports: readonly number[];
}

function listenTcp(host: string, port: number): Promise<void> {
  const name = `${host} ${port} `;
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.on('data', (chunk) => socket.write(name + chunk.toString('latin1'), 'latin1'));
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port, backlog: BACKLOG }, resolve);
  });
}

function bindUdp(address: string, port: number): Promise<void> {
  const name = `${address} ${port} `;
  const type = address.includes(':') ? 'udp6' : 'udp4';
  const socket = createSocket({ type, recvBufferSize: BUFFER_BYTES });
  socket.on('message', (datagram, from) => {
    const answer = Buffer.from(name + datagram.toString('latin1'), 'latin1');
    socket.send(answer, from.port, from.address, () => undefined);
  });
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.bind({ address, port }, resolve);
  });
}

let text = '';
for await (const part of process.stdin.setEncoding('utf8')) text += String(part);
const plan = JSON.parse(text) as EchoPlan;
for (const address of plan.addresses) {
  for (const port of plan.ports) await Promise.all([listenTcp(address, port), bindUdp(address, port)]);
}
process.stdout.write('ready\n');
