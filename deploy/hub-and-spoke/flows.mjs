// Servers and clients of the lab.
//
//   flows.mjs serve <port>...                          answers TCP and UDP
//   flows.mjs ask <host> <port> <count> <first port>   one question on each of so many TCP and UDP flows
//   flows.mjs hold <host> <port> <count>               holds TCP flows open, and asks on each for every line of input

import { createSocket } from 'node:dgram';
import { connect, createServer } from 'node:net';
import { createInterface } from 'node:readline';

const PATIENCE_MS = 2000;
const AT_ONCE = 50;

/** What comes first: the answer, or the end of patience. */
async function inTime(answer) {
  let timer;
  const late = new Promise((resolve) => (timer = setTimeout(resolve, PATIENCE_MS, 'silent')));
  return Promise.race([answer, late]).finally(() => clearTimeout(timer));
}

function serve(ports) {
  for (const port of ports) {
    createServer((socket) => socket.on('error', () => undefined).pipe(socket)).listen(port, '0.0.0.0');
    const udp = createSocket('udp4').bind(port, '0.0.0.0');
    udp.on('message', (text, from) => udp.send(text, from.port, from.address, () => undefined));
  }
}

async function askTcp(host, port, localPort) {
  const socket = connect({ host, port, localPort });
  const answer = new Promise((resolve) => {
    socket.once('data', () => resolve('answered'));
    socket.once('error', ({ code }) => resolve(code === 'ECONNRESET' ? 'reset' : 'refused'));
  });
  socket.write('?');
  const text = await inTime(answer);
  socket.end();
  return text;
}

async function askUdp(host, port, localPort) {
  const socket = createSocket('udp4').bind(localPort);
  const answer = new Promise((resolve) => {
    socket.once('message', () => resolve('answered'));
    socket.once('error', () => resolve('refused'));
  });
  socket.send('?', port, host);
  const text = await inTime(answer);
  socket.close();
  return text;
}

async function ask(host, port, count, firstPort) {
  for (const [protocol, one] of [
    ['TCP', askTcp],
    ['UDP', askUdp],
  ]) {
    const answers = [];
    for (let start = 0; start < count; start += AT_ONCE) {
      const some = Array.from({ length: Math.min(AT_ONCE, count - start) }, (_, index) =>
        one(host, port, firstPort + start + index),
      );
      answers.push(...(await Promise.all(some)));
    }
    console.log(
      `${protocol} ${answers.filter((answer) => answer === 'answered').length} of ${count} answered`,
    );
  }
}

async function hold(host, port, count) {
  const sockets = Array.from({ length: count }, () => connect({ host, port }));
  const ended = new Set();
  for (const socket of sockets) socket.on('error', () => ended.add(socket));
  await inTime(
    Promise.all(sockets.map((socket) => new Promise((resolve) => socket.once('connect', resolve)))),
  );
  console.log(`open ${sockets.filter(({ readyState }) => readyState === 'open').length}`);
  for await (const _ of createInterface({ input: process.stdin })) {
    const answers = await Promise.all(
      sockets
        .filter((socket) => !ended.has(socket))
        .map((socket) => {
          const answer = new Promise((resolve) => {
            socket.once('data', () => resolve('answered'));
            socket.once('error', () => resolve('reset'));
          });
          socket.write('?');
          return inTime(answer);
        }),
    );
    const counts = ['answered', 'reset', 'silent'].map(
      (kind) => `${kind} ${answers.filter((answer) => answer === kind).length}`,
    );
    console.log(counts.join(' '));
  }
  for (const socket of sockets) socket.destroy();
}

const [work, ...args] = process.argv.slice(2);
if (work === 'serve') serve(args.map(Number));
else if (work === 'ask') await ask(args[0], ...args.slice(1).map(Number));
else if (work === 'hold') await hold(args[0], ...args.slice(1).map(Number));
else throw new Error(`Unknown work "${work}": it must be serve, ask or hold`);
