import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { ruleSlots } from '../../../../src/flows/flow.js';
import { ipAddress, parseCidr, type Protocol } from '../../../../src/model/address.js';
import type { Configuration } from '../../../../src/model/configuration.js';
import {
  ALL_PORTS,
  formatPortSet,
  parsePortSet,
  portSetOf,
  portsOf,
  type PortSet,
} from '../../../../src/model/ports.js';
import {
  addressesOf,
  ownAddresses,
  planListeners,
  rendezvousOwner,
  shortageAdvice,
  socketBudget,
  tcpOwner,
  udpEndpoints,
  type BudgetRequest,
  type ListenerBinding,
  type ListenerPlan,
  type PlanShare,
} from '../../../../src/planes/userspace/listen-plan.js';
import { createHasher } from '../../../../src/selection/flow-hash.js';
import { aConfiguration, aFrontend, aRule } from '../../selection/fixtures.js';

const hash = await createHasher();
const WORKERS = 3;
const set = (text: string): PortSet => parsePortSet(text) ?? assert.fail(text);

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
        aRule({ name: 'both', ports: set('8000-8002') }),
        aRule({ name: 'udp', haPorts: false, protocols: ['udp'], ports: set('53,123') }),
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
    const wide = aRule({ name: 'wide', ports: set('80-82') });
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
    const configuration = aConfiguration({ rules: [aRule({ ports: set('1-40') })] });
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

describe('planListeners() for several workers', () => {
  const configuration = aConfiguration({
    rules: [
      aRule({ ports: set('8000-8099') }),
      aRule({ name: 'dns', haPorts: false, protocols: ['udp'], ports: set('53') }),
    ],
  });
  const plans = () => {
    const ownerOf = rendezvousOwner(hash, WORKERS);
    return Array.from({ length: WORKERS }, (_, worker) => planOf(configuration, { worker, ownerOf }));
  };

  test('each UDP port is in one plan, each TCP port in all and told of by one', () => {
    const of = (protocol: Protocol) =>
      plans().map((plan) => [...plan.values()].filter((binding) => binding.protocol === protocol));
    const udp = of('udp').flatMap((bindings) => bindings.map(({ port }) => port));
    assert.equal(udp.length, 101);
    assert.equal(new Set(udp).size, 101);
    const tcp = of('tcp');
    for (const bindings of tcp) assert.equal(bindings.length, 100);
    const reported = tcp.flat().filter(({ reportedElsewhere }) => reportedElsewhere !== true);
    assert.equal(reported.length, 100);
    assert.equal(new Set(reported.map(({ port }) => port)).size, 100);
  });

  test('udpEndpoints() knows those of all workers', () => {
    const isPlanned = udpEndpoints(configuration, () => []);
    const planned = [...portsOf(ALL_PORTS)].filter((port) => isPlanned('198.51.100.1', port));
    assert.equal(formatPortSet(portSetOf(...planned)), '53,8000-8099');
    assert.equal(isPlanned('198.51.100.2', 53), false);
  });
});

const rest = { netmask: '', mac: '', internal: false, cidr: null };

describe('own addresses', () => {
  test('addressesOf() lists a family once each, link-local IPv6 with its interface', () => {
    const interfaces: Parameters<typeof addressesOf>[1] = {
      lo: [
        { ...rest, address: '127.0.0.1', family: 'IPv4' },
        { ...rest, address: '::1', family: 'IPv6', scopeid: 0 },
      ],
      eth0: [
        { ...rest, address: '192.0.2.7', family: 'IPv4' },
        { ...rest, address: 'fe80::1', family: 'IPv6', scopeid: 2 },
      ],
      eth1: [
        { ...rest, address: '192.0.2.7', family: 'IPv4' },
        { ...rest, address: 'fe80::1', family: 'IPv6', scopeid: 3 },
      ],
      down: undefined,
    };
    const texts = (family: 4 | 6): readonly string[] =>
      addressesOf(family, interfaces).map(({ text }) => text);
    assert.deepEqual(texts(4), ['127.0.0.1', '192.0.2.7']);
    assert.deepEqual(texts(6), ['::1', 'fe80::1%eth0', 'fe80::1%eth1']);
  });

  test('ownAddresses() are addresses that a socket can be bound to', async () => {
    const found = [...ownAddresses(4), ...ownAddresses(6)];
    assert.ok(found.some(({ text }) => text === '127.0.0.1'));
    for (const { family, text } of found) {
      const socket = createSocket(family === 4 ? 'udp4' : 'udp6');
      socket.bind(0, text);
      await once(socket, 'listening');
      socket.close();
    }
  });
});

