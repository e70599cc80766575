import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Operations } from '../../../src/api/contract.js';
import { ipAddress } from '../../../src/model/address.js';
import { BalancerError, type ErrorCode } from '../../../src/model/errors.js';
import { LineRecorder } from '../observe/line-recorder.js';
import { ask, type Asked } from '../../support/admin-api.js';
import { adminLab, problemOf } from './admin-lab.js';

/** Method and path, what Operations are asked, and the body. */
type Case = readonly [line: string, call: readonly [name: string, request: object], body?: unknown];

const NVA = '/v1/backends/nvas/nva-1';
const named = { pool: 'nvas', backend: 'nva-1' };
const page = { sort: 'none', limit: 100 };
const tcp = {
  protocol: 'tcp',
  source: ipAddress('192.0.2.7'),
  sourcePort: 40_000,
  destination: ipAddress('192.0.2.1'),
  destinationPort: 443,
};
const udp = {
  protocol: 'udp',
  source: ipAddress('2001:db8::7'),
  sourcePort: 1,
  destination: ipAddress('fd00::1'),
  destinationPort: 65_535,
};
const supposed = {
  suppose: [{ backend: 'nvas/nva-1', health: 'down', adminState: 'up', weight: 3, draining: true }],
  population: { kind: 'generated', flows: 10, sources: 5, seed: 1 },
};

const CASES: readonly Case[] = [
  ['GET /v1/status', ['status', {}]],
  ['GET /v1/frontends', ['frontends', {}]],
  ['GET /v1/rules', ['rules', {}]],
  ['GET /v1/pools', ['pools', {}]],
  ['GET /v1/pools/nvas', ['pool', { pool: 'nvas' }]],
  ['GET /v1/flows', ['flows', page]],
  [
    'GET /v1/flows?rule=web&backend=nvas%2Fnva-1&protocol=udp&source=2001:DB8:0::7&state=half-closed&reason=retry&sort=rate&limit=1000',
    [
      'flows',
      {
        ...{ rule: 'web', backend: 'nvas/nva-1', protocol: 'udp', source: '2001:db8::7' },
        ...{ state: 'half-closed', reason: 'retry', sort: 'rate', limit: 1000 },
      },
    ],
  ],
  [
    'GET /v1/flows?source=::ffff:192.0.2.7&backend=nvas%2F2001:DB8:0::1',
    ['flows', { source: '192.0.2.7', backend: 'nvas/2001:db8::1', ...page }],
  ],
  ['GET /v1/flows?after=77&limit=1', ['flows', { sort: 'none', limit: 1, after: 77 }]],
  ['GET /v1/explain?protocol=tcp&source=192.0.2.7:40000&destination=192.0.2.1:443', ['explain', tcp]],
  [
    'GET /v1/explain?protocol=udp&source=%5B2001:db8::7%5D:1&destination=%5Bfd00::1%5D:65535',
    ['explain', udp],
  ],
  ...['none', 'up', 'down', 'configured'].map((adminState): Case => [
    `PUT ${NVA}/admin-state`,
    ['setAdminState', { ...named, adminState }],
    { adminState },
  ]),
  ...[0, 1, 256, 'configured'].map((weight): Case => [
    `PUT ${NVA}/weight`,
    ['setWeight', { ...named, weight }],
    { weight },
  ]),
  ...[
    ['FD00:0:0::B', 'fd00::b'],
    ['fe80%3A%3A1%25eth0', 'fe80::1%eth0'],
  ].map(([label = '', backend]): Case => [
    `PUT /v1/backends/nvas/${label}/weight`,
    ['setWeight', { pool: 'nvas', backend, weight: 1 }],
    { weight: 1 },
  ]),
  [
    `POST ${NVA}/drain`,
    ['drain', { ...named, deadlineMs: 600_000, then: 'reset', spreadMs: 10_000, force: false }],
    { deadline: '10m' },
  ],
  [
    `POST ${NVA}/drain`,
    ['drain', { ...named, deadlineMs: 0, then: 'leave', spreadMs: 500, force: true }],
    { deadline: '0s', then: 'leave', spread: '500ms', force: true },
  ],
  [`GET ${NVA}/drain`, ['drainStatus', named]],
  ['GET /v1/backends/nvas/FD00::B/drain', ['drainStatus', { pool: 'nvas', backend: 'fd00::b' }]],
  [`DELETE ${NVA}/drain`, ['cancelDrain', named]],
  ['GET /v1/drains', ['drains', {}]],
  ['POST /v1/plan', ['plan', { configuration: '{"any": "text"}' }], '{"any": "text"}'],
  ['POST /v1/upgrade', ['upgrade', { deadlineMs: undefined }], {}],
  ['POST /v1/upgrade', ['upgrade', { deadlineMs: 600_000 }], { deadline: '10m' }],
  ['POST /v1/reload', ['reload', { configuration: '{ not checked' }], '{ not checked'],
  ['POST /v1/reload?maxMoved=0.02', ['reload', { configuration: '{}', maxMoved: 0.02 }], '{}'],
  ['POST /v1/simulate', ['simulate', supposed], supposed],
  [
    'POST /v1/simulate',
    ['simulate', { suppose: [], population: { kind: 'live' } }],
    { population: { kind: 'live' } },
  ],
];

