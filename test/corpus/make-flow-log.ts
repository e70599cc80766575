import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { dirname, resolve } from 'node:path';
import { eventually } from '../support/deadline.js';
import { CORPUS } from './cases.js';
import { HaportsProcess } from '../support/haports-process.js';

/*
 * Makes the flow log that `replay` is asked about, with real traffic over loopback: node build/test/corpus/make-flow-log.js
 * dist/main.js. Ports and times differ each time, so this is for a new format only, not for each recording. In it: retries
 * past a backend that refuses, operators' changes, a drain, a reload, moved UDP flows, IPv4 only.
 */

const HUB = '127.77.9.1';
const BACKENDS = ['127.77.9.11', '127.77.9.12', '127.77.9.13'];
/** Refused by the first backend. */
const PORTS = [7901, 7902];
const FILE = resolve(CORPUS, 'cases', 'flow-logs', 'loopback.jsonl');

const configuration = (weight: number) => ({
  frontends: [{ name: 'hub', address: HUB }],
  backendPools: [
    {
      name: 'nvas',
      backends: BACKENDS.map((address, index) => ({
        name: `nva-${index + 1}`,
        address,
        weight: index === 2 ? weight : 1,
      })),
    },
  ],
  rules: [
    { name: 'tcp', ...{ frontend: 'hub', backendPool: 'nvas', protocol: 'tcp', frontendPort: PORTS[0] } },
    {
      name: 'udp',
      ...{ frontend: 'hub', backendPool: 'nvas', protocol: 'udp', frontendPort: PORTS[1] },
      symmetric: true,
      flowPolicy: { adminDown: 'rebalance' },
    },
  ],
  flowLog: { file: FILE },
  shutdown: { deadline: '1s' },
});

async function tcpFlow(): Promise<void> {
  const socket = connect(PORTS[0]!, HUB);
  socket.on('error', () => undefined).end('hello\n');
  socket.resume();
  await once(socket, 'close');
}

const clients = Array.from({ length: 25 }, () => createSocket('udp4'));
const datagrams = (): void => {
  for (const client of clients) client.send('hello', PORTS[1], HUB);
};

const servers = BACKENDS.map((address, index) => ({
  tcp:
    index === 0
      ? undefined
      : createServer((socket) => socket.on('error', () => undefined).pipe(socket)).listen(PORTS[0], address),
  udp: createSocket('udp4').bind(PORTS[1], address),
}));
for (const { udp } of servers) udp.on('message', (text, { port, address }) => udp.send(text, port, address));

await mkdir(dirname(FILE), { recursive: true });
await rm(FILE, { force: true });
const haports = await HaportsProcess.start(configuration(1), {
  main: resolve(process.argv[2] ?? 'dist/main.js'),
});
const logged = (type: string, count: number): Promise<unknown> =>
  eventually(
    async () => (await readFile(FILE, 'utf8')).split(`{"type":"${type}"`).length > count,
    10_000,
    `${count} lines of type ${type}`,
  );
const flows = () => Promise.all(Array.from({ length: 25 }, tcpFlow));

try {
  await flows();
  datagrams();
  await logged('start', 50);
  await haports.must('PUT', '/v1/backends/nvas/nva-2/admin-state', { adminState: 'down' });
  datagrams();
  await logged('move', 3);
  await flows();
  await haports.must('PUT', '/v1/backends/nvas/nva-2/admin-state', { adminState: 'none' });
  await haports.must('POST', '/v1/reload', haports.withSocket(configuration(5)));
  await flows();
  await haports.must('POST', '/v1/backends/nvas/nva-3/drain', { deadline: '1h' });
  await flows();
  await logged('end', 100);
} finally {
  await haports.kill();
  for (const client of clients) client.close();
  for (const { tcp, udp } of servers) {
    tcp?.close();
    udp.close();
  }
}
