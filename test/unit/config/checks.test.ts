import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ipAddress } from '../../../src/model/address.js';
import type { Surroundings } from '../../../src/config/load.js';
import { brief, example, haExample, only, parse, withCode, type Example } from './example.js';

interface Case {
  readonly what: string;
  readonly raw: Example;
  /** All findings of this code, in brief. */
  readonly code: string;
  readonly found: readonly string[];
  readonly surroundings?: Surroundings;
}

const ONE = ipAddress('192.168.7.7');

/** The example with its only rule changed. */
const withRule = (change: Record<string, unknown>, make = example) =>
  make((raw) => (raw.rules[0] = { ...raw.rules[0], ...change }));
const withProbe = (change: Record<string, unknown>) =>
  example((raw) => (raw.probes[0] = { ...raw.probes[0], ...change }));
const withPool = (change: Record<string, unknown>, make = example) =>
  make((raw) => Object.assign(raw.backendPools[0] ?? {}, change));
/** The example with another rule beside its own. */
const withSecond = (change: Record<string, unknown>, make = example) =>
  make((raw) => raw.rules.push({ ...raw.rules[0], name: 'second', ...change }));
const backends = (...addresses: readonly string[]) => ({
  backends: addresses.map((address) => ({ address })),
});
const many = (count: number) =>
  backends(...Array.from({ length: count }, (_, i) => `10.9.${i >> 8}.${i & 255}`));

const NAMES: readonly Case[] = [
  {
    what: 'a name of two rules',
    raw: withSecond({ name: 'web', frontendPort: 444, backendPort: 444 }),
    code: 'LB_DUPLICATE_NAME',
    found: ['error LB_DUPLICATE_NAME rules[1].name'],
  },
  {
    what: 'a name of two frontends, probes, pools',
    raw: example((raw) => {
      raw.frontends.push({ name: 'hub', address: '10.0.0.2' });
      raw.probes.push({ name: 'alive', protocol: 'tcp', port: 1 });
      raw.backendPools.push({ name: 'nvas', ...backends('10.0.3.1', '10.0.3.2') });
    }),
    code: 'LB_DUPLICATE_NAME',
    found: [
      'error LB_DUPLICATE_NAME frontends[1].name',
      'error LB_DUPLICATE_NAME probes[1].name',
      'error LB_DUPLICATE_NAME backendPools[1].name',
    ],
  },
  {
    what: 'a name of two backends of a pool',
    raw: withPool({
      backends: [
        { name: 'a', address: '10.0.1.1' },
        { name: 'a', address: '10.0.1.2' },
      ],
    }),
    code: 'LB_DUPLICATE_NAME',
    found: ['error LB_DUPLICATE_NAME backendPools[0].backends[1].name'],
  },
  {
    what: 'references to nothing, of a rule that is wrong otherwise too',
    raw: withRule({ frontend: 'hubb', backendPool: 'x', probe: 'y', bad: 1 }),
    code: 'LB_UNKNOWN_NAME',
    found: [
      'error LB_UNKNOWN_NAME rules[0].frontend',
      'error LB_UNKNOWN_NAME rules[0].backendPool',
      'error LB_UNKNOWN_NAME rules[0].probe',
    ],
  },
  {
    what: 'a floating address for no frontend',
    raw: withPool({ backends: [{ address: '10.0.1.1', floatingAddresses: { hup: '10.0.0.1' } }] }),
    code: 'LB_UNKNOWN_NAME',
    found: ['error LB_UNKNOWN_NAME backendPools[0].backends[0].floatingAddresses.hup'],
  },
  {
    what: 'what no rule uses',
    raw: example((raw) => {
      raw.frontends.push({ name: 'spare', address: '10.0.0.2' });
      raw.probes.push({ name: 'spare', protocol: 'tcp', port: 1 });
      raw.backendPools.push({ name: 'spare', ...backends('10.0.3.1', '10.0.3.2') });
    }),
    code: 'LB_UNUSED',
    found: ['note LB_UNUSED frontends[1]', 'note LB_UNUSED probes[1]', 'note LB_UNUSED backendPools[1]'],
  },
];

