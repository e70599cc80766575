import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, lstatSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { UnixSocketListener } from '../../../src/admin/unix-socket.js';
import { systemSocketFiles } from '../../../src/runtime/files.js';
import { folder } from './admin-lab.js';

function server(t: TestContext): Server {
  const made = createServer((socket) => {
    // Whoever only looks whether somebody answers resets.
    socket.on('error', () => undefined);
    socket.end('hello');
  });
  t.after(() => made.close());
  return made;
}

async function answer(path: string): Promise<string> {
  const socket = connect({ path });
  let text = '';
  socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
  await once(socket, 'close');
  return text;
}

const place = (path: string, options: { takeOver?: boolean } = {}) =>
  new UnixSocketListener(systemSocketFiles, { path, ...options });

const refused = (found: RegExp) => ({ code: 'LB_LISTEN_FAILED', message: found });

/** A socket file that nobody listens on any more: its process was killed. */
function staleSocket(path: string): void {
  const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  spawnSync(process.execPath, ['-e', script]);
  assert.ok(lstatSync(path).isSocket());
}

describe('UnixSocketListener', () => {
  test('listen() makes a socket that only its owner may use, and leaves nothing else behind', async (t) => {
    const before = process.umask(0o000);
    t.after(() => process.umask(before));
    const path = join(folder(t), 'admin.sock');
    await place(path).listen(server(t));
    assert.equal(lstatSync(path).mode & 0o7777, 0o600);
    assert.deepEqual(readdirSync(join(path, '..')), ['admin.sock']);
    assert.equal(process.umask(0o000), 0o000);
    assert.equal(await answer(path), 'hello');
  });

  test('listen() has the socket under no name with more than 0600', async (t) => {
    const seen: number[] = [];
    const path = join(folder(t), 'admin.sock');
    const files = {
      ...systemSocketFiles,
      rename: (from: string, to: string) => {
        seen.push(lstatSync(from).mode & 0o7777);
        assert.ok(!existsSync(to));
        return systemSocketFiles.rename(from, to);
      },
    };
    await new UnixSocketListener(files, { path }).listen(server(t));
    assert.deepEqual(seen, [0o600]);
  });

  test('listen() replaces a socket that nobody answers on', async (t) => {
    const path = join(folder(t), 'admin.sock');
    staleSocket(path);
    await place(path).listen(server(t));
    assert.equal(await answer(path), 'hello');
  });

  test('listen() leaves a socket alone that another process answers on', async (t) => {
    const path = join(folder(t), 'admin.sock');
    await place(path).listen(server(t));
    await assert.rejects(place(path).listen(server(t)), refused(/another process answers there/));
    assert.equal(await answer(path), 'hello');
  });

  test('listen() leaves a socket alone whose process is too busy to answer', async (t) => {
    const path = join(folder(t), 'admin.sock');
    const script = `require('net').createServer().listen({ path: ${JSON.stringify(path)}, backlog: 1 }, () => {
      require('fs').writeSync(1, 'ready');
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 30000);
    })`;
    const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    t.after(() => child.kill('SIGKILL'));
    await once(child.stdout, 'data');
    const waiting = Array.from({ length: 4 }, () => connect({ path }).on('error', () => undefined));
    t.after(() => waiting.forEach((socket) => socket.destroy()));
    await assert.rejects(
      place(path).listen(server(t)),
      refused(/another process may be listening there \(EAGAIN\)/),
    );
    assert.ok(existsSync(path));
  });

  test('listen() leaves alone what is no socket: a file, a folder, a link to a socket', async (t) => {
    const here = folder(t);
    writeFileSync(join(here, 'file'), 'precious');
    mkdirSync(join(here, 'folder'));
    await place(join(here, 'real.sock')).listen(server(t));
    symlinkSync(join(here, 'real.sock'), join(here, 'link'));
    for (const name of ['file', 'folder', 'link']) {
      await assert.rejects(
        place(join(here, name)).listen(server(t)),
        refused(/something else that is no socket/),
      );
    }
    assert.deepEqual(readdirSync(here).sort(), ['file', 'folder', 'link', 'real.sock']);
  });

  test('listen() refuses a path of 108 bytes and takes one of 107', async (t) => {
    const here = folder(t);
    const ofLength = (bytes: number) => join(here, 'x'.repeat(bytes - here.length - 1));
    await assert.rejects(
      place(ofLength(108)).listen(server(t)),
      refused(/it has 108 bytes, must be at most 107/),
    );
    assert.deepEqual(readdirSync(here), []);
    await place(ofLength(107)).listen(server(t));
    assert.equal(await answer(ofLength(107)), 'hello');
  });

  test('listen() rejects where there is no such folder', async (t) => {
    await assert.rejects(
      place(join(folder(t), 'none', 'admin.sock')).listen(server(t)),
      refused(/\((ENOENT|EACCES)\)|: (ENOENT|EACCES);/),
    );
  });

  test('release() removes the socket; closing the server does not', async (t) => {
    const path = join(folder(t), 'admin.sock');
    const own = place(path);
    const listening = server(t);
    await own.listen(listening);
    listening.close();
    await once(listening, 'close');
    assert.ok(existsSync(path));
    await own.release();
    assert.ok(!existsSync(path));
    await own.release();
  });

  test('takeOver: a successor has the path from one moment to the next, and keeps it', async (t) => {
    const path = join(folder(t), 'admin.sock');
    const first = place(path);
    const old = createServer((socket) => socket.end('old'));
    t.after(() => old.close());
    await first.listen(old);
    assert.equal(await answer(path), 'old');
    const second = place(path, { takeOver: true });
    await second.listen(server(t));
    assert.equal(await answer(path), 'hello');
    await first.release();
    old.close();
    await once(old, 'close');
    assert.equal(await answer(path), 'hello');
    await second.release();
    assert.ok(!existsSync(path));
  });
});
