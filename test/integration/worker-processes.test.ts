import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { forkSharingWorker, forkWorker } from '../../src/planes/workers/process.js';
import type { PeerProcess } from '../../src/runtime/peer.js';
import { builtFile } from '../support/commands.js';
import { eventually, within } from '../support/deadline.js';
import { isAlive } from '../support/haports-process.js';
import { loopbackBlock } from '../support/loopback.js';

/** The compiled launcher, for the child's end of the channel. */
const LAUNCHER = pathToFileURL(builtFile('src/planes/workers/process')).href;

/** Echoes what it gets, and does what some words say. */
const ECHO = `
import { getHeapStatistics } from 'node:v8';
channel.onClose(() => process.exit(7));
channel.onMessage((message) => {
  if (message === 'exit') process.exit(3);
  if (message === 'throw') throw new Error('on purpose');
  if (message === 'leave') {
    setImmediate(() => {
      process.disconnect();
      channel.send('nobody hears this');
    });
    return;
  }
  if (message === 'memory') {
    const { MALLOC_ARENA_MAX: arenas, MALLOC_TRIM_THRESHOLD_: kept } = process.env;
    const heapLimit = getHeapStatistics().heap_size_limit;
    channel.send({ arenas, kept, heapLimit, options: process.execArgv });
    return;
  }
  channel.send(message);
});
`;

/** Listens for messages only after a while, as a worker that loads its hasher does. */
const LATE = `
await new Promise((resolve) => setTimeout(resolve, 200));
channel.onMessage((message) => channel.send(message));
`;

let folder: string;
const running: PeerProcess[] = [];

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'haports-worker-'));
  await write('echo.mjs', ECHO);
  await write('late.mjs', LATE);
});

after(async () => {
  for (const worker of running) worker.kill();
  await Promise.all(running.map(({ exited }) => exited));
  await rm(folder, { recursive: true });
});

function launch(script: string, start = forkWorker): PeerProcess {
  const worker = start(join(folder, script));
  running.push(worker);
  return worker;
}

function nextMessage({ channel }: PeerProcess): Promise<unknown> {
  return within(new Promise((resolve) => channel.onMessage(resolve)), 10_000, 'a message of the worker');
}

/** What the worker says while all these are sent to it, as many as they are. */
async function echoes(worker: PeerProcess, messages: readonly unknown[]): Promise<readonly unknown[]> {
  const received: unknown[] = [];
  const all = new Promise<void>((resolve) =>
    worker.channel.onMessage((message) => {
      if (received.push(message) === messages.length) resolve();
    }),
  );
  for (const message of messages) worker.channel.send(message);
  await within(all, 10_000, `${messages.length} echoes`);
  return received;
}

/** Kills the worker, and waits for its end. */
async function killed(worker: PeerProcess): Promise<void> {
  worker.kill();
  assert.equal(await exitOf(worker), 'signal SIGKILL');
}

/** A worker whose script is this, with `channel` to this process. */
async function write(script: string, body: string): Promise<void> {
  const head = `import { parentChannel } from ${JSON.stringify(LAUNCHER)};\nconst channel = parentChannel();\n`;
  await writeFile(join(folder, script), head + body);
}

interface WorkerMemory {
  readonly arenas: string;
  readonly kept: string;
  readonly heapLimit: number;
  readonly options: readonly string[];
}

async function memoryOf(worker: PeerProcess): Promise<WorkerMemory> {
  const [memory] = await echoes(worker, ['memory']);
  await killed(worker);
  return memory as WorkerMemory;
}

/** Of a Node process of its own. */
function heapLimitWith(option: string): number {
  const { stdout } = spawnSync(process.execPath, [
    option,
    '-p',
    'require("v8").getHeapStatistics().heap_size_limit',
  ]);
  return Number(stdout.toString());
}

function exitOf({ exited }: PeerProcess): Promise<string> {
  return within(exited, 10_000, 'the exit of the worker');
}

function closeOf({ channel }: PeerProcess): Promise<void> {
  return within(new Promise<void>((resolve) => channel.onClose(resolve)), 10_000, 'the close of the channel');
}