const PORTS: readonly Case[] = [
  ...(['protocol', 'frontendPort'] as const).map((key) => ({
    what: `a rule without ${key}`,
    raw: withRule({ [key]: undefined }),
    code: 'LB_MISSING_KEY',
    found: [`error LB_MISSING_KEY rules[0].${key}`],
  })),
  {
    what: 'haPorts against everything it stands for',
    raw: withRule({ haPorts: true }),
    code: 'LB_CONFLICT',
    found: [
      'error LB_CONFLICT rules[0].protocol',
      'error LB_CONFLICT rules[0].frontendPort',
      'error LB_CONFLICT rules[0].backendPort',
    ],
  },
  {
    what: 'haPorts beside what it stands for',
    raw: withRule({ protocol: 'all', frontendPort: 0, backendPort: 0 }, haExample),
    code: 'LB_CONFLICT',
    found: [],
  },
  {
    what: 'a target range beyond 65535',
    raw: withRule({ frontendPort: '5000-5100', backendPort: 65436 }),
    code: 'LB_VALUE',
    found: ['error LB_VALUE rules[0].backendPort'],
  },
  {
    what: 'a target range up to 65535',
    raw: withRule({ frontendPort: '5000-5100', backendPort: 65435 }),
    code: 'LB_VALUE',
    found: [],
  },
  {
    what: 'fewer source ports than workers',
    raw: example((raw) => {
      raw['dataPlane'] = { workers: 3 };
      Object.assign(raw.backendPools[0] ?? {}, { sourcePorts: '40000-40001' });
    }),
    code: 'LB_CONFLICT',
    found: ['error LB_CONFLICT backendPools[0].sourcePorts'],
  },
  {
    what: 'as many source ports as workers',
    raw: example((raw) => {
      raw['dataPlane'] = { workers: 2 };
      Object.assign(raw.backendPools[0] ?? {}, { sourcePorts: '40000-40001' });
    }),
    code: 'LB_CONFLICT',
    found: [],
  },
  {
    what: 'listenPorts that leave nothing',
    raw: withRule({ listenPorts: '80' }),
    code: 'LB_CONFLICT',
    found: ['error LB_CONFLICT rules[0].listenPorts'],
  },
  {
    what: 'an HA-ports rule on nothing but the metrics port',
    raw: haExample((raw) => {
      raw.rules[0] = { ...raw.rules[0], listenPorts: '9902' };
      raw['metrics'] = { listen: '0.0.0.0:9902' };
    }),
    code: 'LB_CONFLICT',
    found: ['error LB_CONFLICT rules[0].listenPorts'],
  },
];

const PROBES: readonly Case[] = [
  {
    what: 'HTTP keys on a TCP probe',
    raw: withProbe({ protocol: 'tcp', path: '/', expectStatus: '200', host: 'a', explicitAnswerFlips: true }),
    code: 'LB_CONFLICT',
    found: ['path', 'host', 'expectStatus', 'explicitAnswerFlips'].map(
      (key) => `error LB_CONFLICT probes[0].${key}`,
    ),
  },
  {
    what: 'TLS keys on an HTTP probe',
    raw: withProbe({ serverName: 'a', skipVerify: false }),
    code: 'LB_CONFLICT',
    found: ['error LB_CONFLICT probes[0].serverName', 'error LB_CONFLICT probes[0].skipVerify'],
  },
  {
    what: 'TLS keys on an HTTPS probe',
    raw: withProbe({ protocol: 'https', serverName: 'a', skipVerify: true }),
    code: 'LB_CONFLICT',
    found: [],
  },
  {
    what: 'a timeout longer than the interval',
    raw: withProbe({ interval: '5s', timeout: '5001ms' }),
    code: 'LB_CONFLICT',
    found: ['error LB_CONFLICT probes[0].timeout'],
  },
  {
    what: 'a timeout as long as the interval',
    raw: withProbe({ interval: '5s', timeout: '5s' }),
    code: 'LB_CONFLICT',
    found: [],
  },
  {
    what: 'a probe on SSH',
    raw: withProbe({ protocol: 'tcp', port: 22 }),
    code: 'LB_MANAGEMENT_PORT',
    found: ['warning LB_MANAGEMENT_PORT probes[0].port'],
  },
];

