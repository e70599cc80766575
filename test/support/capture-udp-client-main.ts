import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';

/*
 * A client that gets back what it sends to `address` port 9: datagrams of several sizes, and how long first and later
 * datagrams take. Arguments: address, flows. Prints `{ "wrong": [sizes], "firstMs": [...], "laterMs": [...] }`.
 */

const [address = '', flows = ''] = process.argv.slice(2);
const ANSWER_MS = 3000;

async function ask(socket: Socket, datagram: Buffer): Promise<Buffer | undefined> {
  socket.send(datagram, 9, address);
  try {
    const [answer] = (await once(socket, 'message', { signal: AbortSignal.timeout(ANSWER_MS) })) as [Buffer];
    return answer;
  } catch {
    return undefined;
  }
}

function open(): Socket {
  return createSocket(address.includes(':') ? 'udp6' : 'udp4');
}

const wrong: number[] = [];
for (const size of [0, 1, 1472, 9000, 65_507]) {
  // Both as a first datagram and as a later one.
  const socket = open();
  for (let n = 0; n < 2; n++) {
    const datagram = Buffer.alloc(size, size + n);
    if ((await ask(socket, datagram))?.equals(datagram) !== true) wrong.push(size);
  }
  socket.close();
}
const firstMs: number[] = [];
const laterMs: number[] = [];
for (let n = 0; n < Number(flows); n++) {
  const socket = open();
  for (const times of [firstMs, laterMs]) {
    const startMs = performance.now();
    if ((await ask(socket, Buffer.from('x'))) === undefined) wrong.push(-1);
    times.push(performance.now() - startMs);
  }
  socket.close();
}
process.stdout.write(JSON.stringify({ wrong, firstMs, laterMs }));
