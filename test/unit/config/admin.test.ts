import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { configurationFromJson, configurationToJson } from '../../../src/api/flow-log.js';
import { ipAddress } from '../../../src/model/address.js';
import { makePair } from '../../support/certificate.js';
import { briefly, example, parse, type Change } from '../../support/example.js';
import { configurationOf } from '../../support/state-factory.js';

const TOKEN = 'correct-horse-battery';

const withAdmin = (admin: object, change: Change = {}) => example({ admin, ...change });

const pair = makePair();
const other = makePair();
const skip = pair === undefined || other === undefined ? 'openssl is not installed' : false;

/** Reads from memory, as if relative to the configuration. */
function reader(files: Readonly<Record<string, string | undefined>>) {
  return (path: string): string => {
    const text = files[path];
    if (text === undefined) throw new Error('ENOENT');
    return text;
  };
}

const TLS = { certificate: 'tls/cert.pem', key: 'tls/key.pem' };
const tlsFiles = (certificate = pair, key = pair) => ({
  readFile: reader({ 'tls/cert.pem': certificate?.certificate, 'tls/key.pem': key?.key }),
});

const HTTP = '127.0.0.1:9901';
const OPEN = '0.0.0.0:9901';
const OFF_LOOPBACK = withAdmin({ http: OPEN, tls: TLS, token: TOKEN });
/** Values at a place that may hold secrets, none of which is shown. */
const SECRET: readonly (readonly [string, string, readonly string[]])[] = [
  [
    'admin',
    'token',
    ['hunter2-hunter2', 'spaces in the middle', 'ü'.repeat(20), 'x'.repeat(513), 'exclamation-marks!!!'],
  ],
  ['events', 'webhook', ['ftp://x/SECRET', '/SECRET', 'SECRET', 'https://user:SECRET@alerts.example/']],
];
for (const [section, key, values] of SECRET) {
  test(`a bad ${key} is refused and never shown`, () => {
    for (const value of values) {
      const { findings } = parse(
        example({ [section]: { [key]: value, ...(key === 'token' && { http: HTTP }) } }),
      );
      assert.deepEqual(findings.map(briefly), [`error LB_VALUE ${section}.${key}`]);
      assert.ok(!JSON.stringify(findings).includes(value.replace(/.*SECRET.*/, 'SECRET')), value);
    }
  });
}

test('no shape of admin and events is too strange', () => {
  for (const value of [1, null, [], 'x', { tls: 1 }, { tls: null }, { tls: [] }, { webhook: {} }]) {
    assert.equal(parse(example({ admin: value, events: value })).ok, false);
  }
});

describe('admin API and events, resolved', () => {
  test('a webhook is taken over as it is written', () => {
    for (const url of ['http://127.0.0.1:9000/x', 'https://alerts.example/haports?team=a']) {
      assert.deepEqual(configurationOf(example({ events: { webhook: url } })).webhook, { url });
    }
  });

  test('the digest does not tell the token, but everything else', () => {
    const digest = (admin: object) => configurationOf(withAdmin(admin)).digest;
    assert.equal(digest({ http: HTTP, token: TOKEN }), digest({ http: HTTP, token: `${TOKEN}-too` }));
    assert.notEqual(digest({ http: HTTP, token: TOKEN }), digest({ http: '127.0.0.1:9903', token: TOKEN }));
  });
});

describe('TLS files of the admin API', { skip }, () => {
  const found = (written: object, files: { readFile: (path: string) => string }) =>
    parse(written, files).findings;

  test('with them and a token, an address off loopback is fine', () => {
    assert.deepEqual(configurationOf(OFF_LOOPBACK, tlsFiles()).admin, {
      http: { address: ipAddress('0.0.0.0'), port: 9901 },
      tls: pair,
      token: TOKEN,
    });
    const [missing] = found(withAdmin({ http: OPEN, tls: TLS }), tlsFiles());
    assert.equal(missing?.found, '"0.0.0.0:9901" without token');
  });

  test('without http they have no effect, nor has the token', () => {
    assert.deepEqual(found(withAdmin({ socket: 's', tls: TLS, token: TOKEN }), tlsFiles()).map(briefly), [
      'warning LB_NO_EFFECT admin.tls',
      'warning LB_NO_EFFECT admin.token',
    ]);
  });

  const rubbish = { certificate: '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n', key: '' };
  const [CERTIFICATE, KEY] = ['certificate', 'key'].map(
    (key) => `error LB_CONFIG_UNREADABLE admin.tls.${key}`,
  );
  for (const [what, files, paths, message] of [
    ['that cannot be read', { readFile: reader({}) }, [CERTIFICATE, KEY], /cannot be read: ENOENT/],
    [
      'that were swapped',
      tlsFiles({ certificate: pair?.key ?? '', key: '' }, { key: pair?.certificate ?? '', certificate: '' }),
      [CERTIFICATE, KEY],
      /holds no certificate[^]*holds no private key/,
    ],
    [
      'that are one',
      tlsFiles(pair, { ...rubbish, key: pair?.certificate ?? '' }),
      [KEY],
      /holds no private key/,
    ],
    [
      'of two pairs',
      tlsFiles(pair, other),
      ['error LB_TLS_PAIR admin.tls'],
      /the key is that of another certificate/,
    ],
    [
      'with rubbish in them',
      tlsFiles(rubbish, pair),
      ['error LB_TLS_PAIR admin.tls'],
      /cannot be used together/,
    ],
  ] as const) {
    test(`files ${what} are findings`, () => {
      const findings = found(OFF_LOOPBACK, files);
      assert.deepEqual(findings.map(briefly), paths);
      assert.match(findings.map(({ message }) => message).join('\n'), message);
      assert.ok(!JSON.stringify(findings).includes('BEGIN PRIVATE'));
    });
  }

  test('configurationToJson() hides token, TLS key and the path of the webhook', () => {
    const events = { webhook: 'https://hooks.example:8443/services/T0/SECRETKEY?x=1' };
    const configuration = configurationOf(
      withAdmin({ http: HTTP, tls: TLS, token: TOKEN }, { events }),
      tlsFiles(),
    );
    const text = JSON.stringify(configurationToJson(configuration));
    for (const secret of [TOKEN, 'PRIVATE KEY', 'SECRETKEY']) assert.ok(!text.includes(secret), secret);
    const back = configurationFromJson(configurationToJson(configuration));
    assert.deepEqual(back.admin, {
      http: { address: ipAddress('127.0.0.1'), port: 9901 },
      tls: { certificate: pair?.certificate, key: '(hidden)' },
      token: '(hidden)',
    });
    assert.deepEqual(back.webhook, { url: 'https://hooks.example:8443/(hidden)' });
    assert.deepEqual(back.rules, configuration.rules);
  });
});