const POOLS: readonly Case[] = [
  {
    what: 'an address twice, once IPv4-mapped',
    raw: withPool(backends('10.0.1.1', '::ffff:10.0.1.1', '::ffff:a00:101')),
    code: 'LB_DUPLICATE_ADDRESS',
    found: [1, 2].map((index) => `error LB_DUPLICATE_ADDRESS backendPools[0].backends[${index}].address`),
  },
  {
    what: 'one address in two pools',
    raw: example((raw) => {
      raw.backendPools.push({ name: 'others', ...backends('10.0.1.1', '10.0.1.9') });
      raw.rules.push({
        ...raw.rules[0],
        name: 'other',
        backendPool: 'others',
        frontendPort: 80,
        backendPort: 80,
      });
    }),
    code: 'LB_DUPLICATE_ADDRESS',
    found: [],
  },
  {
    what: 'an empty pool',
    raw: withPool({ backends: [] }),
    code: 'LB_EMPTY_POOL',
    found: ['warning LB_EMPTY_POOL backendPools[0].backends'],
  },
  {
    what: 'more backends than slots',
    raw: example((raw) => {
      Object.assign(raw.backendPools[0] ?? {}, many(252));
      raw['tableSize'] = 251;
    }),
    code: 'LB_VALUE',
    found: ['error LB_VALUE backendPools[0].backends'],
  },
  {
    what: 'few slots for the backends',
    raw: withPool(many(656)),
    code: 'LB_SMALL_TABLE',
    found: ['warning LB_SMALL_TABLE backendPools[0].backends'],
  },
  { what: 'enough slots for the backends', raw: withPool(many(655)), code: 'LB_SMALL_TABLE', found: [] },
  {
    what: 'minimumHealthy beyond every group',
    raw: withPool({
      minimumHealthy: 2,
      backends: [{ address: '10.0.1.1' }, { address: '10.0.1.2', priority: 1 }],
    }),
    code: 'LB_NEVER_ENOUGH',
    found: ['warning LB_NEVER_ENOUGH backendPools[0].minimumHealthy'],
  },
  {
    what: 'no weight at all',
    raw: withPool({
      backends: [
        { address: '10.0.1.1', weight: 0 },
        { address: '10.0.1.2', weight: 0 },
      ],
    }),
    code: 'LB_NO_WEIGHT',
    found: ['warning LB_NO_WEIGHT backendPools[0].backends'],
  },
  {
    what: 'source addresses of another family',
    raw: withPool({ sourceAddresses: ['fd00::1'] }),
    code: 'LB_CONFLICT',
    found: [0, 1].map((index) => `error LB_CONFLICT backendPools[0].backends[${index}].address`),
  },
  {
    what: 'source addresses of both families',
    raw: withPool({ sourceAddresses: ['fd00::1', '10.0.0.50'] }),
    code: 'LB_CONFLICT',
    found: [],
  },
];

const RULES: readonly Case[] = [
  {
    what: 'UDP options on a TCP rule',
    raw: withRule({ udp: {}, idleTimeout: { udp: '1m' } }),
    code: 'LB_NO_EFFECT',
    found: ['warning LB_NO_EFFECT rules[0].idleTimeout.udp', 'warning LB_NO_EFFECT rules[0].udp'],
  },
  {
    what: 'TCP options on a UDP rule',
    raw: withRule({ protocol: 'udp', tcp: {}, tcpReset: true, idleTimeout: { tcp: '4m' } }),
    code: 'LB_NO_EFFECT',
    found: ['tcp', 'tcpReset', 'idleTimeout.tcp'].map((key) => `warning LB_NO_EFFECT rules[0].${key}`),
  },
  {
    what: 'perPacket that waits for responses',
    raw: withRule({ protocol: 'udp', udp: { perPacket: true, expectedResponses: 1 } }),
    code: 'LB_CONFLICT',
    found: ['error LB_CONFLICT rules[0].udp.expectedResponses'],
  },
  {
    what: 'perPacket beside what keeps flows together',
    raw: withRule({ protocol: 'udp', udp: { perPacket: true }, symmetric: true, distribution: 'source-ip' }),
    code: 'LB_NO_EFFECT',
    found: ['warning LB_NO_EFFECT rules[0].symmetric', 'warning LB_NO_EFFECT rules[0].distribution'],
  },
  {
    what: 'answers from other ports that would have to be counted',
    raw: withRule({ protocol: 'udp', udp: { expectedResponses: 1, answersFrom: 'address' } }),
    code: 'LB_CONFLICT',
    found: ['error LB_CONFLICT rules[0].udp.answersFrom'],
  },
  {
    what: 'answers from other ports with several workers',
    raw: example((raw) => {
      Object.assign(raw, { dataPlane: { workers: 2 } });
      Object.assign(raw.rules[0] ?? {}, { protocol: 'udp', udp: { answersFrom: 'address' } });
    }),
    code: 'LB_ANSWERS_BY_WORKER',
    found: ['note LB_ANSWERS_BY_WORKER rules[0].udp.answersFrom'],
  },
  {
    what: 'TCP that would be moved',
    raw: withRule({ flowPolicy: { probeDown: 'rebalance', idle: 'reset' } }),
    code: 'LB_REBALANCE_RESETS',
    found: ['note LB_REBALANCE_RESETS rules[0].flowPolicy'],
  },
  {
    what: 'UDP that is moved',
    raw: withRule({ protocol: 'udp', flowPolicy: { probeDown: 'rebalance' } }),
    code: 'LB_REBALANCE_RESETS',
    found: [],
  },
  {
    what: 'TCP that is dropped when all are down',
    raw: withRule({ allDown: 'drop' }),
    code: 'LB_DROP_ACCEPTS',
    found: ['note LB_DROP_ACCEPTS rules[0].allDown'],
  },
  {
    what: 'no rules',
    raw: example((raw) => (raw.rules = [])),
    code: 'LB_NO_RULES',
    found: ['warning LB_NO_RULES rules'],
  },
];