describe('the admin API', () => {
  test('asks Operations for what it is asked for, on the socket and over http', async (t) => {
    const { fake, port, socketPath } = await adminLab(t);
    for (const [line, call, body] of CASES) {
      const [method = '', path = ''] = line.split(' ');
      const status = /^(PUT|DELETE)/.test(line) ? 204 : /^POST .*drain$/.test(line) ? 202 : 200;
      for (const target of [{ socketPath }, { port }]) {
        fake.calls.length = 0;
        const answer = await ask(target, path, { method, body });
        assert.equal(answer.status, status, `${line}: ${answer.text}`);
        assert.deepEqual(fake.calls, [call]);
        if (status === 204) assert.equal(answer.text, '');
        else assert.equal(answer.headers['content-type'], 'application/json');
      }
    }
  });

  test('answers HEAD as GET without a body', async (t) => {
    const { port } = await adminLab(t);
    const { status, text } = await ask({ port }, '/v1/status', { method: 'HEAD' });
    assert.deepEqual([status, text], [200, '']);
  });

  test('says of other methods which are allowed', async (t) => {
    const { port, fake } = await adminLab(t);
    for (const [path, allow] of [
      ['/v1/status', 'GET, HEAD'],
      ['/v1/events', 'GET, HEAD'],
      ['/v1/reload', 'POST'],
      [`${NVA}/weight`, 'PUT'],
      ['/', 'GET, HEAD'],
    ] as const) {
      const answer = await ask({ port }, path, { method: 'PATCH' });
      assert.deepEqual(problemOf(answer), [405, 'LB_USAGE'], path);
      assert.equal(answer.headers['allow'], allow);
    }
    const drain = await ask({ port }, `${NVA}/drain`, { method: 'OPTIONS' });
    assert.deepEqual(String(drain.headers['allow']).split(', ').sort(), ['DELETE', 'GET', 'HEAD', 'POST']);
    assert.equal(drain.headers['access-control-allow-origin'], undefined);
    assert.deepEqual(problemOf(await ask({ port }, '/v1/reload')), [405, 'LB_USAGE']);
    assert.deepEqual(fake.calls, []);
  });

  test('knows no other paths', async (t) => {
    const { port } = await adminLab(t);
    for (const path of [
      '/v1',
      '/v1/',
      '/v2/status',
      '/v1/status/',
      '/v1/pools/',
      '/v1/STATUS',
      '/v1/backends/nvas/nva-1',
      '/v1/..%2f..%2fetc/passwd',
      '/assets/..%2f..%2fpackage.json',
      '/assets/../../package.json',
      '/%2e%2e/etc/passwd',
    ]) {
      const answer = await ask({ port }, path);
      assert.equal(answer.status, 404, path);
      assert.equal(answer.headers['content-type'], 'application/problem+json', path);
    }
    assert.deepEqual(problemOf(await ask({ port }, '/v1/pools/none')), [404, 'LB_NOT_FOUND']);
    assert.deepEqual(problemOf(await ask({ port }, '/v1/backends/nvas/nva-2/drain')), [404, 'LB_NOT_FOUND']);
  });
});