const ADDRESSES = ['127.0.0.1', '198.51.100.7', '::1', '2001:db8::5'].map(ipAddress);
const PORTS = Array.from({ length: 2000 }, (_, index) => 1 + index * 32);

describe('rendezvousOwner()', () => {
  test('rendezvousOwner() owns by the highest xxh32, as the xxhsum tool computes it', (t) => {
    const scoreOf = (hex: string): number =>
      Number.parseInt(
        execFileSync('xxhsum', ['-H32', '-'], { input: Buffer.from(hex, 'hex') })
          .toString()
          .slice(0, 8),
        16,
      );
    try {
      scoreOf('00');
    } catch {
      t.skip('xxhsum is not installed');
      return;
    }
    // 198.51.100.7 port 500 (0x01f4), workers 0 to 2.
    const scores = [0, 1, 2].map((worker) => scoreOf(`c633640701f40${worker}`));
    const expected = scores.indexOf(Math.max(...scores));
    assert.equal(rendezvousOwner(hash, 3)(ipAddress('198.51.100.7'), 500), expected);
  });

  test('rendezvousOwner() gives every worker an equal part of the ports, within a tenth', () => {
    for (const workers of [2, 3, 8]) {
      const owner = rendezvousOwner(hash, workers);
      const counts = new Array<number>(workers).fill(0);
      for (const address of ADDRESSES) for (const port of PORTS) counts[owner(address, port)]!++;
      const fair = (ADDRESSES.length * PORTS.length) / workers;
      for (const count of counts) assert.ok(Math.abs(count - fair) < fair / 10, counts.join(', '));
    }
  });

  test('rendezvousOwner() moves ports only to the worker that is new', () => {
    const [three, four] = [rendezvousOwner(hash, 3), rendezvousOwner(hash, 4)];
    for (const address of ADDRESSES) {
      for (const port of PORTS) {
        const now = four(address, port);
        assert.ok(now === 3 || now === three(address, port));
      }
    }
  });

  test('rendezvousOwner() says the same when asked again, and in another process', () => {
    const [one, other] = [rendezvousOwner(hash, 5), rendezvousOwner(hash, 5)];
    for (const port of PORTS) {
      const owner = one(ADDRESSES[0]!, port);
      assert.equal(one(ADDRESSES[0]!, port), owner);
      assert.equal(other(ipAddress('127.0.0.1'), port), owner);
    }
  });

  test('rendezvousOwner() of one worker is that worker', () => {
    const owner = rendezvousOwner(() => assert.fail('hashed'), 1);
    assert.equal(owner(ADDRESSES[0]!, 80), 0);
  });

  test('tcpOwner() gives a port to one worker whatever the address, so that no wildcard is in another`s way', () => {
    const owner = tcpOwner(rendezvousOwner(hash, 8));
    const [any4, any6] = ['0.0.0.0', '::'].map(ipAddress);
    for (const port of PORTS) {
      for (const address of ADDRESSES) {
        assert.equal(owner(address, port), owner(address.family === 4 ? any4! : any6!, port));
      }
    }
    assert.ok(new Set(PORTS.map((port) => owner(ADDRESSES[0]!, port))).size === 8);
  });
});

function withPorts(text: string, address = '198.51.100.1') {
  const ports = set(text);
  return aConfiguration({
    frontends: [aFrontend({ address: ipAddress(address) })],
    rules: [aRule({ ports }), aRule({ name: 'again', haPorts: false, ports })],
  });
}

