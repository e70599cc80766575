import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { hasCommand, runCommand } from '../support/commands.js';
import { eventually } from '../support/deadline.js';
import { HaportsProcess } from '../support/haports-process.js';
import { labConfig } from '../support/lab-config.js';
import { loopbackBlock } from '../support/loopback.js';
import { sumMetric } from '../support/metrics-text.js';

const host = loopbackBlock();
const FRONTEND = host(1);
const BACKENDS = [host(11), host(12), host(13)];
/** Requests go there; each transfer is served from a port of its own (RFC 1350, section 4). */
const TFTP_PORT = 8069;
const TRANSFER_PORTS = { first: 20_000, last: 20_063 };
const CLIENTS = 12;
/** Some 200 blocks of 512 bytes, and a last one that is not full. */
const FILE_BYTES = 100_003;

const configuration = labConfig(host, {
  listenPorts: `${TFTP_PORT},${TRANSFER_PORTS.first}-${TRANSFER_PORTS.last}`,
  rule: { distribution: 'source-ip' },
});

async function whyNot(): Promise<string | undefined> {
  for (const tool of ['in.tftpd', 'curl']) if (!(await hasCommand(tool))) return `${tool} is not installed`;
  return process.getuid?.() === 0 ? undefined : 'in.tftpd changes its root, which needs root';
}

function digest(data: Buffer): string {
  return createHash('sha256').update(data).digest('hex');
}

void describe('TFTP through an HA-ports rule with source-ip distribution', () => {
  let folder = '';
  let haports: HaportsProcess | undefined;
  let missing: string | undefined;
  const servers: ChildProcess[] = [];
  /** Which backend has a file of this digest. */
  const backendOf = new Map<string, string>();

  before(async () => {
    missing = await whyNot();
    if (missing !== undefined) return;
    folder = await mkdtemp(join(tmpdir(), 'haports-tftp-'));
    for (const address of BACKENDS) {
      const root = join(folder, address);
      await mkdir(root);
      const content = randomBytes(FILE_BYTES);
      await writeFile(join(root, 'file'), content);
      // The server reads and writes as nobody.
      await writeFile(join(root, 'upload'), '');
      await chmod(folder, 0o755);
      await chmod(join(root, 'upload'), 0o666);
      backendOf.set(digest(content), address);
      const ports = `${TRANSFER_PORTS.first}:${TRANSFER_PORTS.last}`;
      const args = ['-L', '-4', '-a', `${address}:${TFTP_PORT}`, '-R', ports, '-s', root];
      servers.push(spawn('in.tftpd', args, { stdio: 'ignore' }));
    }
    haports = await HaportsProcess.start(configuration);
  });

  after(async () => {
    await haports?.stop();
    for (const server of servers) server.kill();
    if (folder !== '') await rm(folder, { recursive: true, force: true });
  });

  /** curl against the frontend, from a client's own address. */
  async function tftp(client: string, ...args: readonly string[]): Promise<void> {
    const options = ['--silent', '--show-error', '--max-time', '20', '--interface', client];
    const { code, stderr } = await runCommand('curl', [...options, ...args], { timeoutMs: 25_000 });
    assert.equal(code, 0, stderr);
  }

  void test('every client gets whole files, each from one backend', async (t) => {
    if (missing !== undefined) {
      t.skip(missing);
      return;
    }
    const url = `tftp://${FRONTEND}:${TFTP_PORT}/file`;
    const firstPath = join(folder, 'first');
    await eventually(() => tftp(host(100), '-o', firstPath, url).then(() => true), 10_000, 'the servers');
    const served = new Set<string>();
    await Promise.all(
      Array.from({ length: CLIENTS }, async (_, n) => {
        const path = join(folder, `client-${n}`);
        const homes = new Set<string | undefined>();
        for (let round = 0; round < 2; round++) {
          await tftp(host(101 + n), '-o', path, url);
          homes.add(backendOf.get(digest(await readFile(path))));
        }
        const [home] = homes;
        assert.equal(homes.size, 1, 'one source address, one backend');
        assert.ok(home !== undefined, 'a backend has this file');
        served.add(home);
      }),
    );
    assert.ok(served.size > 1, 'several backends take part');
    t.diagnostic(`${CLIENTS} clients got 2 files of ${FILE_BYTES} bytes from ${served.size} backends`);
    const metrics = await haports?.metrics();
    assert.equal(sumMetric(metrics ?? [], 'haports_drops_total'), 0);
  });

  void test('a client can write', async (t) => {
    if (missing !== undefined) {
      t.skip(missing);
      return;
    }
    const content = randomBytes(FILE_BYTES);
    const path = join(folder, 'sent');
    await writeFile(path, content);
    await tftp(host(100), '-T', path, `tftp://${FRONTEND}:${TFTP_PORT}/upload`);
    const got = await Promise.all(BACKENDS.map((address) => readFile(join(folder, address, 'upload'))));
    assert.equal(got.filter((one) => one.equals(content)).length, 1, 'one backend has it, whole');
  });
});
