import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { builtFile } from '../../../../support/commands.js';
import { eventually, within } from '../../../../support/deadline.js';
import { TestServer } from './tcp-lab.js';

const LIMIT = 64;
const CLIENTS = 60;

interface Outcome {
  readonly served: number;
  readonly refused: number;
  readonly drops: Readonly<Record<string, number>>;
}

async function exhaust(t: { readonly after: (fn: () => void) => void }, waste: 0 | 1): Promise<Outcome> {
  const server = await TestServer.listen('127.0.0.2', (socket) => socket.write('hello'));
  t.after(() => server.close());
  const script = builtFile('test/unit/planes/userspace/tcp/descriptor-child');
  const argv = [script, String(server.port), String(waste)];
  const child = spawn(process.execPath, argv, { stdio: ['pipe', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const port = Number((await within(lines.next(), 10_000, 'the port')).value);
  // Only now: loading its modules takes more.
  execFileSync('prlimit', [`--pid=${child.pid}`, `--nofile=${LIMIT}`]);

  const clients: Socket[] = [];
  const isServed = (): Promise<boolean> =>
    new Promise((resolve) => {
      const client = connect({ host: '127.0.0.1', port });
      clients.push(client);
      client
        .once('data', () => resolve(true))
        .once('close', () => resolve(false))
        .on('error', () => undefined);
    });
  let served = 0;
  for (let index = 0; index < CLIENTS; index++) {
    if (await within(isServed(), 5000, `an answer to client ${index}`)) served++;
  }
  for (const client of clients) client.destroy();
  while (server.sockets.size > 0) {
    const [socket] = server.sockets;
    if (socket === undefined) break;
    socket.destroy();
    await within(once(socket, 'close'), 5000, 'the backend’s sockets to go');
  }
  // The child may not have noticed yet that they went.
  await eventually(isServed, 5000, 'service once there are descriptors');
  child.stdin.end();
  const drops = JSON.parse(String((await within(lines.next(), 5000, 'the drops')).value)) as Outcome['drops'];
  for (const client of clients) client.destroy();
  return { served, refused: CLIENTS - served, drops };
}

test('a TCP listener that runs out of descriptors refuses, counts and keeps listening', async (t) => {
  // A flow takes two: whether the first to be missing is the client's (which libuv closes silently) or the
  // backend's depends on how many there are.
  const outcomes = [await exhaust(t, 0), await exhaust(t, 1)];
  let counted = 0;
  for (const { served, refused, drops } of outcomes) {
    t.diagnostic(JSON.stringify({ served, refused, drops }));
    assert.ok(served > 5 && refused > 5, `served ${served}, refused ${refused}`);
    counted += drops['descriptors-exhausted'] ?? 0;
    assert.deepEqual(
      Object.keys(drops).filter((reason) => reason !== 'descriptors-exhausted'),
      [],
    );
  }
  assert.ok(counted > 5, `counted ${counted}`);
});
