import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { eventually, within } from '../support/deadline.js';
import { labConfig } from '../support/lab-config.js';
import { loopbackBlock } from '../support/loopback.js';
import { TcpClient } from '../support/tcp-client.js';

const MAIN = fileURLToPath(new URL('../../src/main.js', import.meta.url));
const host = loopbackBlock();

let folder: string;
const children: ChildProcess[] = [];

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'haports-main-'));
});

after(async () => {
  for (const child of children) child.kill('SIGKILL');
  await rm(folder, { recursive: true });
});

class Haports {
  readonly child: ChildProcess;
  readonly exited: Promise<number | string>;
  stdout = '';
  stderr = '';

  constructor(...args: readonly string[]) {
    this.child = spawn(process.execPath, [MAIN, ...args], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
    children.push(this.child);
    this.child.stdout?.on('data', (chunk: Buffer) => (this.stdout += chunk.toString()));
    this.child.stderr?.on('data', (chunk: Buffer) => (this.stderr += chunk.toString()));
    this.exited = once(this.child, 'close').then(([code, signal]) => (code ?? signal) as number | string);
  }

  exit(): Promise<number | string> {
    return within(this.exited, 20_000, 'the exit of haports');
  }
}

/** A configuration file on addresses of its own; the backend is not there. */
async function configuration(ports: string, workers: number): Promise<string> {
  const raw = labConfig(host, {
    listenPorts: ports,
    backends: 1,
    top: { dataPlane: { kind: 'userspace', workers } },
  });
  const path = join(folder, `config-${ports}.json`);
  await writeFile(path, JSON.stringify(raw));
  return path;
}

async function untilServing(haports: Haports, port: number): Promise<void> {
  await eventually(
    async () => {
      assert.equal(haports.child.exitCode, null, haports.stderr);
      const client = await TcpClient.connect({ host: host(1), port });
      client.socket.destroy();
      return true;
    },
    20_000,
    'a listener',
  );
}

describe('the haports process', () => {
  test('it exits as its command says, and talks on the right stream', async () => {
    const { version } = JSON.parse(await readFile(join(process.cwd(), 'package.json'), 'utf8')) as {
      version: string;
    };
    const asked = new Haports('--version');
    const wrong = new Haports('nosuch');
    const missing = new Haports('check', '-c', join(folder, 'absent.json'));
    assert.deepEqual([await asked.exit(), asked.stdout, asked.stderr], [0, `${version}\n`, '']);
    assert.equal(await wrong.exit(), 2);
    assert.match(wrong.stderr, /unknown command 'nosuch'/);
    assert.equal(await missing.exit(), 2);
    assert.match(missing.stdout, /LB_CONFIG_UNREADABLE/);
  });

  test('a reader that leaves early is no error', async () => {
    const haports = new Haports('schema');
    haports.child.stdout?.destroy();
    assert.equal(await haports.exit(), 0);
    assert.equal(haports.stderr, '');
  });

  for (const workers of [0, 1]) {
    test(`with ${workers} workers it outlives the reader of its log, and stops on SIGTERM`, async () => {
      const port = 7000 + workers;
      const haports = new Haports('run', '-c', await configuration(String(port), workers));
      await untilServing(haports, port);
      haports.child.stderr?.destroy();
      // Connections to a backend that is not there are worth log lines.
      for (let i = 0; i < 3; i++) {
        await untilServing(haports, port);
        await new Promise((resolve) => setTimeout(resolve, 300));
      }
      assert.equal(haports.child.exitCode, null);
      haports.child.kill('SIGTERM');
      assert.equal(await haports.exit(), 0);
    });
  }

  test('a start that fails exits with 1 and says why in one line, whoever was to listen', async () => {
    const taken = createServer().listen({ host: host(1), port: 7010, exclusive: true });
    await once(taken, 'listening');
    const takenUdp = createSocket('udp4').bind({ address: host(1), port: 7010, exclusive: true });
    await once(takenUdp, 'listening');
    try {
      for (const workers of [0, 1]) {
        const haports = new Haports('run', '-c', await configuration('7010', workers));
        assert.equal(await haports.exit(), 1);
        const said = haports.stderr.split('\n').filter((line) => line.startsWith('haports: '));
        assert.equal(said.length, 1, haports.stderr);
        assert.match(said[0] ?? '', /^haports: LB_LISTEN_FAILED: .*EADDRINUSE/);
        assert.doesNotMatch(haports.stderr, /^ {4}at /m);
      }
    } finally {
      taken.close();
      takenUdp.close();
    }
  });
});
