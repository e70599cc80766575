import { createSocket } from 'node:dgram';
import { createServer, type Socket } from 'node:net';

/*
 * A backend of the nat lab. Arguments: its name, and ports. Each chunk or datagram is answered by who it is and who it
 * sees: `b1 10.1.0.2 40000 443`. A TCP client gets the first answer without asking. Prints `ready`.
 */

const [name = '', ...ports] = process.argv.slice(2);

function plain(address: string | undefined): string {
  return (address ?? '').replace(/^::ffff:/, '');
}

function serveTcp(socket: Socket, port: number): void {
  const line = `${name} ${plain(socket.remoteAddress)} ${socket.remotePort} ${port}\n`;
  socket.on('error', () => undefined);
  socket.on('data', () => socket.write(line));
  socket.write(line);
}

async function listenTcp(port: number): Promise<void> {
  const server = createServer({ noDelay: true }, (socket) => serveTcp(socket, port));
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host: '::', port, backlog: 4096 }, resolve);
  });
}

async function bindUdp(port: number): Promise<void> {
  const socket = createSocket({ type: 'udp6', recvBufferSize: 2 ** 20 });
  socket.on('message', (_, from) => {
    socket.send(
      `${name} ${plain(from.address)} ${from.port} ${port}\n`,
      from.port,
      from.address,
      () => undefined,
    );
  });
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.bind({ address: '::', port }, resolve);
  });
}

for (const port of ports.map(Number)) await Promise.all([listenTcp(port), bindUdp(port)]);
process.stdout.write('ready\n');
