import { createSocket } from 'node:dgram';
import { createServer, type Socket } from 'node:net';

/*
 * A backend of the nat lab. Arguments: its name, and ports. Each chunk or datagram is answered by who it is and who it
 * sees: `b1 10.1.0.2 40000 443`. A TCP client gets the first answer without asking, and after `tick` one every 100 ms; `bulk`
 * is answered by 200,000 bytes, `bye` by closing.
 * Prints `ready`.
 */

const TICK_MS = 100;
const BULK_BYTES = 200_000;
const [name = '', ...ports] = process.argv.slice(2);

function plain(address: string | undefined): string {
  return (address ?? '').replace(/^::ffff:/, '');
}

function serveTcp(socket: Socket, port: number): void {
  const line = `${name} ${plain(socket.remoteAddress)} ${socket.remotePort} ${port}\n`;
  socket.on('error', () => undefined);
  let timer: NodeJS.Timeout | undefined;
  socket.on('close', () => clearInterval(timer));
  socket.on('data', (text) => {
    if (text.toString() === 'bye') return void socket.end();
    socket.write(text.toString() === 'bulk' ? 'x'.repeat(BULK_BYTES) : line);
    if (text.toString() === 'tick') timer ??= setInterval(() => socket.write(line), TICK_MS);
  });
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