describe('the admin API, asked wrongly,', () => {
  const WRONG: readonly (readonly [string, Asked, RegExp])[] = [
    ['/v1/status?x=1', {}, /Unknown key "x"/],
    ['/v1/flows?limit=0', {}, /"limit" is "0", must be a whole number from 1 to 1000/],
    ['/v1/flows?limit=1001', {}, /"limit"/],
    ['/v1/flows?limit=1.5', {}, /"limit"/],
    ['/v1/flows?limit=-1', {}, /"limit"/],
    ['/v1/flows?limit=5&limit=6', {}, /"limit" is there more than once/],
    ['/v1/flows?sort=size', {}, /"sort" is "size", must be one of age, idle, bytes, rate, none/],
    ['/v1/flows?sort=age&after=1', {}, /"after" must be with sort none only/],
    ['/v1/flows?source=example.com', {}, /"source" is "example\.com", must be an IP address/],
    ['/v1/flows?protocol=icmp', {}, /"protocol"/],
    ['/v1/flows?constructor=1', {}, /Unknown key/],
    ['/v1/flows?__proto__=1', {}, /Unknown key "__proto__"/],
    ['/v1/explain?protocol=tcp&source=192.0.2.7:1', {}, /Missing key "destination"/],
    ['/v1/explain?protocol=tcp&source=192.0.2.7&destination=192.0.2.1:1', {}, /"source"/],
    ['/v1/explain?protocol=tcp&source=192.0.2.7:0&destination=192.0.2.1:1', {}, /"source"/],
    ['/v1/explain?protocol=tcp&source=[::1]:1&destination=192.0.2.1:1', {}, /same IP version/],
    [`${NVA}/admin-state`, { method: 'PUT' }, /The body is not JSON/],
    [`${NVA}/admin-state`, { method: 'PUT', body: '[]' }, /must be a JSON object/],
    [`${NVA}/admin-state`, { method: 'PUT', body: 'null' }, /must be a JSON object/],
    [`${NVA}/admin-state`, { method: 'PUT', body: {} }, /Missing key "adminState"/],
    [`${NVA}/admin-state`, { method: 'PUT', body: { adminState: 'drain' } }, /"adminState" is "drain"/],
    [`${NVA}/admin-state`, { method: 'PUT', body: '{"adminState":"up","__proto__":{}}' }, /Unknown key/],
    [`${NVA}/weight`, { method: 'PUT', body: { weight: 257 } }, /"weight" is 257, must be a whole number/],
    [`${NVA}/weight`, { method: 'PUT', body: { weight: -1 } }, /"weight"/],
    [`${NVA}/weight`, { method: 'PUT', body: { weight: 1.5 } }, /"weight"/],
    [`${NVA}/weight`, { method: 'PUT', body: { weight: '5' } }, /or "configured"/],
    [`${NVA}/weight`, { method: 'PUT', body: { weight: null } }, /"weight" is null/],
    [`${NVA}/drain`, { method: 'POST', body: {} }, /Missing key "deadline"/],
    [`${NVA}/drain`, { method: 'POST', body: { deadline: 600 } }, /"deadline" is 600, must be a duration/],
    [`${NVA}/drain`, { method: 'POST', body: { deadline: '10' } }, /"deadline"/],
    [`${NVA}/drain`, { method: 'POST', body: { deadline: '25h' } }, /at most 24h/],
    [`${NVA}/drain`, { method: 'POST', body: { deadline: '1m', then: 'drop' } }, /one of reset, leave/],
    [`${NVA}/drain`, { method: 'POST', body: { deadline: '1m', force: 'yes' } }, /true or false/],
    ['/v1/reload?maxMoved=2%25', { method: 'POST', body: '{}' }, /"maxMoved" is "2%", must be a number/],
    ['/v1/reload?maxMoved=1.5', { method: 'POST', body: '{}' }, /"maxMoved"/],
    ['/v1/reload?maxMoved=NaN', { method: 'POST', body: '{}' }, /"maxMoved"/],
    ['/v1/reload?path=/etc/passwd', { method: 'POST', body: '{}' }, /Unknown key "path"/],
    ['/v1/simulate', { method: 'POST', body: {} }, /"population" must be an object/],
    [
      '/v1/simulate',
      { method: 'POST', body: { population: { kind: 'live', flows: 1 } } },
      /Unknown key "flows"/,
    ],
    [
      '/v1/simulate',
      { method: 'POST', body: { population: { kind: 'generated', flows: 2_000_000, sources: 1, seed: 0 } } },
      /"flows" is 2000000, must be a whole number from 1 to 1000000/,
    ],
    [
      '/v1/simulate',
      { method: 'POST', body: { suppose: [1], population: { kind: 'live' } } },
      /Each of "suppose" must be an object/,
    ],
    [
      '/v1/simulate',
      { method: 'POST', body: { suppose: [{ weight: 1 }], population: { kind: 'live' } } },
      /Missing key "backend"/,
    ],
  ];

  test('says what is there and what must be, and does nothing', async (t) => {
    const { fake, port } = await adminLab(t);
    for (const [path, asked, message] of WRONG) {
      const answer = await ask({ port }, path, asked);
      assert.deepEqual(problemOf(answer), [400, 'LB_USAGE'], `${path} ${JSON.stringify(asked)}`);
      assert.match((answer.json as { detail: string }).detail, message);
    }
    assert.deepEqual(fake.calls, []);
  });

  test('refuses bodies that are no UTF-8', async (t) => {
    const { port, fake } = await adminLab(t);
    const body = Buffer.from([0x7b, 0xff, 0x7d]);
    const answer = await ask({ port }, '/v1/plan', { method: 'POST', body });
    assert.deepEqual(problemOf(answer), [400, 'LB_USAGE']);
    assert.deepEqual(fake.calls, []);
  });
});

