import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
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
  let folder: string;
  let socket: string;
  let running: HaportsProcess[];

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'haports-test-'));
    socket = join(folder, 'admin.sock');
    running = [];
  });

  afterEach(async () => {
    for (const balancer of running) await balancer.kill();
    await rm(folder, { recursive: true, force: true });
  });

  const configuration = (place: (number: number) => string, admin: object, top: object = {}) =>
    labConfig(place, {
      listenPorts: '8000-8003',
      rule: { allDown: 'reset' },
      top: { dataPlane: { workers: 0 }, admin, ...top },
    });

  const start = async (place: (number: number) => string, admin: object, top: object = {}) => {
    const balancer = await HaportsProcess.start(configuration(place, admin, top));
    running.push(balancer);
    return balancer;
  };

  const pidBehind = async (): Promise<number> =>
    ((await adminApi(socket, 'GET', '/v1/status')).body as StatusView).pid;

  test('the Unix socket is its owner’s alone, refused to a second process, and gone after the stop', async () => {
    const first = await start(host, { socket });
    const found = await stat(socket);
    assert.ok(found.isSocket());
    assert.equal(found.mode & 0o777, 0o600);
    assert.deepEqual(await readdir(folder), ['admin.sock']);

    // A second process on the same socket ends with one line, and leaves the first one alone.
    const file = join(folder, 'second.json');
    await writeFile(file, JSON.stringify(configuration(other, { socket })));
    const second = await haports(['run', '-c', file]);
    assert.equal(second.code, 1);
    const told = second.stderr.split('\n').filter((line) => line.includes('another process answers there'));
    assert.equal(told.length, 1, second.stderr);
    assert.ok(told[0]!.includes('LB_LISTEN_FAILED') && told[0]!.includes(socket), told[0]);
    assert.doesNotMatch(second.stderr, /\n\s+at /, 'no stack');
    assert.equal(await pidBehind(), first.pid);
    assert.deepEqual((await readdir(folder)).sort(), ['admin.sock', 'second.json']);
    assert.equal(await first.stop(), 0);
    assert.deepEqual(await readdir(folder), ['second.json']);
  });

  test('the socket of a process that was killed is taken over', async () => {
    const first = await start(host, { socket });
    await first.kill();
    assert.ok((await stat(socket)).isSocket(), 'it is left behind');
    const second = await start(other, { socket });
    assert.equal(await pidBehind(), second.pid);
    assert.equal((await stat(socket)).mode & 0o777, 0o600);
  });

  test('over HTTP on loopback, pages of other sites see and change nothing', async () => {
    const own = `${host(1)}:${ADMIN_PORT}`;
    await start(host, { http: own, socket });
    const at = { host: host(1), port: ADMIN_PORT };
    for (const path of ['/', '/assets/admin/page/app.js', '/v1/status', '/v1/flows']) {
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
    const file = join(folder, 'open.json');
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
    const { code, stderr } = await haports(['run', '-c', file]);
    assert.equal(code, 2, 'and run does not start');
    assert.match(stderr, /LB_ADMIN_EXPOSED/);
  });

  test('only who has the token is served, and neither it nor the key is told to anybody', async () => {
    const flowLog = join(folder, 'flow.log');
    const tls = { certificate: join(folder, 'certificate.pem'), key: join(folder, 'key.pem') };
    const pair = makePair(`IP:${host(1)}`);
    assert.ok(pair !== undefined, 'openssl is installed');
    for (const name of ['certificate', 'key'] as const) await writeFile(tls[name], pair[name]);
    const http = `${host(1)}:${ADMIN_PORT}`;
    const balancer = await start(
      host,
      { http, tls, token: TOKEN, socket },
      { flowLog: { file: flowLog }, logging: { level: 'trace' } },
    );
    const at = { host: host(1), port: ADMIN_PORT, ca: pair.certificate };
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
    await writeFile(join(folder, 'token'), `${TOKEN}\n`);
    const command = await haportsHere([
      ...['status', '--http', `https://${http}`],
      ...['--token-file', join(folder, 'token'), '--ca', tls.certificate],
    ]);
    assert.equal(command.code, 0, command.stderr);
    answers.push(command.stdout, command.stderr);

    // A flow, a configuration that is refused and one that is taken over: each leaves lines.
    await TcpClient.connect({ host: host(1), port: 8000 }).then((client) => client.destroy());
    const secret = { http, tls, token: TOKEN, socket };
    const top = { flowLog: { file: flowLog }, logging: { level: 'trace' } };
    const taken = { ...configuration(host, secret, top), shutdown: { deadline: '2s' } };
    for (const body of [{ ...taken, token: TOKEN }, taken]) {
      for (const path of ['/v1/plan', '/v1/reload']) {
        answers.push(JSON.stringify((await adminApi(socket, 'POST', path, body)).body));
      }
    }
    assert.match(answers.at(-1)!, /"report"/, 'it was taken over');
    const badToken = { ...taken, admin: { ...secret, token: `${TOKEN} with a space` } };
    answers.push(JSON.stringify((await adminApi(socket, 'POST', '/v1/reload', badToken)).body));
    const flows = await eventually(
      async () => {
        const written = await readFile(flowLog, 'utf8');
        return (written.match(/"type":"config"/g) ?? []).length >= 2 && written;
      },
      5000,
      'both configurations in the flow log',
    );
    const keyText = pair.key.split('\n')[1]!;
    for (const [where, what] of [
      ['flow log', flows],
      ['log', balancer.log()],
      ...answers.map((answer) => ['answer', answer] as const),
    ] as const) {
      assert.ok(!what.includes(TOKEN), `the token is in the ${where}: ${what}`);
      assert.ok(!what.includes(keyText), `the key is in the ${where}`);
    }
  });
});
