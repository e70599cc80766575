import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';

/*
 * A backend of the floating lab. Arguments: its name, a port, and the frontends' addresses, which it has itself. Each chunk or
 * datagram is answered by who it is and who it sees: `b1 10.1.0.2 40000 443`. A TCP client gets the first answer without
 * asking. Datagrams are answered from the address they came to. Prints `ready`.
 */

const [name = '', portText = '', ...addresses] = process.argv.slice(2);
const port = Number(portText);

async function listenTcp(host: string): Promise<void> {
  const server = createServer({ noDelay: true }, (socket) => {
    const line = `${name} ${socket.remoteAddress} ${socket.remotePort} ${port}\n`;
    socket.on('error', () => undefined);
    socket.on('data', () => socket.write(line));
    socket.write(line);
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port, backlog: 4096 }, resolve);
  });
}

async function bindUdp(address: string): Promise<void> {
  const socket = createSocket({ type: address.includes(':') ? 'udp6' : 'udp4', recvBufferSize: 2 ** 20 });
  socket.on('message', (text, from) => {
    const line = `${name} ${from.address} ${from.port} ${port} ${text.length}\n`;
    socket.send(line, from.port, from.address, () => undefined);
  });
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.bind({ address, port }, resolve);
  });
}

for (const address of addresses) await Promise.all([listenTcp(address), bindUdp(address)]);
process.stdout.write('ready\n');
