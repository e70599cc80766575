import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  adminClient,
  AdminProblem,
  adminTarget,
  socketTarget,
  type AdminClient,
} from '../../../src/cli/client.js';
import { aReload, aStatus } from '../../support/api-answers.js';
import { FakeAdmin, problem } from './fake-admin.js';
import { FakeDeps } from './fake-deps.js';

let admin: FakeAdmin;
let client: AdminClient;

before(async () => {
  admin = await new FakeAdmin().start();
  client = adminClient(socketTarget(admin.socket));
});

after(() => admin.stop());

describe('AdminClient', () => {
  test('reads JSON over the Unix socket', async () => {
    admin.answers.set('GET /v1/status', { json: aStatus() });
    assert.deepEqual(await client.status(), aStatus());
  });

  test('escapes names in paths and values in queries', async () => {
    admin.answers.set('GET /v1/flows', { json: { flows: [], matched: 0 } });
    await client.flows({ source: '2001:db8::1', backend: 'nvas/n&a', sort: 'age', limit: 5 });
    assert.deepEqual(admin.seen.at(-1)?.query, {
      source: '2001:db8::1',
      backend: 'nvas/n&a',
      sort: 'age',
      limit: '5',
    });
    admin.answers.set('PUT /v1/backends/nvas/2001%3Adb8%3A%3A1/weight', { status: 204 });
    await client.setWeight({ pool: 'nvas', backend: '2001:db8::1', weight: 7 });
    assert.equal(admin.seen.at(-1)?.body, '{"weight":7}');
    assert.equal(admin.seen.at(-1)?.headers['content-type'], 'application/json');
  });

  test('sends a configuration as it is, umlauts and all, with the gate', async () => {
    admin.answers.set('POST /v1/reload', { json: aReload() });
    await client.reload({ configuration: '{ "größe": 1 }\n', maxMoved: 0.02 });
    const seen = admin.seen.at(-1);
    assert.equal(seen?.body, '{ "größe": 1 }\n');
    assert.deepEqual(seen.query, { maxMoved: '0.02' });
  });

  test('turns a problem into an error with its code, words and findings', async () => {
    const findings = [{ severity: 'error', code: 'LB_LOOP', path: 'rules[0]', message: 'A loop' }];
    admin.answers.set('POST /v1/plan', problem(422, 'LB_CONFIG_INVALID', 'It cannot be used', { findings }));
    await assert.rejects(client.plan({ configuration: '{}' }), (error) => {
      assert.ok(error instanceof AdminProblem);
      const { code, source, message } = error;
      assert.deepEqual([code, source, message], ['LB_CONFIG_INVALID', 'config', 'It cannot be used']);
      assert.deepEqual(error.findings, findings);
      return true;
    });
  });

  test('takes answers that are no problem document, or have a code from elsewhere', async () => {
    admin.answers.set('GET /v1/rules', { status: 502, text: '<html>' });
    await assert.rejects(client.rules(), { code: 'LB_INTERNAL', message: /HTTP status 502/ });
    admin.answers.set('GET /v1/rules', problem(418, 'LB_TEAPOT', 'Short and stout'));
    await assert.rejects(client.rules(), { code: 'LB_INTERNAL', message: 'Short and stout' });
    admin.answers.set('GET /v1/rules', { text: 'OK' });
    await assert.rejects(client.rules(), { code: 'LB_NOT_RUNNING', message: /not the admin API/ });
  });

  test('says in one line that no process answers: no socket, a stale one, or no socket at all', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'haports-cli-'));
    try {
      const missing = join(folder, 'missing.sock');
      await assert.rejects(adminClient(socketTarget(missing)).status(), {
        message: /^No haports answers at ".*missing\.sock" \(ENOENT\).*"socket".*--socket.*$/,
      });
      const file = join(folder, 'file');
      await writeFile(file, '');
      await assert.rejects(adminClient(socketTarget(file)).status(), {
        code: 'LB_NOT_RUNNING',
        source: 'system',
        message: /ECONNREFUSED|ENOTSOCK/,
      });
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  test('says so when the connection is closed without an answer', async () => {
    const server = createServer((socket) => socket.destroy());
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    assert.ok(typeof address === 'object' && address !== null);
    try {
      const http = `http://127.0.0.1:${address.port}`;
      const target = await adminTarget(new FakeDeps(), { config: 'config.json', http });
      await assert.rejects(adminClient(target).status(), {
        code: 'LB_NOT_RUNNING',
        message: /No answer from haports at "http:\/\/127\.0\.0\.1/,
      });
    } finally {
      server.close();
    }
  });

  test('sends the token over TCP', async () => {
    const tcp = await new FakeAdmin().startTcp();
    try {
      tcp.answers.set('GET /v1/status', { json: aStatus() });
      const deps = new FakeDeps();
      deps.files.set('token', 'secret\n');
      const http = `http://127.0.0.1:${tcp.port}`;
      const target = await adminTarget(deps, { config: 'config.json', http, tokenFile: 'token' });
      await adminClient(target).status();
      assert.equal(tcp.seen[0]?.headers.authorization, 'Bearer secret');
    } finally {
      await tcp.stop();
    }
  });
});

