import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { createRequestGuard, type GuardedRequest, type GuardPolicy } from '../../../src/admin/guard.js';
import { BalancerError } from '../../../src/model/errors.js';

const TOKEN = 'correct-horse-battery';

/** The code that a request is refused with; `served` if it is not. */
function verdict(policy: GuardPolicy, request: Partial<GuardedRequest>): string {
  try {
    createRequestGuard(policy)({
      method: 'GET',
      path: '/v1/status',
      ...request,
      headers: { host: '127.0.0.1:9901', ...request.headers },
    });
    return 'served';
  } catch (error) {
    assert.ok(error instanceof BalancerError);
    return error.code;
  }
}

const open: GuardPolicy = { scheme: 'http' };
const closed: GuardPolicy = { scheme: 'https', token: TOKEN };
const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

describe('createRequestGuard() without a token', () => {
  test('serves literal addresses and localhost, with and without a port', () => {
    for (const host of [
      '127.0.0.1',
      '127.0.0.1:9901',
      '[::1]',
      '[::1]:9901',
      'localhost',
      'LOCALHOST:1',
      '10.0.0.1',
    ]) {
      assert.equal(verdict(open, { headers: { host } }), 'served', host);
    }
  });

  test('refuses names, which a page could have had rebound to this address', () => {
    for (const host of [
      'evil.example',
      'evil.example:9901',
      'localhost.evil.example',
      'evil-localhost',
      'localhost.',
      '127.0.0.1.evil.example',
      '127.0.0.1@evil.example',
      '127.1',
      '0x7f000001',
      '2130706433',
      '127.0.0.1:9901:9901',
      '127.0.0.1:',
      '::1',
      '[::1',
      '[evil.example]',
      'localhost/',
      '',
    ]) {
      assert.equal(verdict(open, { headers: { host } }), 'LB_FORBIDDEN', host);
      assert.equal(verdict(open, { path: '/', headers: { host } }), 'LB_FORBIDDEN', host);
    }
    assert.equal(verdict(open, { headers: { host: undefined } }), 'LB_FORBIDDEN');
    assert.equal(verdict(open, { headers: { host: ['localhost', 'evil.example'] } }), 'LB_FORBIDDEN');
  });

  const write = (headers: GuardedRequest['headers'], method = 'DELETE') => verdict(open, { method, headers });

  test('serves writes without an origin or with its own, and no others', () => {
    assert.equal(write({}), 'served');
    assert.equal(write({ origin: 'http://127.0.0.1:9901' }), 'served');
    assert.equal(write({ origin: 'http://LOCALHOST:9901', host: 'localhost:9901' }), 'served');
    for (const origin of [
      'http://evil.example',
      'http://127.0.0.1',
      'http://127.0.0.1:9902',
      'https://127.0.0.1:9901',
      'http://localhost:9901',
      'http://127.0.0.1:9901.evil.example',
      'null',
    ]) {
      for (const method of ['PUT', 'POST', 'DELETE', 'PATCH']) {
        assert.equal(write({ origin }, method), 'LB_FORBIDDEN', origin);
      }
    }
  });

  test('refuses what a browser says comes from another site, reads of the API too', () => {
    for (const [site, wanted] of [
      ['cross-site', 'LB_FORBIDDEN'],
      ['same-site', 'LB_FORBIDDEN'],
      ['same-origin', 'served'],
      ['none', 'served'],
    ] as const) {
      const headers = { 'sec-fetch-site': site };
      assert.equal(write(headers), wanted);
      assert.equal(verdict(open, { headers }), wanted);
      // A link to the page is fine.
      assert.equal(verdict(open, { path: '/', headers }), 'served');
    }
  });

  test('wants application/json where a write has a body: a form cannot send it', () => {
    const body = (type: string | undefined, length: GuardedRequest['headers'] = { 'content-length': '2' }) =>
      write({ ...length, 'content-type': type }, 'POST');
    for (const type of ['application/json', 'Application/JSON; charset=utf-8']) {
      assert.equal(body(type), 'served');
    }
    for (const type of [
      'text/plain',
      'application/x-www-form-urlencoded',
      'multipart/form-data; boundary=application/json',
      'text/plain; application/json',
      'application/jsonp',
      '',
      undefined,
    ]) {
      assert.equal(body(type), 'LB_USAGE', type);
      assert.equal(body(type, { 'transfer-encoding': 'chunked' }), 'LB_USAGE', type);
      assert.equal(body(type, { 'content-length': '0' }), 'served', type);
    }
  });
});

describe('createRequestGuard() with a token', () => {
  test('serves whoever has it, by any name', () => {
    for (const host of ['127.0.0.1:9901', 'lb1.example', 'lb1.example:9901']) {
      assert.equal(verdict(closed, { headers: { host, ...bearer(TOKEN) } }), 'served');
    }
    assert.equal(verdict(closed, { headers: { authorization: `bearer ${TOKEN}` } }), 'served');
  });

  test('refuses everybody else', () => {
    for (const authorization of [
      undefined,
      '',
      TOKEN,
      'Bearer',
      'Bearer ',
      `Basic ${TOKEN}`,
      `Bearer ${TOKEN}x`,
      `Bearer ${TOKEN.slice(0, -1)}`,
      `Bearer ${TOKEN.toUpperCase()}`,
      `Bearer ${TOKEN} ${TOKEN}`,
      `xBearer ${TOKEN}`,
    ]) {
      assert.equal(verdict(closed, { headers: { authorization } }), 'LB_UNAUTHORIZED', authorization);
    }
  });

  test('serves the files of the dashboard to everybody, and nothing that only looks like them', () => {
    for (const path of ['/', '/assets/app.js']) {
      assert.equal(verdict(closed, { path }), 'served');
      assert.equal(verdict(closed, { path, method: 'HEAD' }), 'served');
      assert.equal(verdict(closed, { path, method: 'POST' }), 'LB_UNAUTHORIZED');
    }
    for (const path of ['/assets', '//', '/v1/assets/x', '/%61ssets/x', '/v1/openapi.json']) {
      assert.equal(verdict(closed, { path }), 'LB_UNAUTHORIZED', path);
    }
  });

  test('still keeps out pages of others', () => {
    const headers = { ...bearer(TOKEN), origin: 'https://evil.example' };
    assert.equal(verdict(closed, { method: 'PUT', headers }), 'LB_FORBIDDEN');
  });
});