describe('errors of Operations', () => {
  const failing = (error: unknown): Partial<Operations> => ({
    // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- anything may be thrown
    reload: () => Promise.reject(error),
  });
  const reload = { method: 'POST', body: '{}' };

  test('become problem documents with their status and code', async (t) => {
    const statuses: readonly (readonly [ErrorCode, number])[] = [
      ['LB_USAGE', 400],
      ['LB_UNKNOWN_BACKEND', 404],
      ['LB_NOT_FOUND', 404],
      ['LB_CONFLICT', 409],
      ['LB_GATE_EXCEEDED', 409],
      ['LB_RESTART_NEEDED', 409],
      ['LB_CONFIG_INVALID', 422],
      ['LB_TOO_LARGE', 413],
      ['LB_APPLY_FAILED', 500],
    ];
    for (const [code, status] of statuses) {
      const error = new BalancerError(`It is ${code}`, { code, source: 'usage' });
      const { port } = await adminLab(t, { answers: failing(error) });
      const answer = await ask({ port }, '/v1/reload', reload);
      assert.deepEqual(problemOf(answer), [status, code]);
      assert.equal((answer.json as { detail: string }).detail, `It is ${code}`);
    }
  });

  test('carry their findings along', async (t) => {
    const findings = [{ severity: 'error', code: 'LB_LOOP', path: 'rules[0]', message: 'A loop' }];
    const error = new BalancerError('No', { code: 'LB_CONFIG_INVALID', source: 'config' });
    const { port } = await adminLab(t, { answers: failing(Object.assign(error, { findings })) });
    const answer = await ask({ port }, '/v1/reload', reload);
    assert.deepEqual((answer.json as { findings: unknown }).findings, findings);
  });

  test('tell nothing where they are not meant for whoever asked, but the log', async (t) => {
    for (const error of [
      new Error('secret'),
      new TypeError('secret'),
      'secret',
      undefined,
      new BalancerError('secret', { code: 'LB_INTERNAL', source: 'internal' }),
      new BalancerError('secret', { code: 'LB_WORKER_LOST', source: 'system' }),
    ]) {
      const recorder = new LineRecorder();
      const { port } = await adminLab(t, { answers: failing(error), onEvent: recorder.bus.emit });
      const answer = await ask({ port }, '/v1/reload', reload);
      assert.deepEqual(problemOf(answer), [500, 'LB_INTERNAL']);
      assert.ok(!answer.text.includes('secret'));
      if (!(error instanceof Error)) continue;
      assert.deepEqual(recorder.texts, ['error Admin API: POST /v1/reload failed']);
      assert.match(String(recorder.lines[0]?.fields['error']), /secret/);
    }
  });
});
