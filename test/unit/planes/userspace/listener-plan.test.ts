import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ruleSlots } from '../../../../src/flows/flow.js';
import {
  planListeners,
  type ListenerBinding,
  type ListenerPlan,
  type PlanShare,
} from '../../../../src/planes/userspace/listen-plan.js';
import { ipAddress } from '../../../../src/model/address.js';
import type { Configuration } from '../../../../src/model/configuration.js';
import { parsePortSet, portSetOf, type PortSet } from '../../../../src/model/ports.js';
import { aConfiguration, aFrontend, aRule } from '../../selection/fixtures.js';

const OWN = {
  4: ['127.0.0.1', '10.0.0.1'].map(ipAddress),
  6: ['::1', 'fe80::1%eth0'].map(ipAddress),
};

function planOf(configuration: Configuration, share?: PlanShare): ListenerPlan {
  return planListeners(configuration, ruleSlots(configuration), (family) => OWN[family], share);
}

function plan(overrides: Partial<Configuration>): ListenerPlan {
  return planOf(aConfiguration(overrides));
}

function ports(text: string): PortSet {
  const set = parsePortSet(text);
  assert.ok(set !== undefined, text);
  return set;
}

/** `tcp 127.0.0.1` -> `80 web, 81 web`: every socket with its rule. */
function sockets(of: ListenerPlan): Record<string, string> {
  const found: Record<string, string[]> = {};
  for (const { protocol, address, port, slot } of [...of.values()].sort((a, b) => a.port - b.port)) {
    (found[`${protocol} ${address.text}`] ??= []).push(`${port} ${slot.rule.name}`);
  }
  return Object.fromEntries(Object.entries(found).map(([key, all]) => [key, all.join(', ')]));
}

function planned(of: ListenerPlan, key: string, port: number): ListenerBinding | undefined {
  const [protocol, address = ''] = key.split(' ');
  return of.get({ protocol: protocol === 'tcp' ? 'tcp' : 'udp', address, port });
}

function binding(of: ListenerPlan, key: string, port: number): ListenerBinding {
  const found = planned(of, key, port);
  assert.ok(found !== undefined, `No socket ${key} port ${port}`);
  return found;
}

describe('planListeners()', () => {
  test('planListeners() wants one socket a port and protocol of each rule', () => {
    const wanted = plan({
      rules: [
        aRule({ name: 'both', ports: ports('8000-8002') }),
        aRule({ name: 'udp', haPorts: false, protocols: ['udp'], ports: ports('53,123') }),
      ],
    });
    assert.deepEqual(sockets(wanted), {
      'tcp 198.51.100.1': '8000 both, 8001 both, 8002 both',
      'udp 198.51.100.1': '53 udp, 123 udp, 8000 both, 8001 both, 8002 both',
    });
  });

  test('planListeners() binds each socket to its rule, the rule`s index and its frontend', () => {
    const { frontends, rules } = aConfiguration({
      frontends: [aFrontend(), aFrontend({ name: 'hub6', address: ipAddress('::1') })],
      rules: [
        aRule({ name: 'a', ports: portSetOf(80) }),
        aRule({ name: 'b', frontend: 'hub6', ports: portSetOf(80) }),
      ],
    });
    const wanted = plan({ frontends, rules });
    assert.deepEqual(binding(wanted, 'tcp ::1', 80), {
      protocol: 'tcp',
      address: ipAddress('::1'),
      port: 80,
      slot: { rule: rules[1], index: 1, view: undefined },
    });
    assert.equal(binding(wanted, 'udp 198.51.100.1', 80).slot.index, 0);
  });

  test('a rule that names a port has it before an HA-ports rule, whichever comes first', () => {
    const wide = aRule({ name: 'wide', ports: ports('80-82') });
    const narrow = aRule({ name: 'narrow', haPorts: false, protocols: ['tcp'], ports: portSetOf(81) });
    for (const rules of [
      [wide, narrow],
      [narrow, wide],
    ]) {
      const wanted = plan({ rules });
      assert.deepEqual(sockets(wanted), {
        'tcp 198.51.100.1': '80 wide, 81 narrow, 82 wide',
        'udp 198.51.100.1': '80 wide, 81 wide, 82 wide',
      });
      assert.equal(binding(wanted, 'tcp 198.51.100.1', 81).slot.index, rules.indexOf(narrow));
      assert.equal(binding(wanted, 'tcp 198.51.100.1', 80).slot.index, rules.indexOf(wide));
    }
  });

  test('of two rules with one port, the earlier has it', () => {
    const rules = ['first', 'second'].map((name) =>
      aRule({ name, protocols: ['tcp'], ports: portSetOf(80) }),
    );
    assert.deepEqual(sockets(plan({ rules })), { 'tcp 198.51.100.1': '80 first' });
  });

  test('a wildcard frontend is one UDP socket for each own address of its family, and one TCP socket', () => {
    const four = plan({
      frontends: [aFrontend({ address: ipAddress('0.0.0.0') })],
      rules: [aRule({ ports: portSetOf(80) })],
    });
    assert.deepEqual(sockets(four), {
      'tcp 0.0.0.0': '80 ha-ports',
      'udp 127.0.0.1': '80 ha-ports',
      'udp 10.0.0.1': '80 ha-ports',
    });
    assert.equal(binding(four, 'udp 10.0.0.1', 80).slot.rule.frontend.address.text, '0.0.0.0');
    const six = plan({
      frontends: [aFrontend({ address: ipAddress('::') })],
      rules: [aRule({ ports: portSetOf(80) })],
    });
    assert.deepEqual(Object.keys(sockets(six)).sort(), ['tcp ::', 'udp ::1', 'udp fe80::1%eth0']);
  });

  test('a wildcard frontend without UDP asks for no addresses', () => {
    const configuration = aConfiguration({
      frontends: [aFrontend({ address: ipAddress('0.0.0.0') })],
      rules: [aRule({ protocols: ['tcp'], ports: portSetOf(80) })],
    });
    const wanted = planListeners(configuration, ruleSlots(configuration), () => assert.fail('asked'));
    assert.deepEqual(sockets(wanted), { 'tcp 0.0.0.0': '80 ha-ports' });
  });

  test('planListeners() wants all 65,535 ports where a rule has them all', () => {
    const wanted = plan({ rules: [aRule({ protocols: ['tcp'] })] });
    assert.equal(wanted.size, 65_535);
    assert.equal(planned(wanted, 'tcp 198.51.100.1', 0), undefined);
  });

  test('planListeners() wants nothing of rules without ports', () => {
    const wanted = plan({ rules: [aRule({ ports: [] })] });
    assert.equal(wanted.size, 0);
  });
});

describe('planListeners() where workers own TCP ports', () => {
  test('planListeners() gives each socket to one worker, which tells of it', () => {
    const configuration = aConfiguration({ rules: [aRule({ ports: ports('1-40') })] });
    const ownerOf = (_address: unknown, port: number): number => port % 3;
    const plans = [0, 1, 2].map((worker) => planOf(configuration, { worker, ownerOf, tcpPorts: 'owned' }));
    for (const key of ['tcp 198.51.100.1', 'udp 198.51.100.1']) {
      for (let port = 1; port <= 40; port++) {
        const found = plans.map((one) => planned(one, key, port));
        assert.deepEqual(
          found.map((one) => one?.reportedElsewhere ?? one?.port),
          [0, 1, 2].map((worker) => (worker === port % 3 ? port : undefined)),
        );
      }
    }
  });
});
