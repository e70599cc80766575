import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { ipAddress } from '../../../src/model/address.js';
import { linkRules } from '../../../src/model/configuration.js';
import { parseConfiguration } from '../../../src/config/load.js';
import { campaign } from '../../support/campaign.js';
import { briefly, example, haExample, kernelExample, parse } from '../../support/example.js';
import { configurationOf } from '../../support/state-factory.js';

/** printf '{"backendPools":[],"frontends":[],"rules":[]}' | sha256sum */
const SHA256_OF_EMPTY = '3b7781b5db8d211ed526dc96c96cd707e7a740b79300661cc10755b92261e06e';

describe('resolve', () => {
  it('has no keys but these where only what must be is written', () => {
    const keys =
      'digest compat seed tableSize workers instance frontends probes backendPools rules limits logging shutdownDeadlineMs';
    assert.deepEqual(Object.keys(configurationOf(example())), keys.split(' '));
    assert.match(configurationOf(example()).digest, /^[0-9a-f]{64}$/);
  });

  it('links each rule to the frontend, pool and probe of the configuration itself', () => {
    const { frontends, backendPools, probes, rules } = configurationOf(example());
    assert.equal(rules[0]?.frontend, frontends[0]);
    assert.equal(rules[0]?.pool, backendPools[0]);
    assert.equal(rules[0]?.probe, probes[0]);
    const named = { ...rules[0]!, frontend: 'hub', backendPool: 'gone', name: 'lost' };
    assert.throws(() => linkRules([{ ...named, probe: 'alive' }], { frontends, backendPools, probes }), {
      name: 'TypeError',
      message: 'Rule "lost" names "gone", which does not exist',
    });
  });

  it('freezes all the way down and survives structured clone', () => {
    const configuration = configurationOf(haExample());
    const loose: string[] = [];
    const visit = (value: unknown, path: string): void => {
      if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return;
      if (!Object.isFrozen(value)) loose.push(path);
      for (const [key, member] of Object.entries(value)) visit(member, `${path}.${key}`);
    };
    visit(configuration, '');
    assert.deepEqual(loose, []);
    assert.deepEqual(structuredClone(configuration), configuration);
  });

  it('gives one digest for one meaning, whatever the order of keys and the schema', () => {
    const raw = example();
    const digest = configurationOf(raw).digest;
    const reversed = Object.fromEntries(Object.entries({ $schema: 'x', ...raw }).reverse());
    assert.equal(configurationOf(reversed).digest, digest);
    assert.notEqual(configurationOf(example({ seed: 1 })).digest, digest);
    const swapped = example({ pool: { backends: ['10.0.1.2', '10.0.1.1'] } });
    assert.notEqual(configurationOf(swapped).digest, digest);
  });

  it('digests as printf | sha256sum does', () => {
    const result = parseConfiguration('{"rules": [], "frontends": [], "backendPools": [], "$schema": "s"}');
    assert.ok(result.ok);
    assert.equal(result.configuration.digest, SHA256_OF_EMPTY);
  });

  it('resolves the embedded default without errors or warnings', () => {
    const result = parseConfiguration(readFileSync('config.json', 'utf8'));
    assert.ok(result.ok);
    assert.deepEqual(
      result.findings.filter(({ severity }) => severity !== 'note'),
      [],
    );
    const { rules, frontends, metrics } = result.configuration;
    assert.deepEqual(
      frontends.map(({ address }) => address.text),
      ['127.0.0.1', '::1'],
    );
    assert.ok(rules.every((rule) => rule.haPorts && rule.symmetric && rule.protocols.length === 2));
    assert.deepEqual(metrics, { address: ipAddress('127.0.0.1'), port: 9902 });
  });

  it('leaves the input alone', () => {
    const raw = haExample();
    const before = structuredClone(raw);
    parse(raw);
    assert.deepEqual(raw, before);
  });

  it('takes as many backends on the kernel data plane as there are marks', () => {
    const block = (net: number, count: number) =>
      Array.from({ length: count }, (_, n) => `10.${net}.${n >> 8}.${n & 255}`);
    const errors = (count: number) => {
      const more = { pools: [{ name: 'others', backends: block(201, count) }] };
      const written = kernelExample(
        'nat',
        { tableSize: 65_521 },
        { pool: { backends: block(200, 32_768) }, more },
      );
      return parse(written).findings.filter(({ code }) => code === 'LB_VALUE');
    };
    // Each takes seconds to read.
    for (const count of campaign({ share: [32_768], whole: [32_767, 32_768] })) {
      assert.deepEqual(errors(count).map(briefly), count === 32_768 ? ['error LB_VALUE backendPools'] : []);
    }
  });
});
