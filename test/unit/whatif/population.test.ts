import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { generatedTuples, type PopulationSize } from '../../../src/whatif/population.js';
import { cidrContains, ipAddress, parseCidr, type Cidr, type FiveTuple } from '../../../src/model/address.js';
import type { Configuration } from '../../../src/model/configuration.js';
import { RulePorts } from '../../../src/selection/rule-ports.js';
import { aConfiguration, aFrontend, aRule } from '../selection/fixtures.js';

const SIZE: PopulationSize = { flows: 2000, sources: 50, seed: 3 };

function drawn(configuration: Configuration, ruleIndex = 0, size: Partial<PopulationSize> = {}): FiveTuple[] {
  return [...generatedTuples(configuration, ruleIndex, { ...SIZE, ...size })];
}

function block(text: string): Cidr {
  const parsed = parseCidr(text);
  assert.ok(parsed !== undefined, text);
  return parsed;
}

describe('generatedTuples()', () => {
  test('gives the same flows for the same seed, and others for another', () => {
    const configuration = aConfiguration();
    assert.deepEqual(drawn(configuration), drawn(configuration));
    assert.notDeepEqual(drawn(configuration), drawn(configuration, 0, { seed: 4 }));
  });

  test('draws as many flows as asked for, of as many clients, over both protocols and all ports', () => {
    const tuples = drawn(aConfiguration(), 0, { flows: 5000 });
    assert.equal(tuples.length, 5000);
    assert.equal(new Set(tuples.map(({ source }) => source.text)).size, 50);
    assert.ok(tuples.every(({ source }) => cidrContains(block('10.0.0.0/8'), source)));
    const tcp = tuples.filter(({ protocol }) => protocol === 'tcp').length;
    assert.ok(tcp > 2000 && tcp < 3000, `${tcp} of TCP`);
    const ports = tuples.map(({ destinationPort }) => destinationPort);
    assert.ok(Math.min(...ports) < 1000 && Math.max(...ports) > 64_000);
    assert.ok(Math.min(...ports) >= 1 && Math.max(...ports) <= 65_535);
  });

  test('draws a hundred thousand different clients', () => {
    const tuples = drawn(aConfiguration(), 0, { flows: 300_000, sources: 100_000 });
    // Of n clients drawn m times, n (1 - e^(-m/n)) turn up.
    const seen = new Set(tuples.map(({ source }) => source.text)).size;
    assert.ok(Math.abs(seen - 95_021) < 500, `${seen}`);
  });

  test('keeps to the family, the ports and the allow list of the rule', () => {
    const allow = [block('2001:db8:1::/48'), block('2001:db8:2::/64'), block('192.0.2.0/24')];
    const configuration = aConfiguration({
      frontends: [aFrontend({ address: ipAddress('2001:db8::99'), allow })],
      rules: [
        aRule({
          protocols: ['udp'],
          ports: [
            { first: 53, last: 53 },
            { first: 5000, last: 5002 },
          ],
        }),
      ],
    });
    const tuples = drawn(configuration);
    assert.deepEqual(
      [...new Set(tuples.map(({ destinationPort }) => destinationPort))].sort((a, b) => a - b),
      [53, 5000, 5001, 5002],
    );
    for (const { protocol, source, destination } of tuples) {
      assert.equal(protocol, 'udp');
      assert.equal(destination.text, '2001:db8::99');
      assert.ok(
        allow.some((one) => cidrContains(one, source)),
        source.text,
      );
    }
    assert.equal(new Set(tuples.map(({ source }) => source.text)).size, 50);
  });

  test('draws only what the rule itself would get, and nothing where stronger rules take all', () => {
    const named = aRule({
      name: 'web',
      haPorts: false,
      ports: [{ first: 1, last: 60_000 }],
      protocols: ['tcp'],
    });
    const configuration = aConfiguration({ rules: [aRule(), named] });
    const rulePorts = new RulePorts(configuration.rules);
    for (const ruleIndex of [0, 1]) {
      const tuples = drawn(configuration, ruleIndex);
      assert.equal(tuples.length, 2000);
      for (const { protocol, destination, destinationPort } of tuples) {
        assert.equal(rulePorts.ownerOf(protocol, destination, destinationPort), ruleIndex);
      }
    }
    const hidden = aConfiguration({ rules: [aRule(), aRule({ name: 'twin' })] });
    assert.deepEqual(drawn(hidden, 1), []);
  });

  test('addresses a wildcard frontend by some address of its family', () => {
    const frontends = [aFrontend({ address: ipAddress('::') })];
    const [tuple] = drawn(aConfiguration({ frontends }), 0, { flows: 1 });
    assert.equal(tuple?.destination.text, '2001:db8::1');
    assert.equal(tuple.source.family, 6);
  });
});
