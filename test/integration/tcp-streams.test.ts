import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createServer, connect, type AddressInfo, type Server, type Socket } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { eventually, within } from '../support/deadline.js';
import { HaportsProcess, residentBytes } from '../support/haports-process.js';
import { labConfig } from '../support/lab-config.js';
import { loopbackBlock } from '../support/loopback.js';
import { TcpClient } from '../support/tcp-client.js';
import { hasCommand } from '../support/commands.js';

const host = loopbackBlock();
const FRONTEND = host(1);
const MIB = 1024 * 1024;

/** What each port of the one backend does with a connection. */
const BULK_PORT = 7000;
const COUNT_PORT = 7001;
const PORT_ABOVE_32767 = 40_000;

/** A MiB in which no two places look alike, so that a lost, doubled or swapped piece shows. */
const BLOCK = Buffer.alloc(MIB);
for (let offset = 0; offset < MIB; offset += 4)
  BLOCK.writeUInt32BE(Math.imul(offset + 1, 2654435761) >>> 0, offset);

/** Sends `blocks` MiB as fast as the reader lets it, then FIN. */
function sendBlocks(socket: Socket, blocks: number): void {
  let left = blocks;
  const more = (): void => {
    while (left > 0) {
      left--;
      if (!socket.write(BLOCK)) {
        socket.once('drain', more);
        return;
      }
    }
    socket.end();
  };
  more();
}

function listen(port: number, onConnection: (socket: Socket) => void): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => undefined);
    onConnection(socket);
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host(11), () => resolve(server));
  });
}

void describe('TCP through the built process', () => {
  let balancer: HaportsProcess;
  const servers: Server[] = [];

  before(async () => {
    servers.push(
      await listen(BULK_PORT, (socket) => {
        socket.once('data', (request: Buffer) => sendBlocks(socket, Number(request.toString())));
      }),
      await listen(COUNT_PORT, (socket) => {
        let bytes = 0;
        socket.on('data', (chunk: Buffer) => (bytes += chunk.length));
        socket.on('end', () => socket.end(`${bytes} bytes\n`));
      }),
      await listen(PORT_ABOVE_32767, (socket) =>
        socket.end(`port ${(socket.address() as AddressInfo).port}`),
      ),
    );
    balancer = await HaportsProcess.start(
      labConfig(host, { listenPorts: `7000-7001,${PORT_ABOVE_32767}`, backends: 1 }),
    );
  });

  after(async () => {
    for (const server of servers) server.close();
    await balancer.kill();
  });

  /** Reads `blocks` MiB, checking every byte, pausing after each MiB. */
  const readSlowly = async (blocks: number, pauseMs: number): Promise<number> => {
    const socket = connect({ host: FRONTEND, port: BULK_PORT });
    let received = 0;
    let nextPause = MIB;
    const done = new Promise<number>((resolve, reject) => {
      socket.on('data', (chunk: Buffer) => {
        let checked = 0;
        while (checked < chunk.length) {
          const offset = (received + checked) % MIB;
          const piece = chunk.subarray(checked, checked + MIB - offset);
          if (!piece.equals(BLOCK.subarray(offset, offset + piece.length))) {
            reject(new Error(`content differs within ${piece.length} bytes from ${received + checked}`));
            return;
          }
          checked += piece.length;
        }
        received += chunk.length;
        if (received >= nextPause) {
          nextPause += MIB;
          socket.pause();
          setTimeout(() => socket.resume(), pauseMs);
        }
      });
      socket.once('end', () => resolve(received));
      socket.once('error', reject);
    });
    socket.write(String(blocks));
    return within(done, 240_000, `${blocks} MiB to arrive`);
  };

  void test('1 GiB to a slow reader arrives intact with at most 32 MiB of memory growth', async (t) => {
    const worker = await eventually(async () => (await balancer.workerPids())[0], 10_000, 'the data worker');
    // Idle, but for a stream that leaves nothing waiting: the code is compiled, and the heap has room for what is on its way.
    assert.equal(await readSlowly(64, 0), 64 * MIB);
    const before = await residentBytes(worker);
    let most = before;
    const sampler = setInterval(() => {
      void residentBytes(worker).then(
        (bytes) => (most = Math.max(most, bytes)),
        () => undefined,
      );
    }, 50);
    try {
      assert.equal(await readSlowly(1024, 4), 1024 * MIB);
    } finally {
      clearInterval(sampler);
    }
    const growth = (most - before) / MIB;
    t.diagnostic(
      `memory of the data worker: ${(before / MIB).toFixed(1)} MiB, grew by ${growth.toFixed(1)} MiB`,
    );
    assert.ok(growth <= 32, `grew by ${growth.toFixed(1)} MiB`);
  });

  void test('a FIN of the client reaches the backend as FIN, and the answer still comes (nc -N)', async (t) => {
    if (!(await hasCommand('nc'))) {
      t.skip('nc is not installed');
      return;
    }
    const nc = spawn('nc', ['-N', FRONTEND, String(COUNT_PORT)], { stdio: ['pipe', 'pipe', 'inherit'] });
    let answer = '';
    nc.stdout.setEncoding('utf8').on('data', (text: string) => (answer += text));
    const exited = new Promise((resolve) => nc.once('exit', resolve));
    nc.stdin.end(Buffer.alloc(300_000, 'x'));
    assert.equal(await within(exited, 10_000, 'nc to end'), 0);
    assert.equal(answer, '300000 bytes\n');
  });

  void test('ports above 32767 are kept', async () => {
    const client = await TcpClient.connect({ host: FRONTEND, port: PORT_ABOVE_32767 });
    assert.equal(await client.ended(), 'fin');
    assert.equal(client.received, `port ${PORT_ABOVE_32767}`);
  });
});
