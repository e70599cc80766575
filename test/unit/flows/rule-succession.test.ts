import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ruleSuccessors } from '../../../src/flows/judge.js';
import { ipAddress } from '../../../src/model/address.js';
import type { Configuration } from '../../../src/model/configuration.js';
import { portSetOf } from '../../../src/model/ports.js';
import { aConfiguration, aFrontend, aRule } from '../selection/fixtures.js';
import type { RuleParts } from '../../support/forwarding-state.js';

function rules(...overrides: readonly RuleParts[]): Configuration {
  return aConfiguration({ rules: overrides.map((rule) => aRule(rule)) });
}

function successors(before: Configuration, after: Configuration): Record<string, string> {
  return Object.fromEntries(ruleSuccessors(before, after));
}

describe('ruleSuccessors()', () => {
  test('a rule is succeeded by the rule of its name, whatever else of it has changed', () => {
    const before = rules({ name: 'a' }, { name: 'b', ports: portSetOf(80) });
    const after = rules({ name: 'b', ports: portSetOf(81), backendPool: 'others' }, { name: 'a' });
    assert.deepEqual(successors(before, after), { a: 'a', b: 'b' });
  });

  test('a rule that is the same but for its name, and for how it balances, is the same rule', () => {
    const before = rules({ name: 'old' });
    const after = rules({
      name: 'new',
      distribution: 'source-ip',
      tcpReset: false,
      portOffset: 6000,
      probe: 'alive',
    });
    assert.deepEqual(successors(before, after), { old: 'new' });
  });

  test('a frontend is known by its address, not its name', () => {
    const before = aConfiguration({
      frontends: [aFrontend({ name: 'a' })],
      rules: [aRule({ frontend: 'a' })],
    });
    const renamed = aConfiguration({
      frontends: [aFrontend({ name: 'b' })],
      rules: [aRule({ name: 'new', frontend: 'b' })],
    });
    assert.deepEqual(successors(before, renamed), { 'ha-ports': 'new' });
    const moved = aConfiguration({
      frontends: [aFrontend({ name: 'a', address: ipAddress('198.51.100.2') })],
      rules: [aRule({ name: 'new', frontend: 'a' })],
    });
    assert.deepEqual(successors(before, moved), {});
  });

  for (const [what, change] of [
    ['pool', { backendPool: 'others' }],
    ['ports', { ports: portSetOf(80) }],
    ['being an HA-ports rule', { haPorts: false }],
    ['protocols, with none in common', { protocols: ['udp'] }],
  ] as const satisfies readonly (readonly [string, RuleParts])[]) {
    test(`a rule of another name and ${what} is another rule`, () => {
      const before = rules({ name: 'old', protocols: ['tcp'] });
      assert.deepEqual(successors(before, rules({ name: 'new', protocols: ['tcp'], ...change })), {});
    });
  }

  test('a name that was there before is no new name', () => {
    const before = rules({ name: 'a' }, { name: 'b', protocols: ['tcp'], ports: portSetOf(80) });
    const after = rules({ name: 'b' });
    assert.deepEqual(successors(before, after), { b: 'b' });
  });

  test('of several it is the one with most protocols in common, then the first', () => {
    const before = rules({ name: 'old' });
    const after = rules({ name: 'x', protocols: ['udp'] }, { name: 'y' }, { name: 'z' });
    assert.deepEqual(successors(before, after), { old: 'y' });
    const split = rules({ name: 'x', protocols: ['udp'] }, { name: 'y', protocols: ['tcp'] });
    assert.deepEqual(successors(before, split), { old: 'x' });
  });

  test('two rules may become one', () => {
    const before = rules({ name: 't', protocols: ['tcp'] }, { name: 'u', protocols: ['udp'] });
    assert.deepEqual(successors(before, rules({ name: 'both' })), { t: 'both', u: 'both' });
  });
});
