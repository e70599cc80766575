import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { eventually } from '../support/deadline.js';
import type { HaportsProcess } from '../support/haports-process.js';
import { useLab, whyNoNamespaces } from '../support/lab.js';
import { captureConfiguration, edge, EDGE_BACKENDS, EDGE_FRONTEND } from '../support/topologies.js';
import { names } from '../support/traffic.js';

const BACKENDS = EDGE_BACKENDS[4];
const FRONTEND = EDGE_FRONTEND[4];
/** Clients, all in one namespace: so many that each backend gets some. */
const SOURCES = Array.from({ length: 16 }, (_, index) => `10.50.1.${20 + index}`);
/** SIP, and one RTP stream with its RTCP (RFC 3550, 11: the next higher port). */
const [SIP, RTP, RTCP] = [5060, 10_000, 10_001];
const FILE_BYTES = 200_000;

const skip = whyNoNamespaces('vsftpd', 'in.tftpd', 'curl');

describe('protocols of more than one port, captured, source-ip', { skip }, () => {
  const { c1, lb, be } = useLab(edge()).hosts;
  let haports: HaportsProcess;
  let folder: string;
  /** SHA-256 of each backend's file, which so tells whom it came from. */
  const backendOf = new Map<string, string>();

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'haports-protocols-'));
    await chmod(folder, 0o755);
    await c1.address('lb', ...SOURCES.map((source) => `${source}/24`));
    await be.serve({ addresses: BACKENDS, ports: [SIP, RTP, RTCP] });
    await Promise.all(BACKENDS.map(startServers));
    const rule = { distribution: 'source-ip' };
    haports = await lb.haports(captureConfiguration({}, { rule, dataPlane: { workers: 2 } }));
  });
  after(() => rm(folder, { recursive: true, force: true }));

  /** A real FTP and a real TFTP server, with a file of this backend's own. */
  async function startServers(address: string): Promise<void> {
    const [files, empty] = [join(folder, address), join(folder, `${address}-empty`)];
    await mkdir(files);
    await mkdir(empty);
    const content = randomBytes(FILE_BYTES);
    await writeFile(join(files, 'file'), content, { mode: 0o644 });
    backendOf.set(hashOf(content), address);
    const settings = join(folder, `${address}.conf`);
    await writeFile(settings, vsftpdSettings({ address, files, empty }));
    be.spawn(`vsftpd ${settings}`, { stdio: 'ignore' });
    be.spawn(`in.tftpd --foreground --ipv4 --address ${address}:69 --secure ${files}`, { stdio: 'ignore' });
    const isThere = async (filter: string): Promise<boolean> =>
      (await be.must(`ss -Hln ${filter}`)).includes(address);
    await eventually(
      async () => (await isThere('-t sport = :21')) && (await isThere('-u sport = :69')),
      20_000,
      `servers on ${address}`,
    );
  }

  /** Fetches the file from each client address in turn; gives the backend by client. */
  async function fetchAll(
    url: string,
    options: readonly string[] = [],
  ): Promise<ReadonlyMap<string, string>> {
    const served = new Map<string, string>();
    for (const source of SOURCES) {
      const file = join(folder, 'got');
      const args = ['-sS', '-m', '20', '--interface', source, '-o', file, ...options, url];
      const { code, stderr } = await c1.run(['curl', ...args]);
      assert.equal(code, 0, `curl ${args.join(' ')}: ${stderr}\n${haports.log().slice(-2000)}`);
      const backend = backendOf.get(hashOf(await readFile(file)));
      assert.ok(backend !== undefined, `${source} got a file that no backend has`);
      served.set(source, backend);
      await rm(file);
    }
    assert.equal(new Set(served.values()).size, BACKENDS.length, 'each backend serves some of the clients');
    return served;
  }

  test('FTP passive: control and data connections of a client meet at one backend', async () => {
    const url = `ftp://${FRONTEND}/file`;
    // PASV with the address that the server names, which is the frontend's; then EPSV, which names the port alone.
    const pasv = await fetchAll(url, ['--disable-epsv', '--no-ftp-skip-pasv-ip']);
    assert.deepEqual(await fetchAll(url), pasv);
  });

  test('TFTP: the server answers from a port of its own choice', async () => {
    const tftp = await fetchAll(`tftp://${FRONTEND}/file`);
    const ftp = await fetchAll(`ftp://${FRONTEND}/file`);
    assert.deepEqual(tftp, ftp, 'source-ip: a client has one backend, whatever the protocol');
  });

  test('SIP and RTP: call and media of a client meet at one backend', async () => {
    const ports = [SIP, RTP, RTCP];
    // The same number at both ends, as such clients like it.
    const to = { protocol: 'udp', host: FRONTEND } as const;
    const answers = await c1
      .traffic()
      .ask(SOURCES.flatMap((source) => ports.map((port) => ({ ...to, source, port, sourcePort: port }))));
    const backends = new Set<string>();
    for (const [index, source] of SOURCES.entries()) {
      const own = answers.slice(index * ports.length, (index + 1) * ports.length);
      assert.deepEqual(
        own.map(({ port }) => port),
        ports,
        `${source}: ${JSON.stringify(own)}`,
      );
      const those = new Set(names(own));
      assert.equal(those.size, 1, `${source} reached ${[...those].join(', ')}`);
      for (const backend of those) backends.add(backend);
    }
    assert.equal(backends.size, BACKENDS.length, 'each backend serves some of the clients');
  });
});

function vsftpdSettings(of: {
  readonly address: string;
  readonly files: string;
  readonly empty: string;
}): string {
  const settings = {
    listen: 'YES',
    listen_address: of.address,
    background: 'NO',
    anonymous_enable: 'YES',
    local_enable: 'NO',
    anon_root: of.files,
    // Whose home must exist; nobody's does not.
    ftp_username: 'daemon',
    secure_chroot_dir: of.empty,
    // Its own namespaces and filter are refused in some containers.
    isolate: 'NO',
    isolate_network: 'NO',
    seccomp_sandbox: 'NO',
    xferlog_enable: 'NO',
    pasv_address: FRONTEND,
  };
  return Object.entries(settings)
    .map(([key, value]) => `${key}=${value}\n`)
    .join('');
}

function hashOf(content: Uint8Array): string {
  return createHash('sha256').update(content).digest('hex');
}
