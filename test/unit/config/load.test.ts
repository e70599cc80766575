import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { describe, it } from 'node:test';
import { loadConfiguration, loadConfigurationText, parseConfiguration } from '../../../src/config/load.js';
import { systemFiles, type Files } from '../../../src/runtime/files.js';
import { ConfigFile } from '../../support/config-file.js';
import { briefly, example, parse } from '../../support/example.js';

const PEM = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';

/** Files in memory, by absolute path. */
function memory(files: Readonly<Record<string, string>>): Files {
  return {
    readText(path) {
      const text = files[resolve(path)];
      return text === undefined ? Promise.reject(new Error(`ENOENT: ${path}`)) : Promise.resolve(text);
    },
  };
}

const withCa = (ca: string) => example({ probe: { protocol: 'https', ca } });

describe('load', () => {
  it('loadConfiguration() reads CA files relative to the configuration', async () => {
    const files = memory({
      '/etc/lb/config.json': JSON.stringify(withCa('tls/ca.pem')),
      '/etc/lb/tls/ca.pem': PEM,
    });
    const result = await loadConfiguration('/etc/lb/config.json', files);
    assert.ok(result.ok);
    const probe = result.configuration.probes[0];
    assert.equal(probe?.protocol === 'https' ? probe.ca : undefined, PEM);
  });

  it('loadConfigurationText() reads them relative to the directory that it is given', async () => {
    const files = memory({ '/etc/lb/tls/ca.pem': PEM });
    const result = await loadConfigurationText(JSON.stringify(withCa('tls/ca.pem')), '/etc/lb', files);
    assert.ok(result.ok);
  });

  it('loadConfiguration() tells of CA files that are missing or hold no certificate', async () => {
    for (const [files, message] of [
      [{}, /"ca\.pem" cannot be read: ENOENT/],
      [{ '/c/ca.pem': 'hello' }, /holds no certificate/],
    ] as const) {
      const all = memory({ '/c/c.json': JSON.stringify(withCa('ca.pem')), ...files });
      const result = await loadConfiguration('/c/c.json', all);
      assert.deepEqual(result.findings.map(briefly), ['error LB_CONFIG_UNREADABLE probes[0].ca']);
      assert.match(result.findings[0]?.message ?? '', message);
    }
  });

  it('parseConfiguration() reads no files by itself', () => {
    const [finding] = parse(withCa('/etc/passwd')).findings;
    assert.match(finding?.message ?? '', /only be named in a configuration file/);
  });

  it('loadConfiguration() tells of a file that is not there, as a finding', async () => {
    const result = await loadConfiguration('/nowhere/config.json', systemFiles);
    assert.deepEqual(result.findings.map(briefly), ['error LB_CONFIG_UNREADABLE ']);
    const message = /^Configuration file "\/nowhere\/config\.json" cannot be read: ENOENT/;
    assert.match(result.findings[0]?.message ?? '', message);
  });

  it('loadConfiguration() survives every shape of probes', async () => {
    for (const probes of [1, null, [null], [1], [{ ca: 1 }], [[]], { ca: 'x' }]) {
      const result = await loadConfiguration('/c.json', memory({ '/c.json': JSON.stringify({ probes }) }));
      assert.ok(!result.ok);
    }
    const broken = await loadConfiguration('/c.json', memory({ '/c.json': '{' }));
    assert.equal(broken.findings[0]?.code, 'LB_CONFIG_SYNTAX');
  });

  it('loadConfiguration() reads real files', async () => {
    const file = await ConfigFile.write(example());
    try {
      assert.ok((await loadConfiguration(file.path, systemFiles)).ok);
    } finally {
      await file.remove();
    }
  });

  it('parseConfiguration() takes 5,000 backends, 600 frontends and 1,500 rules within seconds', () => {
    const address = (net: number, n: number) => `10.${net}.${n >> 8}.${n & 255}`;
    const [rule] = example().rules;
    const raw = example({
      pool: { backends: Array.from({ length: 5000 }, (_, n) => address(1, n)) },
      frontends: Array.from({ length: 600 }, (_, n) => ({ name: `f${n}`, address: address(2, n) })),
      rules: Array.from({ length: 1500 }, (_, n) => {
        const ports = { frontendPort: 1000 + n, backendPort: 1000 + n };
        return { ...rule, name: `r${n}`, frontend: `f${n % 600}`, ...ports };
      }),
    });
    const text = JSON.stringify(raw);
    const startedMs = performance.now();
    assert.ok(parseConfiguration(text).ok);
    assert.ok(performance.now() - startedMs < 30_000);
  });
});

it('parseConfiguration() sorts errors first, then by place', () => {
  const { findings } = parse(example({ rule: { probe: undefined }, seed: -1, tableSize: 1 }));
  assert.deepEqual(findings.map(briefly), [
    'error LB_VALUE seed',
    'error LB_VALUE tableSize',
    'warning V12 rules[0]',
    'note LB_UNUSED probes[0]',
  ]);
  assert.ok(findings.every(({ line = 0 }) => line >= 1));
});