const LISTENERS: readonly Case[] = [
  {
    what: 'two frontends with one address',
    raw: example((raw) => raw.frontends.push({ name: 'again', address: '::ffff:10.0.0.1' })),
    code: 'LB_DUPLICATE_ADDRESS',
    found: ['error LB_DUPLICATE_ADDRESS frontends[1].address'],
  },
  {
    what: 'two rules on one port',
    raw: withSecond({ frontendPort: '440-450', backendPort: 7000, protocol: 'all' }),
    code: 'LB_OVERLAP',
    found: ['error LB_OVERLAP rules[1]'],
  },
  {
    what: 'two rules on one port, one TCP and one UDP',
    raw: withSecond({ protocol: 'udp' }),
    code: 'LB_OVERLAP',
    found: [],
  },
  {
    what: 'two HA-ports rules with common ports',
    raw: withSecond({ listenPorts: '8099-9000' }, haExample),
    code: 'LB_OVERLAP',
    found: ['error LB_OVERLAP rules[1]'],
  },
  {
    what: 'an HA-ports rule that yields to one that names the port',
    raw: withSecond({ haPorts: false, protocol: 'udp', frontendPort: 8053, backendPort: 53 }, haExample),
    code: 'LB_YIELDS',
    found: ['note LB_YIELDS rules[0]'],
  },
  {
    what: 'a wildcard beside a specific address on one port',
    raw: example((raw) => {
      raw.frontends.push({ name: 'any', address: '0.0.0.0' });
      raw.rules.push({ ...raw.rules[0], name: 'second', frontend: 'any' });
    }),
    code: 'LB_CLASH',
    found: ['error LB_CLASH rules[1]'],
  },
  {
    what: 'a wildcard of the other family on one port',
    raw: example((raw) => {
      raw.frontends.push({ name: 'any', address: '::' });
      raw.rules.push({ ...raw.rules[0], name: 'second', frontend: 'any' });
    }),
    code: 'LB_CLASH',
    found: [],
  },
  {
    what: 'metrics on a port that a rule names',
    raw: example((raw) => (raw['metrics'] = { listen: '0.0.0.0:443' })),
    code: 'LB_OVERLAP',
    found: ['error LB_OVERLAP metrics.listen'],
  },
  {
    what: 'metrics on a port of a UDP rule',
    raw: example((raw) => {
      raw.rules[0] = { ...raw.rules[0], protocol: 'udp' };
      raw['metrics'] = { listen: '0.0.0.0:443' };
    }),
    code: 'LB_OVERLAP',
    found: [],
  },
  {
    what: 'metrics on a port of an HA-ports rule, which leaves it out',
    raw: haExample((raw) => (raw['metrics'] = { listen: '10.0.0.1:8001' })),
    code: 'LB_OVERLAP',
    found: [],
  },
];

