import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';

/*
 * node echo-backend-main.js <port> <address>...
 * Echoes TCP streams and UDP datagrams. Ends when its standard input does.
 */

const [portText = '', ...addresses] = process.argv.slice(2);
const port = Number(portText);

for (const address of addresses) {
  const server = createServer({ noDelay: true }, (socket) => {
    socket.on('error', () => socket.destroy());
    socket.pipe(socket);
  });
  server.listen({ port, host: address, backlog: 4096 });

  // No look-up: the addresses are literal, and one for each answer would be most of the work.
  const udp = createSocket({
    type: 'udp4',
    lookup: (host, _options, answer) => answer(null, host, 4),
    recvBufferSize: 4 * 1024 * 1024,
  });
  udp.on('message', (data, from) => udp.send(data, from.port, from.address));
  udp.on('error', (error) => {
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 1;
  });
  udp.bind({ port, address, exclusive: true });
}

process.stdin.on('end', () => process.kill(process.pid, 'SIGTERM')).resume();
