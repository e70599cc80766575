import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import type { AskedFlow } from './capture-flows.js';

/*
 * A client of the capture lab that holds its TCP connections open. Standard input: the flows as one line of JSON, then
 * any line each time that all are to be asked. Standard output: one number a line, how many answered rightly.
 */

const ANSWER_MS = 5000;

function open(flow: AskedFlow): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const { destination: host, port, source: localAddress, sourcePort: localPort } = flow;
    const socket = connect({ host, port, localAddress, localPort }, () => resolve(socket));
    socket.on('error', reject);
  });
}

function answers(socket: Socket, word: string): Promise<boolean> {
  return new Promise((resolve) => {
    const done = (right: boolean): void => {
      clearTimeout(timer);
      socket.removeAllListeners('data').removeAllListeners('close');
      resolve(right);
    };
    const timer = setTimeout(() => done(false), ANSWER_MS);
    if (socket.destroyed) {
      done(false);
      return;
    }
    socket.once('close', () => done(false));
    socket.once('data', (chunk) => done(chunk.toString('latin1').endsWith(` ${word}`)));
    socket.write(word);
  });
}

let sockets: readonly Socket[] | undefined;
let round = 0;
for await (const line of createInterface({ input: process.stdin })) {
  sockets ??= await Promise.all((JSON.parse(line) as readonly AskedFlow[]).map(open));
  const word = `round-${++round}`;
  const right = await Promise.all(sockets.map((socket) => answers(socket, word)));
  process.stdout.write(`${right.filter(Boolean).length}\n`);
}
for (const socket of sockets ?? []) socket.destroy();