const first = 'backendPools[0].backends[0]';
const LOOPS: readonly Case[] = [
  {
    what: 'a backend on the frontend of an HA-ports rule',
    raw: withPool(backends('10.0.0.1', '10.0.1.2'), haExample),
    code: 'LB_LOOP',
    found: [`error LB_LOOP ${first}.address`],
  },
  {
    what: 'the same as IPv4-mapped IPv6',
    raw: withPool(backends('::ffff:10.0.0.1', '10.0.1.2'), haExample),
    code: 'LB_LOOP',
    found: [`error LB_LOOP ${first}.address`],
  },
  {
    what: 'a backend on the frontend, at another port',
    raw: withPool(backends('10.0.0.1', '10.0.1.2')),
    code: 'LB_LOOP',
    found: [],
  },
  {
    what: 'a backend on the frontend, whose port another rule listens on',
    raw: example((raw) => {
      Object.assign(raw.backendPools[0] ?? {}, backends('10.0.0.1', '10.0.1.2'));
      raw.rules.push({ ...raw.rules[0], name: 'second', frontendPort: '6400-6500', backendPort: 100 });
    }),
    code: 'LB_LOOP',
    found: [`error LB_LOOP ${first}.address`],
  },
  {
    what: 'a backend whose port another protocol listens on',
    raw: example((raw) => {
      Object.assign(raw.backendPools[0] ?? {}, backends('10.0.0.1', '10.0.1.2'));
      raw.rules.push({
        ...raw.rules[0],
        name: 'second',
        protocol: 'udp',
        frontendPort: 6443,
        backendPort: 100,
      });
    }),
    code: 'LB_LOOP',
    found: [],
  },
  ...(
    [
      ['0.0.0.0', '127.0.0.1', true],
      ['0.0.0.0', '127.9.9.9', true],
      ['0.0.0.0', '192.168.7.7', true],
      ['0.0.0.0', '::ffff:192.168.7.7', true],
      ['0.0.0.0', '192.168.7.8', false],
      ['0.0.0.0', '::1', false],
      ['::', '::1', true],
      ['::', '127.0.0.1', true],
      ['::', '192.168.7.7', true],
      ['::', 'fd00::7', false],
    ] as const
  ).map(([frontend, address, loops]) => ({
    what: `backend ${address} behind a wildcard frontend ${frontend}`,
    raw: haExample((raw) => {
      raw.frontends[0] = { name: 'hub', address: frontend };
      Object.assign(raw.backendPools[0] ?? {}, backends(address, '10.0.1.2'));
    }),
    code: 'LB_LOOP',
    found: loops ? [`error LB_LOOP ${first}.address`] : [],
    surroundings: { ownAddresses: [ONE] },
  })),
  {
    what: 'a floating address on the frontend',
    raw: haExample((raw) => {
      raw.rules[0] = { ...raw.rules[0], floatingIp: true };
      Object.assign(raw.backendPools[0] ?? {}, {
        backends: [
          { address: '10.0.1.1', floatingAddresses: { hub: '10.0.0.1' } },
          { address: '10.0.1.2', floatingAddresses: { hub: '10.0.5.2' } },
        ],
      });
    }),
    code: 'LB_LOOP',
    found: [`error LB_LOOP ${first}.floatingAddresses.hub`],
  },
  {
    what: 'a backend on the frontend whose floating address is elsewhere',
    raw: haExample((raw) => {
      raw.rules[0] = { ...raw.rules[0], floatingIp: true };
      Object.assign(raw.backendPools[0] ?? {}, {
        backends: [
          { address: '10.0.0.1', floatingAddresses: { hub: '10.0.5.1' } },
          { address: '10.0.1.2', floatingAddresses: { hub: '10.0.5.2' } },
        ],
      });
    }),
    code: 'LB_LOOP',
    found: [],
  },
  {
    what: 'a probe into a listener',
    raw: example((raw) => {
      Object.assign(raw.backendPools[0] ?? {}, backends('10.0.0.1', '10.0.1.2'));
      raw.probes[0] = { ...raw.probes[0], port: 443 };
    }),
    code: 'LB_LOOP',
    found: [`error LB_LOOP ${first}.address`],
  },
  {
    what: 'a probe into the metrics',
    raw: example((raw) => {
      Object.assign(raw.backendPools[0] ?? {}, backends('127.0.0.1', '10.0.1.2'));
      raw['metrics'] = { listen: '0.0.0.0:9000' };
    }),
    code: 'LB_LOOP',
    found: [`error LB_LOOP ${first}.address`],
  },
  {
    what: 'a backend on another loopback address than the frontend',
    raw: haExample((raw) => {
      raw.frontends[0] = { name: 'hub', address: '127.0.0.1' };
      Object.assign(raw.backendPools[0] ?? {}, backends('127.0.0.11', '127.0.0.12'));
    }),
    code: 'LB_LOOP',
    found: [],
  },
];

