import assert from 'node:assert/strict';
import test from 'node:test';
import { ipAddress, type Protocol } from '../../../src/model/address.js';
import { ALL_PORTS, parsePortSet, type PortSet } from '../../../src/model/ports.js';
import type { Rule } from '../../../src/model/configuration.js';
import { frontendCovers, NO_RULE, RulePorts } from '../../../src/selection/rule-ports.js';
import { aConfiguration, aFrontend, aRule } from './fixtures.js';
import type { RuleParts } from '../../support/forwarding-state.js';

function ports(text: string): PortSet {
  const set = parsePortSet(text);
  assert.ok(set, text);
  return set;
}

function haPorts(frontend: string, overrides: RuleParts = {}): Rule {
  return aRule({ name: `${frontend}-ha`, frontend, ...overrides });
}

function ordinary(frontend: string, portText: string, protocols: readonly Protocol[] = ['tcp']): Rule {
  return aRule({
    name: `${frontend}-${portText}`,
    frontend,
    haPorts: false,
    ports: ports(portText),
    protocols,
  });
}

const frontends = [
  aFrontend({ name: 'hub', address: ipAddress('198.51.100.1') }),
  aFrontend({ name: 'other', address: ipAddress('198.51.100.2') }),
  aFrontend({ name: 'any4', address: ipAddress('0.0.0.0') }),
  aFrontend({ name: 'any6', address: ipAddress('::') }),
  aFrontend({ name: 'link', address: ipAddress('fe80::1%eth0') }),
];

function matchedBy(
  rules: readonly Rule[],
  destination: string,
  port: number,
  protocol: Protocol = 'tcp',
): string {
  const configuration = aConfiguration({ frontends, rules });
  const rulePorts = new RulePorts(configuration.rules);
  const index = rulePorts.ownerOf(protocol, ipAddress(destination), port);
  return index === NO_RULE ? 'none' : (rules[index]?.name ?? '?');
}

test('RulePorts finds the rule of the address, port and protocol', () => {
  const rules = [ordinary('hub', '80,443'), ordinary('hub', '53', ['udp']), ordinary('other', '80')];
  assert.equal(matchedBy(rules, '198.51.100.1', 80), 'hub-80,443');
  assert.equal(matchedBy(rules, '198.51.100.1', 443), 'hub-80,443');
  assert.equal(matchedBy(rules, '198.51.100.2', 80), 'other-80');
  assert.equal(matchedBy(rules, '198.51.100.1', 53, 'udp'), 'hub-53');
  for (const port of [0, 1, 79, 81, 442, 444, 65535]) {
    assert.equal(matchedBy(rules, '198.51.100.1', port), 'none', String(port));
  }
  assert.equal(matchedBy(rules, '198.51.100.1', 53), 'none');
  assert.equal(matchedBy(rules, '198.51.100.1', 80, 'udp'), 'none');
  assert.equal(matchedBy(rules, '198.51.100.3', 80), 'none');
});

test('RulePorts prefers a rule that names the port to an HA-ports rule, in either order', () => {
  for (const rules of [
    [haPorts('hub'), ordinary('hub', '443')],
    [ordinary('hub', '443'), haPorts('hub')],
  ]) {
    assert.equal(matchedBy(rules, '198.51.100.1', 443), 'hub-443');
    assert.equal(matchedBy(rules, '198.51.100.1', 442), 'hub-ha');
    assert.equal(matchedBy(rules, '198.51.100.1', 444), 'hub-ha');
    assert.equal(matchedBy(rules, '198.51.100.1', 443, 'udp'), 'hub-ha');
    assert.equal(matchedBy(rules, '198.51.100.1', 1), 'hub-ha');
    assert.equal(matchedBy(rules, '198.51.100.1', 65535), 'hub-ha');
  }
});

