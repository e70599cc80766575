import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { KernelRule } from '../../../../src/planes/kernel/program.js';
import {
  accessRules,
  addressRules,
  blockTexts,
  coveredPorts,
  frontendGroups,
  otherProtocolsRule,
  portRules,
  type FrontendGroup,
} from '../../../../src/planes/kernel/nat/dispatch.js';
import { ipAddress, parseCidr, type Cidr } from '../../../../src/model/address.js';
import type { Frontend } from '../../../../src/model/configuration.js';
import { RulePorts } from '../../../../src/selection/rule-ports.js';
import { formatPortSet, parsePortSet } from '../../../../src/model/ports.js';
import { testFrontend, testRule, type RuleParts } from '../../../support/forwarding-state.js';

const NOTHING = { rebalance: [], reset: [], drop: [] };

function kernelRule(
  name: string,
  ports: string,
  rule: RuleParts = {},
  frontend: Partial<Frontend> = {},
): KernelRule {
  return {
    rule: {
      ...testRule({ name, haPorts: false, ports: parsePortSet(ports) ?? [], ...rule }),
      frontend: testFrontend(frontend),
    },
    index: 0,
    table: { name: 'nvas', marks: [] },
    actions: { tcp: NOTHING, udp: NOTHING },
  };
}

function groupsOf(frontends: readonly Frontend[], rules: readonly KernelRule[]): FrontendGroup[] {
  return frontendGroups({
    frontends,
    rules: rules.map((rule, index) => ({ ...rule, index })),
    rulePorts: new RulePorts(rules.map(({ rule }) => rule)),
  });
}

/** The rules' only frontend. */
function groupOf(...rules: readonly KernelRule[]): FrontendGroup {
  const [group] = groupsOf([testFrontend()], rules);
  return group ?? assert.fail();
}

function blocks(...texts: readonly string[]): Cidr[] {
  return texts.flatMap((text) => parseCidr(text) ?? []);
}

describe('portRules()', () => {
  const options = { key: 'tcp dport', verdict: ({ rule }: KernelRule): string => `goto ${rule.name}` };

  test('gives a port to the rule that comes first, and the rest to the others', () => {
    const group = groupOf(
      kernelRule('web', '443'),
      kernelRule('some', '400-500'),
      kernelRule('all', '1-65535', { haPorts: true }),
    );
    assert.deepEqual(portRules(group, 'tcp', options), [
      'tcp dport vmap { 443 : goto web, 400-442 : goto some, 444-500 : goto some, 1-399 : goto all, 501-65535 : goto all }',
    ]);
  });

  test('leaves rules of the other protocol out', () => {
    assert.deepEqual(portRules(groupOf(kernelRule('dns', '53', { protocols: ['udp'] })), 'tcp', options), []);
  });
});

describe('coveredPorts()', () => {
  test('is what any rule of the protocol has', () => {
    const group = groupOf(
      kernelRule('a', '1-9'),
      kernelRule('b', '5-20'),
      kernelRule('c', '30', { protocols: ['udp'] }),
    );
    assert.equal(formatPortSet(coveredPorts(group, 'tcp')), '1-20');
    assert.equal(formatPortSet(coveredPorts(group, 'udp')), '1-20,30');
  });
});

describe('otherProtocolsRule()', () => {
  test('is the HA-ports rule of all ports, less the few of haports itself', () => {
    const all = kernelRule('all', '1-9900,9903-65535', { haPorts: true });
    assert.equal(otherProtocolsRule([kernelRule('web', '1-65535'), all]), all);
  });

  test('is none where ports are chosen, or one protocol is', () => {
    assert.equal(otherProtocolsRule([kernelRule('all', '8000-8099', { haPorts: true })]), undefined);
    assert.equal(otherProtocolsRule([kernelRule('all', '100-65535', { haPorts: true })]), undefined);
    assert.equal(
      otherProtocolsRule([kernelRule('all', '1-65535', { haPorts: true, protocols: ['tcp'] })]),
      undefined,
    );
  });
});

describe('accessRules()', () => {
  test('has no rule where nothing is said', () => {
    assert.deepEqual(accessRules(kernelRule('all', '1-65535'), 'drop'), []);
  });

  test('denies first, then all that is not allowed', () => {
    const rule = kernelRule(
      'all',
      '1',
      {},
      { deny: blocks('10.1.0.0/16', '10.1.2.0/24'), allow: blocks('10.0.0.0/8', 'fd00::/8') },
    );
    assert.deepEqual(accessRules(rule, 'drop'), [
      'ip saddr { 10.1.0.0/16 } drop',
      'ip saddr != { 10.0.0.0/8 } drop',
    ]);
  });

  test('lets nobody in where only the other family is allowed', () => {
    assert.deepEqual(accessRules(kernelRule('all', '1', {}, { allow: blocks('fd00::/8') }), 'drop'), [
      'drop',
    ]);
  });
});

describe('blockTexts()', () => {
  test('has no two that overlap', () => {
    assert.deepEqual(
      blockTexts(blocks('10.1.0.3', '10.1.0.0/31', '10.1.0.0/30', '10.1.0.0/30', '10.2.0.0/30'), 4),
      ['10.1.0.0/30', '10.2.0.0/30'],
    );
  });
});

describe('frontendGroups()', () => {
  test('puts frontends of one address together, and keeps those without a rule', () => {
    const hub = testFrontend({ name: 'hub', address: ipAddress('10.9.0.1') });
    const same = testFrontend({ name: 'same', address: ipAddress('10.9.0.1') });
    const any = testFrontend({ name: 'any', address: ipAddress('::') });
    const rules = [kernelRule('a', '1', {}, hub), kernelRule('b', '2', {}, same)];
    const groups = groupsOf([hub, same, any], rules);
    assert.deepEqual(
      groups.map(({ name, wildcard, rules: own }) => [name, wildcard, own.map(({ rule }) => rule.name)]),
      [
        ['hub', false, ['a', 'b']],
        ['any', true, []],
      ],
    );
    assert.deepEqual(
      addressRules(groups, { key: (ip) => `${ip} daddr`, verdict: ({ name }) => `jump ${name}` }),
      ['ip daddr vmap { 10.9.0.1 : jump hub }'],
    );
  });

  test('addressRules() has an address without its zone', () => {
    const hub = testFrontend({ name: 'hub', address: ipAddress('fe80::1%eth0') });
    const groups = groupsOf([hub], []);
    assert.deepEqual(addressRules(groups, { key: (ip) => `${ip} daddr`, verdict: () => 'accept' }), [
      'ip6 daddr vmap { fe80::1 : accept }',
    ]);
  });
});