const everyPort = (raw: Example) => (raw.rules[0] = { ...raw.rules[0], listenPorts: undefined });
const SOURCES: readonly Case[] = [
  {
    what: 'a source address that is bound fully',
    raw: haExample((raw) => {
      everyPort(raw);
      Object.assign(raw.backendPools[0] ?? {}, { sourceAddresses: ['10.0.0.9', '10.0.0.1'] });
    }),
    code: 'LB_SOURCE_PORTS',
    found: ['error LB_SOURCE_PORTS backendPools[0].sourceAddresses[1]'],
  },
  {
    what: 'a source address that is bound in part',
    raw: haExample((raw) => {
      raw.rules[0] = { ...raw.rules[0], listenPorts: '32768-40000' };
      Object.assign(raw.backendPools[0] ?? {}, { sourceAddresses: ['10.0.0.1'] });
    }),
    code: 'LB_SOURCE_PORTS',
    found: ['warning LB_SOURCE_PORTS backendPools[0].sourceAddresses[0]'],
  },
  {
    what: 'a source address that is bound elsewhere',
    raw: withPool({ sourceAddresses: ['10.0.0.1'] }, haExample),
    code: 'LB_SOURCE_PORTS',
    found: [],
  },
  {
    what: 'a source address under a wildcard that is bound fully',
    raw: haExample((raw) => {
      everyPort(raw);
      raw.frontends[0] = { name: 'hub', address: '0.0.0.0' };
      Object.assign(raw.backendPools[0] ?? {}, { sourceAddresses: ['192.168.7.7'] });
    }),
    code: 'LB_SOURCE_PORTS',
    found: ['error LB_SOURCE_PORTS backendPools[0].sourceAddresses[0]'],
    surroundings: { ownAddresses: [ONE] },
  },
  {
    what: 'a probe source address that is bound fully',
    raw: haExample((raw) => {
      everyPort(raw);
      raw.probes[0] = { ...raw.probes[0], sourceAddress: '10.0.0.1' };
    }),
    code: 'LB_SOURCE_PORTS',
    found: ['error LB_SOURCE_PORTS probes[0].sourceAddress'],
  },
  {
    what: 'every port bound and no source address anywhere',
    raw: haExample(everyPort),
    code: 'LB_SOURCE_NEEDED',
    found: ['warning LB_SOURCE_NEEDED probes[0]', 'warning LB_SOURCE_NEEDED backendPools[0]'],
  },
  {
    what: 'every port bound and source addresses given',
    raw: haExample((raw) => {
      everyPort(raw);
      raw.probes[0] = { ...raw.probes[0], sourceAddress: '10.0.0.9' };
      Object.assign(raw.backendPools[0] ?? {}, { sourceAddresses: ['10.0.0.9'] });
    }),
    code: 'LB_SOURCE_NEEDED',
    found: [],
  },
];

const GROUPS = { NAMES, PORTS, PROBES, POOLS, RULES, LISTENERS, LOOPS, SOURCES };

for (const [group, cases] of Object.entries(GROUPS)) {
  describe(`checks: ${group.toLowerCase()}`, () => {
    for (const { what, raw, code, found, surroundings } of cases) {
      it(`parseConfiguration() ${found.length === 0 ? 'is silent on' : 'tells'} ${what}`, () => {
        assert.deepEqual([...withCode(raw, code, surroundings)].sort(), [...found].sort());
        const errors = brief(raw, surroundings).some((line) => line.startsWith('error'));
        assert.equal(parse(raw, surroundings).ok, !errors);
      });
    }
  });
}

describe('checks', () => {
  it('the HA example has no findings', () => assert.deepEqual(brief(haExample()), []));

  it('parseConfiguration() says of a dangling name what was meant', () => {
    const finding = only(withRule({ frontend: 'hubb' }), 'LB_UNKNOWN_NAME');
    assert.equal(finding.message, 'There is no frontend "hubb"; did you mean "hub"');
    assert.equal(finding.expected, 'one of hub');
  });

  it('parseConfiguration() says of a loop which ports and which rule', () => {
    const finding = only(withPool(backends('10.0.0.1', '10.0.1.2'), haExample), 'LB_LOOP');
    const message =
      'Rule "ha" would send tcp and udp port 8000-8099 of 10.0.0.1 into the listener of rule "ha"';
    assert.equal(finding.message, message);
  });
});
