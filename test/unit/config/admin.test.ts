import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { loadConfiguration, loadConfigurationText, parseConfiguration } from '../../../src/config/load.js';
import { ipAddress } from '../../../src/model/address.js';
import { configurationFromJson, configurationToJson } from '../../../src/api/configuration-json.js';
import { brief, configurationOf, example, haExample, only, parse, withCode } from './example.js';

const TOKEN = 'correct-horse-battery';

const withAdmin = (admin: Record<string, unknown>, make = example) =>
  make((raw) => {
    raw['admin'] = admin;
  });
const withEvents = (events: Record<string, unknown>) =>
  example((raw) => {
    raw['events'] = events;
  });

interface Pair {
  readonly certificate: string;
  readonly key: string;
}

/** A self-signed certificate and its key. Undefined without openssl. */
function makePair(): Pair | undefined {
  const folder = mkdtempSync(join(tmpdir(), 'haports-admin-'));
  try {
    const [key, certificate] = [join(folder, 'key.pem'), join(folder, 'certificate.pem')];
    const words = 'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test';
    execFileSync('openssl', [...words.split(' '), '-keyout', key, '-out', certificate], { stdio: 'pipe' });
    return { key: readFileSync(key, 'utf8'), certificate: readFileSync(certificate, 'utf8') };
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

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

describe('admin in the configuration', () => {
  test('a socket and a loopback address need nothing more', () => {
    const { admin } = configurationOf(withAdmin({ socket: './haports.sock', http: '[::1]:9901' }));
    assert.deepEqual(admin, {
      socket: './haports.sock',
      http: { address: ipAddress('::1'), port: 9901 },
    });
  });

  test('nothing is there without the key', () => assert.equal(configurationOf(example()).admin, undefined));

  test('neither socket nor http is an error', () => {
    assert.deepEqual(brief(withAdmin({})), ['error LB_MISSING_KEY admin']);
  });

  test('an address off loopback needs tls and token, and the finding says what is there and what must be', () => {
    for (const http of ['0.0.0.0:9901', '10.0.0.9:9901', '[::]:9901', '[fd00::1]:0']) {
      const finding = only(withAdmin({ http }), 'LB_ADMIN_EXPOSED');
      assert.deepEqual([finding.severity, finding.path], ['error', 'admin.http']);
      assert.equal(finding.found, `"${http}" without tls and token`);
      assert.match(
        finding.expected ?? '',
        /loopback address such as "127\.0\.0\.1:9901", or both "tls" and "token"/,
      );
    }
    const half = only(withAdmin({ http: '0.0.0.0:9901', token: TOKEN }), 'LB_ADMIN_EXPOSED');
    assert.equal(half.found, '"0.0.0.0:9901" without tls');
  });

  test('an address off loopback with tls and token is fine, with the texts of the files', { skip }, () => {
    const raw = withAdmin({ http: '0.0.0.0:9901', tls: TLS, token: TOKEN });
    assert.deepEqual(configurationOf(raw, tlsFiles()).admin, {
      http: { address: ipAddress('0.0.0.0'), port: 9901 },
      tls: pair,
      token: TOKEN,
    });
    const missing = only(withAdmin({ http: '0.0.0.0:9901', tls: TLS }), 'LB_ADMIN_EXPOSED', tlsFiles());
    assert.equal(missing.found, '"0.0.0.0:9901" without token');
  });

  test('tls and token without http have no effect, and that is told', { skip }, () => {
    const raw = withAdmin({ socket: 's', tls: TLS, token: TOKEN });
    assert.deepEqual(brief(raw, tlsFiles()), [
      'warning LB_NO_EFFECT admin.tls',
      'warning LB_NO_EFFECT admin.token',
    ]);
  });

  test('a path that no Unix socket can have is refused', () => {
    assert.ok(parse(withAdmin({ socket: `/${'x'.repeat(106)}` })).ok);
    for (const socket of [`/${'x'.repeat(107)}`, `/${'ü'.repeat(60)}`, '', 'a\0b', 5]) {
      const [line] = brief(withAdmin({ socket }));
      assert.match(line ?? 'nothing', /^error LB_(VALUE|TYPE) admin\.socket$/, String(socket));
    }
  });

  test('a bad token is refused and never shown', () => {
    for (const token of [
      'hunter2-hunter2',
      'with spaces in its middle',
      'ü'.repeat(20),
      'x'.repeat(513),
      'exclamation-marks!!!',
    ]) {
      const result = parse(withAdmin({ http: '127.0.0.1:1', token }));
      assert.deepEqual(
        result.findings.map(({ code, path }) => [code, path]),
        [['LB_VALUE', 'admin.token']],
      );
      assert.ok(!JSON.stringify(result.findings).includes(token), token);
    }
    assert.ok(parse(withAdmin({ http: '127.0.0.1:1', token: 'x'.repeat(16) })).ok);
  });
});

describe('TLS files of the admin API', { skip }, () => {
  const raw = withAdmin({ http: '0.0.0.0:9901', tls: TLS, token: TOKEN });

  test('files that cannot be read, or hold something else, are findings at their own keys', () => {
    assert.deepEqual(brief(raw, { readFile: reader({}) }), [
      'error LB_CONFIG_UNREADABLE admin.tls.certificate',
      'error LB_CONFIG_UNREADABLE admin.tls.key',
    ]);
    const swapped = { readFile: reader({ 'tls/cert.pem': pair?.key, 'tls/key.pem': pair?.certificate }) };
    assert.match(parse(raw, swapped).findings[0]?.message ?? '', /holds no certificate/);
    assert.match(parse(raw, swapped).findings[1]?.message ?? '', /holds no private key/);
    assert.match(
      only(
        withAdmin({ http: '127.0.0.1:1', tls: { certificate: 'c', key: 'c' } }, example),
        'LB_CONFIG_UNREADABLE',
        { readFile: reader({ c: pair?.certificate }) },
      ).path,
      /key$/,
    );
  });

  test('a key of another certificate is an error', () => {
    const finding = only(raw, 'LB_TLS_PAIR', tlsFiles(pair, other));
    assert.match(finding.message, /the key is that of another certificate/);
    assert.ok(!JSON.stringify(finding).includes('PRIVATE'));
  });

  test('a PEM file with rubbish in it is an error', () => {
    const rubbish = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';
    assert.deepEqual(withCode(raw, 'LB_TLS_PAIR', tlsFiles({ certificate: rubbish, key: '' }, pair)), [
      'error LB_TLS_PAIR admin.tls',
    ]);
  });

  test('loadConfiguration() and loadConfigurationText() read them relative to the configuration', async () => {
    const texts: Record<string, string | undefined> = {
      '/etc/lb/config.json': JSON.stringify(raw),
      '/etc/lb/tls/cert.pem': pair?.certificate,
      '/etc/lb/tls/key.pem': pair?.key,
    };
    const files = {
      readText: (path: string) => {
        const text = texts[path];
        return text === undefined ? Promise.reject(new Error(`ENOENT: ${path}`)) : Promise.resolve(text);
      },
    };
    const loaded = [
      await loadConfiguration('/etc/lb/config.json', files),
      await loadConfigurationText(JSON.stringify(raw), '/etc/lb', files),
    ];
    for (const result of loaded) {
      assert.ok(result.ok);
      assert.deepEqual(result.configuration.admin?.tls, pair);
    }
  });
});

describe('ports of the admin API', () => {
  test('an HA-ports rule leaves its port out, with that of the metrics', () => {
    const raw = withAdmin({ http: '127.0.0.1:8001' }, (change) =>
      haExample((all) => {
        all.frontends[0] = { name: 'hub', address: '127.0.0.1' };
        all['metrics'] = { listen: '127.0.0.1:8000' };
        change?.(all);
      }),
    );
    const [rule] = configurationOf(raw).rules;
    assert.deepEqual(rule?.ports, [{ first: 8002, last: 8099 }]);
  });

  test('a rule that names its port is an error, a UDP rule is not', () => {
    const clash = (protocol: string) =>
      withAdmin({ http: '127.0.0.1:443' }, (change) =>
        example((all) => {
          all.frontends[0] = { name: 'hub', address: '127.0.0.1' };
          all.rules[0] = { ...all.rules[0], protocol };
          change?.(all);
        }),
      );
    assert.deepEqual(withCode(clash('tcp'), 'LB_OVERLAP'), ['error LB_OVERLAP admin.http']);
    assert.deepEqual(withCode(clash('udp'), 'LB_OVERLAP'), []);
  });

  test('metrics on the same address and port are an error, on any free port they are not', () => {
    const both = (http: string, listen: string) =>
      example((raw) => {
        Object.assign(raw, { admin: { http }, metrics: { listen } });
      });
    const clash = only(both('127.0.0.1:9901', '0.0.0.0:9901'), 'LB_OVERLAP');
    assert.deepEqual(
      [clash.path, clash.message],
      ['admin.http', '"metrics.listen" claims tcp port 9901 as well'],
    );
    assert.deepEqual(withCode(both('127.0.0.1:0', '127.0.0.1:0'), 'LB_OVERLAP'), []);
    assert.deepEqual(withCode(both('127.0.0.1:9901', '127.0.0.2:9901'), 'LB_OVERLAP'), []);
  });

  test('a probe into it is a loop', () => {
    const raw = example((all) => {
      all['admin'] = { http: '127.0.0.1:9000' };
      all.backendPools[0] = { name: 'nvas', backends: [{ address: '127.0.0.1' }, { address: '10.0.1.2' }] };
    });
    assert.match(only(raw, 'LB_LOOP').message, /would reach haports' admin API at 127\.0\.0\.1:9000/);
  });
});

describe('secrets of the configuration', () => {
  const secretive = () =>
    example((raw) => {
      raw['admin'] = { http: '127.0.0.1:9901', tls: TLS, token: TOKEN };
      raw['events'] = { webhook: 'https://hooks.example:8443/services/T0/SECRETKEY?x=1' };
    });

  test('configurationToJson() hides token, TLS key and the path of the webhook', { skip }, () => {
    const configuration = configurationOf(secretive(), tlsFiles());
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

  test('the digest does not tell the token, but everything else', () => {
    const digest = (admin: Record<string, unknown>) => configurationOf(withAdmin(admin)).digest;
    const http = '127.0.0.1:9901';
    assert.equal(digest({ http, token: TOKEN }), digest({ http, token: `${TOKEN}-too` }));
    assert.notEqual(digest({ http, token: TOKEN }), digest({ http: '127.0.0.1:9903', token: TOKEN }));
  });
});

describe('events and slow start in the configuration', () => {
  test('a webhook is an http or https URL', () => {
    for (const url of ['http://127.0.0.1:9000/x', 'https://alerts.example/haports?team=a']) {
      assert.deepEqual(configurationOf(withEvents({ webhook: url })).webhook, { url });
    }
    assert.equal(configurationOf(withEvents({})).webhook, undefined);
  });

  test('anything else is refused, and not shown: it may hold a key', () => {
    for (const webhook of ['ftp://x/SECRET', '/SECRET', 'SECRET', 'https://user:SECRET@alerts.example/']) {
      const { findings } = parse(withEvents({ webhook }));
      assert.deepEqual(
        findings.map(({ code, path }) => [code, path]),
        [['LB_VALUE', 'events.webhook']],
      );
      assert.ok(!JSON.stringify(findings).includes('SECRET'));
    }
  });

  test('slowStart of a pool is a duration from 1s to 1h', () => {
    const withSlowStart = (slowStart: string) =>
      example((raw) => {
        Object.assign(raw.backendPools[0] ?? {}, { slowStart });
      });
    assert.equal(configurationOf(withSlowStart('30s')).backendPools[0]?.slowStartMs, 30_000);
    assert.equal(configurationOf(example()).backendPools[0]?.slowStartMs, undefined);
    assert.deepEqual(brief(withSlowStart('2h')), ['error LB_VALUE backendPools[0].slowStart']);
  });

  test('parseConfiguration() survives every shape of admin and events', () => {
    for (const value of [1, null, [], 'x', { tls: 1 }, { tls: null }, { tls: [] }, { webhook: {} }]) {
      const text = JSON.stringify({ ...example(), admin: value, events: value });
      assert.equal(parseConfiguration(text).ok, false);
    }
  });
});
