import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { describe, it } from 'node:test';
import { loadConfiguration, parseConfiguration } from '../../../src/config/load.js';
import { systemFiles, type Files } from '../../../src/runtime/files.js';
import { example, only, type Example } from './example.js';

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

const withCa = (ca: unknown): Example =>
  example((raw) => (raw.probes[0] = { ...raw.probes[0], protocol: 'https', ca }));

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

  it('loadConfiguration() tells of CA files that are missing or hold no certificate', async () => {
    for (const [files, message] of [
      [{}, /"ca\.pem" cannot be read: ENOENT/],
      [{ '/c/ca.pem': 'hello' }, /holds no certificate/],
    ] as const) {
      const all = memory({ '/c/c.json': JSON.stringify(withCa('ca.pem')), ...files });
      const result = await loadConfiguration('/c/c.json', all);
      assert.ok(!result.ok);
      assert.deepEqual(
        result.findings.map(({ code, path }) => [code, path]),
        [['LB_CONFIG_UNREADABLE', 'probes[0].ca']],
      );
      assert.match(result.findings[0]?.message ?? '', message);
    }
  });

  it('parseConfiguration() reads no files by itself', () => {
    assert.match(
      only(withCa('/etc/passwd'), 'LB_CONFIG_UNREADABLE').message,
      /only be named in a configuration file/,
    );
  });

  it('loadConfiguration() tells of a file that is not there, as a finding', async () => {
    const result = await loadConfiguration('/nowhere/config.json', systemFiles);
    assert.ok(!result.ok);
    const [finding] = result.findings;
    assert.deepEqual(
      [finding?.severity, finding?.code, finding?.path],
      ['error', 'LB_CONFIG_UNREADABLE', ''],
    );
    assert.match(
      finding?.message ?? '',
      /^Configuration file "\/nowhere\/config\.json" cannot be read: ENOENT/,
    );
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
    const directory = await mkdtemp(join(tmpdir(), 'haports-load-'));
    try {
      await writeFile(join(directory, 'config.json'), JSON.stringify(example()));
      assert.ok((await loadConfiguration(join(directory, 'config.json'), systemFiles)).ok);
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  it('parseConfiguration() takes 5,000 backends, 600 frontends and 1,500 rules within seconds', () => {
    const raw = example((all) => {
      const backends = Array.from({ length: 5000 }, (_, i) => ({ address: `10.1.${i >> 8}.${i & 255}` }));
      Object.assign(all.backendPools[0] ?? {}, { backends });
      all.frontends = Array.from({ length: 600 }, (_, i) => ({
        name: `f${i}`,
        address: `10.2.${i >> 8}.${i & 255}`,
      }));
      all.rules = Array.from({ length: 1500 }, (_, i) => ({
        ...all.rules[0],
        name: `r${i}`,
        frontend: `f${i % 600}`,
        frontendPort: 1000 + i,
        backendPort: 1000 + i,
      }));
    });
    const text = JSON.stringify(raw);
    const startedMs = performance.now();
    assert.ok(parseConfiguration(text).ok);
    assert.ok(performance.now() - startedMs < 30_000);
  });
});
