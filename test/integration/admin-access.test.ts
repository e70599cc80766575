import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { StatusView } from '../../src/api/views.js';
import { adminApi, ask } from '../support/admin-api.js';
import { eventually } from '../support/deadline.js';
import { haportsHere } from '../support/command-here.js';
import { haports, HaportsProcess } from '../support/haports-process.js';
import { labConfig } from '../support/lab-config.js';
import { loopbackBlock } from '../support/loopback.js';
import { TcpClient } from '../support/tcp-client.js';
import { makePair } from '../support/certificate.js';

const ADMIN_PORT = 9901;
const TOKEN = '6f7c0e1b9d2a4835a1c4e7f0b3d6980e';

void describe('who may use the admin API of the built process', () => {
  const host = loopbackBlock();
  const other = loopbackBlock(1);
  const own = `${host(1)}:${ADMIN_PORT}`;
  /** Of the socket alone, and of all other files. */
  let folder: string;
  let files: string;
  let socket: string;
  let first: HaportsProcess;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'haports-test-'));
    files = await mkdtemp(join(tmpdir(), 'haports-test-'));
    socket = join(folder, 'admin.sock');
    first = await HaportsProcess.start(configuration(host, { http: own, socket }));
  });

  after(async () => {
    await first.kill();
    for (const each of [folder, files]) await rm(each, { recursive: true, force: true });
  });

  const configuration = (place: (number: number) => string, admin: object, top: object = {}) =>
    labConfig(place, {
      listenPorts: '8000-8003',
      rule: { allDown: 'reset' },
      top: { dataPlane: { workers: 0 }, admin, ...top },
    });

  const pidBehind = async (): Promise<number> =>
    ((await adminApi(socket, 'GET', '/v1/status')).body as StatusView).pid;

  test('the Unix socket is its owner’s alone, and refused to a second process', async () => {
    const found = await stat(socket);
    assert.ok(found.isSocket());
    assert.equal(found.mode & 0o777, 0o600);
    assert.deepEqual(await readdir(folder), ['admin.sock']);

    // A second process on the same socket ends with one line, and leaves the first one alone.
    const file = join(files, 'second.json');
    await writeFile(file, JSON.stringify(configuration(other, { socket })));
    const second = await haports(['run', '-c', file]);
    assert.equal(second.code, 1);
    const told = second.stderr.split('\n').filter((line) => line.includes('another process answers there'));
    assert.equal(told.length, 1, second.stderr);
    assert.ok(told[0]!.includes('LB_LISTEN_FAILED') && told[0]!.includes(socket), told[0]);
    assert.doesNotMatch(second.stderr, /\n\s+at /, 'no stack');
    assert.equal(await pidBehind(), first.pid);
    assert.deepEqual(await readdir(folder), ['admin.sock']);
  });

  test('over HTTP on loopback, pages of other sites see and change nothing', async () => {
    const at = { host: host(1), port: ADMIN_PORT };
    for (const path of ['/', '/assets/app.js', '/v1/status', '/v1/flows']) {
      const { status, text } = await ask(at, path, { headers: { host: 'evil.example' } });
      assert.equal(status, 403, path);
      assert.ok(text.includes('LB_FORBIDDEN') && !text.includes('nva-1'), text);
    }
    assert.equal((await ask(at, '/v1/status', { headers: { host: 'localhost' } })).status, 200);

    const weigh = async (headers: Readonly<Record<string, string>>): Promise<readonly unknown[]> => {
      const asked = { method: 'PUT', body: { weight: 7 }, headers };
      const { status } = await ask(at, '/v1/backends/nvas/nva-1/weight', asked);
      const { json } = await ask(at, '/v1/pools/nvas');
      const { backends } = json as { backends: { name: string; weight: number }[] };
      return [status, backends.find(({ name }) => name === 'nva-1')?.weight];
    };
    assert.deepEqual(await weigh({ origin: 'http://evil.example' }), [403, 1]);
    assert.deepEqual(await weigh({ 'sec-fetch-site': 'cross-site' }), [403, 1]);
    assert.deepEqual(await weigh({ 'content-type': 'text/plain' }), [400, 1], 'what a form can send');
    assert.deepEqual(await weigh({ origin: `http://${own}`, 'sec-fetch-site': 'same-origin' }), [204, 7]);
  });

  test('an address that others can reach needs TLS and a token: check says so', async () => {
    const file = join(files, 'open.json');
    for (const admin of [
      { http: '0.0.0.0:9901' },
      { http: '[::]:9901' },
      { http: '192.0.2.1:9901', token: TOKEN },
    ]) {
      await writeFile(file, JSON.stringify(configuration(host, admin)));
      const { code, stdout, stderr } = await haportsHere(['check', '-c', file]);
      assert.equal(code, 2, JSON.stringify(admin));
      assert.match(stdout + stderr, /LB_ADMIN_EXPOSED/);
      assert.ok(!(stdout + stderr).includes(TOKEN));
    }
    const { code, stderr } = await haportsHere(['run', '-c', file]);
    assert.equal(code, 2, 'and run does not start');
    assert.match(stderr, /LB_ADMIN_EXPOSED/);
  });

  describe('after a process that was killed, with TLS and a token', () => {
    let flowLog: string;
    let certificate: string;
    let admin: object;
    let top: object;
    let pair: ReturnType<typeof makePair>;
    let balancer: HaportsProcess;

    before(async () => {
      flowLog = join(files, 'flow.log');
      certificate = join(files, 'certificate.pem');
      const key = join(files, 'key.pem');
      pair = makePair(`IP:${host(1)}`);
      assert.ok(pair !== undefined, 'openssl is installed');
      await writeFile(certificate, pair.certificate);
      await writeFile(key, pair.key);
      admin = { http: own, tls: { certificate, key }, token: TOKEN, socket };
      top = { flowLog: { file: flowLog }, logging: { level: 'trace' } };

      await first.kill();
      assert.ok((await stat(socket)).isSocket(), 'it is left behind');
      balancer = await HaportsProcess.start(configuration(host, admin, top));
    });
    after(() => balancer.kill());

    test('the socket is taken over', async () => {
      assert.equal(await pidBehind(), balancer.pid);
      assert.equal((await stat(socket)).mode & 0o777, 0o600);
    });

    test('only who has the token is served, and neither it nor the key is told to anybody', async () => {
      const at = { host: host(1), port: ADMIN_PORT, ca: pair!.certificate };
      const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
      const answers = [];
      for (const path of ['/v1/status', '/v1/flows', '/v1/events', '/v1/openapi.json']) {
        for (const headers of [{}, bearer(TOKEN.slice(1)), bearer(`${TOKEN}0`), { authorization: TOKEN }]) {
          const refused = await ask(at, path, { headers });
          assert.equal(refused.status, 401, `${path} ${JSON.stringify(headers)}`);
          answers.push(refused.text);
        }
      }
      const { status, text } = await ask(at, '/v1/status', { headers: bearer(TOKEN) });
      assert.equal(status, 200);
      answers.push(text);
      assert.equal((await ask(at, '/')).status, 200, 'the dashboard asks for the token itself');
      const plain = await ask({ host: host(1), port: ADMIN_PORT }, '/v1/status').catch(() => undefined);
      assert.notEqual(plain?.status, 200, 'no plain HTTP');

      // Its own command, as an operator would use it.
      await writeFile(join(files, 'token'), `${TOKEN}\n`);
      const command = await haportsHere([
        ...['status', '--http', `https://${own}`],
        ...['--token-file', join(files, 'token'), '--ca', certificate],
      ]);
      assert.equal(command.code, 0, command.stderr);
      answers.push(command.stdout, command.stderr);

      // A flow, a configuration that is refused and one that is taken over: each leaves lines.
      await TcpClient.connect({ host: host(1), port: 8000 }).then((client) => client.destroy());
      const taken = { ...configuration(host, admin, top), shutdown: { deadline: '2s' } };
      for (const body of [{ ...taken, token: TOKEN }, taken]) {
        for (const path of ['/v1/plan', '/v1/reload']) {
          answers.push(JSON.stringify((await adminApi(socket, 'POST', path, body)).body));
        }
      }
      assert.match(answers.at(-1)!, /"report"/, 'it was taken over');
      const badToken = { ...taken, admin: { ...admin, token: `${TOKEN} with a space` } };
      answers.push(JSON.stringify((await adminApi(socket, 'POST', '/v1/reload', badToken)).body));
      const flows = await eventually(
        async () => {
          const written = await readFile(flowLog, 'utf8');
          return (written.match(/"type":"config"/g) ?? []).length >= 2 && written;
        },
        5000,
        'both configurations in the flow log',
      );
      const keyText = pair!.key.split('\n')[1]!;
      for (const [where, what] of [
        ['flow log', flows],
        ['log', balancer.log()],
        ...answers.map((answer) => ['answer', answer] as const),
      ] as const) {
        assert.ok(!what.includes(TOKEN), `the token is in the ${where}: ${what}`);
        assert.ok(!what.includes(keyText), `the key is in the ${where}`);
      }
    });

    test('the socket is gone after a stop', async () => {
      assert.equal(await balancer.stop(), 0);
      assert.deepEqual(await readdir(folder), []);
    });
  });
});
