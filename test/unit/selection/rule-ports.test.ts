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

const ADDRESSES: Readonly<Record<string, string>> = {
  ...Object.fromEntries(frontends.map(({ name, address }) => [name, address.text])),
  ...{ stranger: '203.0.113.77', stranger6: '2001:db8::7', mapped: '::ffff:203.0.113.77' },
  ...{ unzoned: 'fe80::1', otherZone: 'fe80::1%eth1' },
};

const named443 = [haPorts('hub'), ordinary('hub', '443')];
const OF_NAMED_443 = 'tcp hub 443: hub-443; tcp hub 1 442 444 65535: hub-ha; udp hub 443: hub-ha';

/** Rules, and which of them takes what arrives where: protocol, address, ports. */
const CASES: readonly (readonly [what: string, rules: readonly Rule[], owners: string])[] = [
  [
    'finds the rule of the address, port and protocol',
    [ordinary('hub', '80,443'), ordinary('hub', '53', ['udp']), ordinary('other', '80')],
    'tcp hub 80 443: hub-80,443; tcp other 80: other-80; udp hub 53: hub-53; ' +
      'tcp hub 0 1 53 79 81 442 444 65535: none; udp hub 80: none; tcp stranger 80: none',
  ],
  ['prefers a rule that names the port to an HA-ports rule', named443, OF_NAMED_443],
  ['prefers it in the other order of rules too', named443.toReversed(), OF_NAMED_443],
  [
    'holds an HA-ports rule to the ports it listens on',
    [haPorts('hub', { ports: ports('8000-8099') })],
    'tcp hub 8000 8099: hub-ha; tcp hub 7999 8100: none',
  ],
  [
    'lets a wildcard frontend take any address of its family',
    [haPorts('any4'), ordinary('any6', '80')],
    'tcp stranger 9: any4-ha; tcp stranger6 80: any6-80; tcp stranger6 9: none; tcp mapped 80: any4-ha',
  ],
  [
    'prefers an exact address to a wildcard, whatever kind the rules are',
    [ordinary('any4', '443'), haPorts('hub')],
    'tcp hub 443: hub-ha; tcp other 443: any4-443',
  ],
  [
    'falls back to the wildcard for ports that the exact address leaves',
    [haPorts('any4'), ordinary('hub', '443')],
    'tcp hub 443: hub-443; tcp hub 80: any4-ha',
  ],
  [
    'takes the earlier of two rules of the same kind',
    [ordinary('hub', '1-100'), ordinary('hub', '50-200')],
    'tcp hub 50 100: hub-1-100; tcp hub 101: hub-50-200',
  ],
  [
    'heeds a zone only where both have one',
    [haPorts('link')],
    'tcp link 80: link-ha; tcp unzoned 80: link-ha; tcp otherZone 80: none',
  ],
  ['falls back from another zone', [haPorts('link'), haPorts('any6')], 'tcp otherZone 80: any6-ha'],
  ['finds nothing without rules', [], 'tcp hub 80: none'],
];

for (const [what, rules, owners] of CASES) {
  test(`RulePorts ${what}`, () => {
    const rulePorts = new RulePorts(aConfiguration({ frontends, rules }).rules);
    for (const line of owners.split('; ')) {
      const [asked = '', expected] = line.split(': ');
      const [protocol, name = '', ...numbers] = asked.split(' ');
      for (const port of numbers) {
        const address = ipAddress(ADDRESSES[name] ?? assert.fail(name));
        const index = rulePorts.ownerOf(protocol as Protocol, address, Number(port));
        const owner = index === NO_RULE ? 'none' : rules[index]?.name;
        assert.equal(owner, expected, `${protocol} ${name} ${port}`);
      }
    }
  });
}

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
  for (const [frontend, destination, expected] of [
    ['0.0.0.0', '10.0.0.1', true],
    ['0.0.0.0', '::1', false],
    ['::', '::1', true],
    ['10.0.0.1', '10.0.0.1', true],
    ['10.0.0.1', '10.0.0.2', false],
    ['fe80::1%eth0', 'fe80::1', true],
    ['fe80::1%eth0', 'fe80::1%eth1', false],
  ] as const) {
    assert.equal(frontendCovers(ipAddress(frontend), ipAddress(destination)), expected, destination);
  }
});