function budget(text: string, workers: number, limit: number | undefined, more: Partial<BudgetRequest> = {}) {
  return socketBudget({
    ...{ configuration: withPorts(text), workers, limit, ownAddresses: () => OWN[4] },
    ...more,
  });
}

describe('socketBudget()', () => {
  test('counts each port once a protocol, whatever number of rules has it', () => {
    assert.deepEqual(budget('1-9000', 1, 20_000), { tcpPorts: 'shared', sockets: 18_000 });
    assert.deepEqual(budget('1-9001', 0, 20_000).shortage?.needed, 20_003);
    assert.deepEqual(budget('1-9001', 0, undefined), { tcpPorts: 'shared', sockets: 18_002 });
  });

  test('counts UDP on each own address of a wildcard frontend', () => {
    const configuration = withPorts('1-100', '0.0.0.0');
    assert.equal(budget('1', 1, 20_000, { configuration }).sockets, 100 + 2 * 100);
  });

  test('shares TCP ports while that fits the limit, and owns them where it does not', () => {
    assert.equal(budget('1-100', 8, 20_000).tcpPorts, 'shared');
    assert.equal(budget('1-5000', 8, 20_000).tcpPorts, 'shared');
    assert.equal(budget('1-5000', 8, 5_000).tcpPorts, 'owned');
    assert.equal(budget('1-65535', 8, 20_000).tcpPorts, 'owned');
  });

  test('owns TCP ports where handing them over would take minutes, though they fit', () => {
    assert.equal(budget('1-65535', 8, 1_000_000).tcpPorts, 'owned');
    assert.equal(budget('1-65535', 1, 1_000_000).tcpPorts, 'shared');
  });

  test('fits all ports of both protocols into 8 workers of 20,000 descriptors, and says so to one', () => {
    assert.equal(budget('1-65535', 8, 20_000).shortage, undefined);
    assert.deepEqual(budget('1-65535', 7, 20_000).shortage?.workers, 8);
    assert.deepEqual(budget('1-65535', 1, 20_000).shortage, { limit: 20_000, needed: 145_634, workers: 8 });
  });

  test('knows no number of workers under a limit that is far too low', () => {
    const { shortage } = budget('1-65535', 8, 1024);
    assert.equal(shortage?.workers, undefined);
    assert.doesNotMatch(shortageAdvice(shortage ?? assert.fail()), /dataPlane.workers/);
  });

  test('keeps to a form that was decided before, and tells what that needs', () => {
    const { tcpPorts, shortage } = budget('1-65535', 8, 20_000, { tcpPorts: 'shared' });
    assert.equal(tcpPorts, 'shared');
    assert.ok(shortage !== undefined && shortage.needed > 80_000);
    assert.equal(shortage.workers, undefined);
    assert.equal(budget('1-10', 8, 20_000, { tcpPorts: 'owned' }).tcpPorts, 'owned');
  });

  test('needs a handful of sockets where ports are captured', () => {
    const block = parseCidr('240.0.0.0/4') ?? assert.fail();
    const capture = { udp: 'redirect', port: 61_000, block } as const;
    const { tcpPorts, sockets } = budget('1-65535', 8, 1024, { capture });
    assert.equal(tcpPorts, 'shared');
    assert.ok(sockets < 20, `${sockets} sockets`);
  });

  test('is never below what a worker really owns', () => {
    const ownerOf = rendezvousOwner(hash, 8);
    const configuration = withPorts('1-65535');
    const { sockets } = budget('1-65535', 8, 20_000);
    let total = 0;
    for (let worker = 0; worker < 8; worker++) {
      const share = { worker, ownerOf, tcpPorts: 'owned' } as const;
      const own = planListeners(configuration, ruleSlots(configuration), () => OWN[4], share).size;
      assert.ok(own <= sockets, `${own} of ${sockets}`);
      total += own;
    }
    assert.equal(total, 2 * 65_535);
  });
});