describe('adminTarget()', () => {
  const config = 'config.json';

  function withAdmin(
    text = '{ "admin": { "socket": "./of-config.sock" }, "rules": "not even right" }',
  ): FakeDeps {
    const deps = new FakeDeps();
    deps.files.set(config, text);
    return deps;
  }

  test('takes --socket, else HAPORTS_SOCKET, else admin.socket of a configuration, however wrong the rest is', async () => {
    const deps = withAdmin();
    deps.env['HAPORTS_SOCKET'] = '/run/of-environment.sock';
    const path = async (options = {}): Promise<unknown> => adminTarget(deps, { config, ...options });
    assert.deepEqual(await path({ socket: 'a.sock' }), socketTarget('a.sock'));
    assert.deepEqual(await path(), socketTarget('/run/of-environment.sock'));
    deps.env['HAPORTS_SOCKET'] = '';
    assert.deepEqual(await path(), socketTarget('./of-config.sock'));
  });

  test('says how to name a process where nothing does', async () => {
    for (const text of ['{}', '{ "admin": { "http": "127.0.0.1:1" } }', '{ "admin": [', '[]', '']) {
      await assert.rejects(adminTarget(withAdmin(text), { config }), {
        code: 'LB_USAGE',
        message: /"config\.json" has no "admin".*"socket".*--socket or HAPORTS_SOCKET/,
      });
    }
    await assert.rejects(adminTarget(new FakeDeps(), { config }), {
      code: 'LB_USAGE',
      message: /"config\.json" cannot be read: ENOENT/,
    });
  });

  test('refuses addresses that are none, and tokens that would leave the machine unencrypted', async () => {
    const deps = new FakeDeps();
    deps.files.set('token', 'secret');
    for (const http of ['127.0.0.1:9901', 'ftp://127.0.0.1', 'http://']) {
      await assert.rejects(adminTarget(deps, { config, http }), { code: 'LB_USAGE' }, http);
    }
    for (const http of ['http://192.0.2.1:9901', 'http://[2001:db8::1]:9901', 'http://lb.example']) {
      await assert.rejects(adminTarget(deps, { config, http, tokenFile: 'token' }), /only by https/, http);
    }
    for (const http of ['http://[::1]:9901', 'http://localhost:1', 'https://192.0.2.1:9901']) {
      assert.equal(
        (await adminTarget(deps, { config, http, tokenFile: 'token' })).place,
        new URL(http).origin,
      );
    }
    await assert.rejects(adminTarget(deps, { config, http: 'http://[::1]:1', ca: 'nosuch' }), /"nosuch"/);
  });
});
