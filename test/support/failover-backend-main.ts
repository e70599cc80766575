import { createServer as createHttpServer } from 'node:http';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';

/*
 * A backend that goes on serving when its probe is told that it does not, so that flows which still reach it are seen.
 * Arguments: its name, the port of its flows, the port of its probe. A line of standard input is the status the probe gets
 * from then on. Prints `ready`.
 */

const [name = '', port = '', probePort = ''] = process.argv.slice(2);
let status = 200;

const flows = createServer({ noDelay: true }, (socket) => {
  socket.on('error', () => undefined);
  socket.resume();
  socket.write(`${name}\n`);
});
const probe = createHttpServer((_, response) => response.writeHead(status).end());
createInterface({ input: process.stdin }).on('line', (line) => {
  status = Number(line);
  process.stdout.write(`${status}\n`);
});
await new Promise<void>((listening) => flows.listen({ port: Number(port), backlog: 4096 }, listening));
await new Promise<void>((listening) => probe.listen({ port: Number(probePort) }, listening));
process.stdout.write('ready\n');