describe('forkWorker()', () => {
  test('messages cross as structured clones, in order', async () => {
    const worker = launch('echo.mjs');
    assert.ok(worker.pid !== undefined && worker.pid !== process.pid);
    const sent = {
      table: Uint16Array.of(1, 65535),
      names: new Map([['a', new Set([1n])]]),
      nothing: undefined,
      endless: Infinity,
    };
    assert.deepEqual(await echoes(worker, ['first', sent, 'last']), ['first', sent, 'last']);
    await killed(worker);
  });

  test('a message that comes before the worker listens waits for it', async () => {
    const worker = launch('late.mjs');
    assert.deepEqual(await echoes(worker, ['early']), ['early']);
    await killed(worker);
  });

  test('the exit code is the evidence, and the channel closes', async () => {
    const worker = launch('echo.mjs');
    const closed = closeOf(worker);
    worker.channel.send('exit');
    assert.equal(await exitOf(worker), 'exit code 3');
    await closed;
  });

  test('a signal is the evidence', async () => {
    const worker = launch('echo.mjs');
    await echoes(worker, ['hello']);
    assert.ok(worker.pid !== undefined);
    process.kill(worker.pid, 'SIGTERM');
    assert.equal(await exitOf(worker), 'signal SIGTERM');
  });

  test('a script that is not there is an exit, not an error of this process', async () => {
    const worker = launch('absent.mjs');
    const closed = closeOf(worker);
    worker.channel.send('nobody hears this');
    assert.equal(await exitOf(worker), 'exit code 1');
    await closed;
  });

  test('send() and kill() after the exit are silent', async () => {
    const worker = launch('echo.mjs');
    worker.channel.send('exit');
    // Right into the death, too.
    for (let i = 0; i < 200; i++) worker.channel.send({ i, filler: 'x'.repeat(1000) });
    await exitOf(worker);
    worker.channel.send('late');
    worker.kill();
    // An error of the broken pipe would come with a later turn, and fail this file.
    await new Promise((resolve) => setTimeout(resolve, 50));
    worker.channel.send('later');
  });

  test('a worker that leaves closes the channel, whose other end then is silent', async () => {
    const worker = launch('echo.mjs');
    const closed = closeOf(worker);
    worker.channel.send('leave');
    await closed;
    worker.channel.send('nobody hears this');
    // Nothing keeps it alive; its own end was told of the close.
    assert.equal(await exitOf(worker), 'exit code 7');
  });

  test('a worker has the memory settings for bulk streams and many flows', async () => {
    assert.deepEqual(await memoryOf(launch('echo.mjs')), {
      arenas: process.env['MALLOC_ARENA_MAX'] ?? '1',
      kept: process.env['MALLOC_TRIM_THRESHOLD_'] ?? '67108864',
      heapLimit: heapLimitWith('--max-semi-space-size=2'),
      options: ['--initial-heap-size=96', '--no-concurrent-array-buffer-sweeping', ...process.execArgv],
    });
  });

  test('an operator has the last word on memory when this process was given settings', async () => {
    const settings = { MALLOC_ARENA_MAX: '2', NODE_OPTIONS: '--max-semi-space-size=4' };
    const saved = Object.keys(settings).map((name) => [name, process.env[name]] as const);
    Object.assign(process.env, settings);
    const worker = launch('echo.mjs');
    for (const [name, value] of saved) {
      if (value === undefined) Reflect.deleteProperty(process.env, name);
      else process.env[name] = value;
    }
    const memory = await memoryOf(worker);
    assert.equal(memory.arenas, '2');
    assert.equal(memory.heapLimit, heapLimitWith('--max-semi-space-size=4'));
  });
});

describe('forkSharingWorker()', () => {
  test('a message that comes before the worker listens waits for it, and all come in order', async () => {
    const worker = launch('late.mjs', forkSharingWorker);
    const sent = ['early', new Map([['a', 1n]]), 'last'];
    assert.deepEqual(await echoes(worker, sent), sent);
    await killed(worker);
  });

  test('the exit is told after the channel has closed', async () => {
    const worker = launch('echo.mjs', forkSharingWorker);
    const order: string[] = [];
    worker.channel.onClose(() => order.push('close'));
    worker.channel.send('exit');
    assert.equal(await exitOf(worker), 'exit code 3');
    assert.deepEqual(order, ['close']);
  });

  test('the exit is told when a worker dies while sockets are on their way to it', async () => {
    await write(
      'claimant.mjs',
      `
      import { createServer } from 'node:net';
      channel.onMessage((host) => {
        for (let port = 7100; port < 7110; port++) createServer().listen({ host, port });
        channel.send('asked');
        // The sockets are never acknowledged.
        setImmediate(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0));
      });
      `,
    );
    for (let round = 0; round < 3; round++) {
      const worker = launch('claimant.mjs', forkSharingWorker);
      const closed = closeOf(worker);
      assert.deepEqual(await echoes(worker, [loopbackBlock(7)(2)]), ['asked']);
      // The primary answers with the first socket, and keeps the others until that is acknowledged.
      await new Promise((resolve) => setImmediate(resolve));
      await killed(worker);
      await closed;
    }
  });

  test('a worker that loses its channel lives on', async () => {
    await write(
      'orphan.mjs',
      `
      channel.onMessage(() => process.disconnect());
      channel.onClose(() => setTimeout(() => process.exit(9), 300));
      `,
    );
    const worker = launch('orphan.mjs', forkSharingWorker);
    worker.channel.send('leave');
    assert.equal(await exitOf(worker), 'exit code 9');
  });

  test('workers listen on the same port, whose connections go on when one of them dies', async () => {
    await write(
      'listener.mjs',
      `
      import { createServer } from 'node:net';
      channel.onMessage(({ host, port }) => {
        const server = createServer((socket) => socket.end(String(process.pid)));
        server.on('error', (error) => channel.send(error.code));
        server.listen({ host, port }, () => channel.send('listening'));
      });
      `,
    );
    const workers = [0, 1].map(() => launch('listener.mjs', forkSharingWorker));
    const address = { host: loopbackBlock(7)(1), port: 7000 };
    for (const worker of workers) assert.deepEqual(await echoes(worker, [address]), ['listening']);
    await killed(workers[0]!);
    for (let n = 0; n < 10; n++) {
      const socket = connect(address);
      const [said] = (await within(once(socket, 'data'), 5000, 'an answer')) as [Buffer];
      assert.equal(said.toString(), String(workers[1]!.pid));
    }
    await killed(workers[1]!);
  });
});

describe('parentChannel()', () => {
  test('a worker is told when the process that forked it is gone', async () => {
    const parent = `
      import { forkWorker } from ${JSON.stringify(LAUNCHER)};
      const worker = forkWorker(${JSON.stringify(join(folder, 'echo.mjs'))});
      worker.channel.onMessage(() => process.kill(process.pid, 'SIGKILL'));
      process.on('message', () => worker.channel.send('hello'));
      process.send(worker.pid);
    `;
    await writeFile(join(folder, 'parent.mjs'), parent);
    const middle = launch('parent.mjs');
    const pid = await nextMessage(middle);
    assert.ok(typeof pid === 'number');
    middle.channel.send('now');
    assert.equal(await exitOf(middle), 'signal SIGKILL');
    await eventually(async () => !(await isAlive(pid)), 10_000, `worker ${pid} to end with its parent`);
  });
});