test('RulePorts holds an HA-ports rule to the ports it listens on', () => {
  const rules = [haPorts('hub', { ports: ports('8000-8099') })];
  assert.equal(matchedBy(rules, '198.51.100.1', 8000), 'hub-ha');
  assert.equal(matchedBy(rules, '198.51.100.1', 8099), 'hub-ha');
  assert.equal(matchedBy(rules, '198.51.100.1', 7999), 'none');
  assert.equal(matchedBy(rules, '198.51.100.1', 8100), 'none');
});

test('RulePorts lets a wildcard frontend take any address of its family', () => {
  const rules = [haPorts('any4'), ordinary('any6', '80')];
  assert.equal(matchedBy(rules, '203.0.113.77', 9), 'any4-ha');
  assert.equal(matchedBy(rules, '2001:db8::7', 80), 'any6-80');
  assert.equal(matchedBy(rules, '2001:db8::7', 9), 'none');
  assert.equal(matchedBy(rules, '::ffff:203.0.113.77', 80), 'any4-ha');
});

test('RulePorts prefers an exact address to a wildcard, whatever kind the rules are', () => {
  const rules = [ordinary('any4', '443'), haPorts('hub')];
  assert.equal(matchedBy(rules, '198.51.100.1', 443), 'hub-ha');
  assert.equal(matchedBy(rules, '198.51.100.2', 443), 'any4-443');
});

test('RulePorts falls back to the wildcard for ports that the exact address leaves', () => {
  const rules = [haPorts('any4'), ordinary('hub', '443')];
  assert.equal(matchedBy(rules, '198.51.100.1', 443), 'hub-443');
  assert.equal(matchedBy(rules, '198.51.100.1', 80), 'any4-ha');
});

test('RulePorts takes the earlier of two rules of the same kind', () => {
  const rules = [ordinary('hub', '1-100'), ordinary('hub', '50-200')];
  assert.equal(matchedBy(rules, '198.51.100.1', 50), 'hub-1-100');
  assert.equal(matchedBy(rules, '198.51.100.1', 100), 'hub-1-100');
  assert.equal(matchedBy(rules, '198.51.100.1', 101), 'hub-50-200');
});

test('RulePorts heeds a zone only where both have one', () => {
  const rules = [haPorts('link')];
  assert.equal(matchedBy(rules, 'fe80::1%eth0', 80), 'link-ha');
  assert.equal(matchedBy(rules, 'fe80::1', 80), 'link-ha');
  assert.equal(matchedBy(rules, 'fe80::1%eth1', 80), 'none');
  assert.equal(matchedBy([...rules, haPorts('any6')], 'fe80::1%eth1', 80), 'any6-ha');
});

test('RulePorts finds nothing without rules', () => {
  assert.equal(matchedBy([], '198.51.100.1', 80), 'none');
});

test('RulePorts stays right with a rule a port', () => {
  const rules = Array.from({ length: 1000 }, (_, index) => ordinary('hub', String(1 + 7 * index)));
  const configuration = aConfiguration({
    frontends,
    rules: [...rules, haPorts('hub', { ports: ALL_PORTS })],
  });
  const rulePorts = new RulePorts(configuration.rules);
  const destination = ipAddress('198.51.100.1');
  for (let port = 1; port <= 7500; port++) {
    const named = (port - 1) % 7 === 0 && (port - 1) / 7 < 1000;
    assert.equal(rulePorts.ownerOf('tcp', destination, port), named ? (port - 1) / 7 : 1000);
  }
});

test('frontendCovers() knows wildcards, families and zones', () => {
  const covers = (frontend: string, destination: string): boolean =>
    frontendCovers(ipAddress(frontend), ipAddress(destination));
  assert.equal(covers('0.0.0.0', '10.0.0.1'), true);
  assert.equal(covers('0.0.0.0', '::1'), false);
  assert.equal(covers('::', '::1'), true);
  assert.equal(covers('10.0.0.1', '10.0.0.1'), true);
  assert.equal(covers('10.0.0.1', '10.0.0.2'), false);
  assert.equal(covers('fe80::1%eth0', 'fe80::1'), true);
  assert.equal(covers('fe80::1%eth0', 'fe80::1%eth1'), false);
});
