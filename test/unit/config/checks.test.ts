import assert from 'node:assert/strict';
import { it } from 'node:test';
import { ipAddress } from '../../../src/model/address.js';
import { example, haExample, parse } from '../../support/example.js';
import { finds, findsOnly } from './findings-table.js';

const OWN = { ownAddresses: [ipAddress('192.168.7.7')] };
const OTHERS = { name: 'others', backends: ['10.0.2.1', '10.0.2.2'] };
const many = (count: number) =>
  Array.from({ length: count }, (_, index) => `10.9.${index >> 8}.${index & 255}`);
const paths = (severity: string, holder: string, ...keys: readonly string[]) =>
  keys.map((key) => `${severity} ${holder}.${key}`);

it('the HA example has no findings', () => assert.deepEqual(parse(haExample()).findings, []));

/* Names */

findsOnly('LB_DUPLICATE_NAME', [
  [
    'a name of two rules',
    example({ more: { rules: [{ name: 'web', frontendPort: 444 }] } }),
    'error rules[1].name',
  ],
  [
    'a name of two frontends, probes and pools',
    example({
      more: {
        frontends: [{ name: 'hub', address: '10.0.0.2' }],
        probes: [{ name: 'alive', protocol: 'tcp', port: 1 }],
        pools: [{ ...OTHERS, name: 'nvas' }],
      },
    }),
    ...['error frontends[1].name', 'error probes[1].name', 'error backendPools[1].name'],
  ],
  [
    'a name of two backends of a pool',
    example({ pool: { backends: many(2).map((address) => ({ name: 'a', address })) } }),
    'error backendPools[0].backends[1].name',
    /^Name "a" is already that of a backend of pool "nvas", each must have its own \| "a" \| another name/,
  ],
]);

findsOnly('LB_UNKNOWN_NAME', [
  [
    'references to nothing, of a rule that is wrong otherwise too',
    example({ rule: { frontend: 'hubb', backendPool: 'x', probe: 'y', bad: 1 } }),
    ...paths('error', 'rules[0]', 'frontend', 'backendPool', 'probe'),
    /^There is no frontend "hubb"; did you mean "hub" \| "hubb" \| one of hub \|/,
    /^There is no probe "y" \| "y" \| one of alive \|/m,
  ],
  [
    'a floating address for no frontend',
    example({ pool: { backends: [{ address: '10.0.1.1', floatingAddresses: { hup: '10.0.0.1' } }] } }),
    'error backendPools[0].backends[0].floatingAddresses.hup',
  ],
]);

findsOnly('LB_UNUSED', [
  [
    'what no rule uses',
    example({
      more: {
        frontends: [{ name: 'spare', address: '10.0.0.2' }],
        probes: [{ name: 'spare', protocol: 'tcp', port: 1 }],
        pools: [OTHERS],
      },
    }),
    ...['note frontends[1]', 'note probes[1]', 'note backendPools[1]'],
  ],
]);

/* Ports */

findsOnly('LB_MISSING_KEY', [
  ['a rule without protocol', example({ rule: { protocol: undefined } }), 'error rules[0].protocol'],
  [
    'a rule without frontendPort',
    example({ rule: { frontendPort: undefined } }),
    'error rules[0].frontendPort',
  ],
]);

findsOnly('LB_CONFLICT', [
  [
    'haPorts against everything it stands for',
    example({ rule: { haPorts: true } }),
    ...paths('error', 'rules[0]', 'protocol', 'frontendPort', 'backendPort'),
  ],
  [
    'haPorts beside what it stands for',
    haExample({ rule: { protocol: 'all', frontendPort: 0, backendPort: 0 } }),
  ],
  ['listenPorts that leave nothing', example({ rule: { listenPorts: '80' } }), 'error rules[0].listenPorts'],
  [
    'an HA-ports rule on nothing but the metrics port',
    haExample({ rule: { listenPorts: '9902' }, metrics: { listen: '0.0.0.0:9902' } }),
    'error rules[0].listenPorts',
  ],
  [
    'fewer source ports than workers',
    example({ dataPlane: { workers: 3 }, pool: { sourcePorts: '40000-40001' } }),
    'error backendPools[0].sourcePorts',
  ],
  [
    'as many source ports as workers',
    example({ dataPlane: { workers: 2 }, pool: { sourcePorts: '40000-40001' } }),
  ],
]);

const TO_THE_END = { frontendPort: '5000-5100', backendPort: 65435 };
findsOnly('LB_VALUE', [
  [
    'a target range beyond 65535',
    example({ rule: { ...TO_THE_END, backendPort: 65436 } }),
    'error rules[0].backendPort',
  ],
  ['a target range up to 65535', example({ rule: TO_THE_END })],
  [
    'more backends than slots',
    example({ tableSize: 251, pool: { backends: many(252) } }),
    'error backendPools[0].backends',
  ],
]);

/* Probes */

findsOnly('LB_CONFLICT', [
  [
    'HTTP keys on a TCP probe',
    example({
      probe: { protocol: 'tcp', path: '/', expectStatus: '200', host: 'a', explicitAnswerFlips: true },
    }),
    ...paths('error', 'probes[0]', 'path', 'host', 'expectStatus', 'explicitAnswerFlips'),
  ],
  [
    'TLS keys on an HTTP probe',
    example({ probe: { serverName: 'a', skipVerify: false } }),
    ...paths('error', 'probes[0]', 'serverName', 'skipVerify'),
  ],
  [
    'TLS keys on an HTTPS probe',
    example({ probe: { protocol: 'https', serverName: 'a', skipVerify: true } }),
  ],
  [
    'a timeout longer than the interval',
    example({ probe: { interval: '5s', timeout: '5001ms' } }),
    'error probes[0].timeout',
  ],
  ['a timeout as long as the interval', example({ probe: { interval: '5s', timeout: '5s' } })],
]);

findsOnly('LB_MANAGEMENT_PORT', [
  ['a probe on SSH', example({ probe: { protocol: 'tcp', port: 22 } }), 'warning probes[0].port'],
]);

/* Pools */

findsOnly('LB_DUPLICATE_ADDRESS', [
  [
    'an address twice, once IPv4-mapped',
    example({ pool: { backends: ['10.0.1.1', '::ffff:10.0.1.1', '::ffff:a00:101'] } }),
    ...[1, 2].map((index) => `error backendPools[0].backends[${index}].address`),
    /^Address 10\.0\.1\.1 is already a backend of pool "nvas" \|/,
  ],
  [
    'one address in two pools',
    example({
      more: {
        pools: [{ ...OTHERS, backends: ['10.0.1.1', '10.0.1.9'] }],
        rules: [{ backendPool: 'others', frontendPort: 80, backendPort: 80 }],
      },
    }),
  ],
  [
    'two frontends with one address',
    example({ more: { frontends: [{ name: 'again', address: '::ffff:10.0.0.1' }] } }),
    'error frontends[1].address',
  ],
]);

const MEMBER = 'backendPools[0].backends';
finds(
  'pools',
  [
    ['an empty pool', example({ pool: { backends: [] } }), `warning LB_EMPTY_POOL ${MEMBER}`],
    [
      'few slots for the backends',
      example({ pool: { backends: many(656) } }),
      `warning LB_SMALL_TABLE ${MEMBER}`,
    ],
    ['enough slots for the backends', example({ pool: { backends: many(655) } })],
    [
      'minimumHealthy beyond every group',
      example({ pool: { minimumHealthy: 2, backends: ['10.0.1.1', { address: '10.0.1.2', priority: 1 }] } }),
      'warning LB_NEVER_ENOUGH backendPools[0].minimumHealthy',
    ],
    [
      'no weight at all',
      example({ pool: { backends: many(2).map((address) => ({ address, weight: 0 })) } }),
      `warning LB_NO_WEIGHT ${MEMBER}`,
    ],
    [
      'source addresses of another family',
      example({ pool: { sourceAddresses: ['fd00::1'] } }),
      ...[0, 1].map((index) => `error LB_CONFLICT ${MEMBER}[${index}].address`),
    ],
    ['source addresses of both families', example({ pool: { sourceAddresses: ['fd00::1', '10.0.0.50'] } })],
  ],
  { ignored: /^V/ },
);

/* Rules */

findsOnly('LB_NO_EFFECT', [
  [
    'UDP options on a TCP rule',
    example({ rule: { udp: {}, idleTimeout: { udp: '1m' } } }),
    ...paths('warning', 'rules[0]', 'idleTimeout.udp', 'udp'),
  ],
  [
    'TCP options on a UDP rule',
    example({ rule: { protocol: 'udp', tcp: {}, tcpReset: true, idleTimeout: { tcp: '4m' } } }),
    ...paths('warning', 'rules[0]', 'tcp', 'tcpReset', 'idleTimeout.tcp'),
  ],
  [
    'perPacket beside what keeps flows together',
    example({
      rule: { protocol: 'udp', udp: { perPacket: true }, symmetric: true, distribution: 'source-ip' },
    }),
    ...paths('warning', 'rules[0]', 'symmetric', 'distribution'),
  ],
]);

findsOnly('LB_CONFLICT', [
  [
    'perPacket that waits for responses',
    example({ rule: { protocol: 'udp', udp: { perPacket: true, expectedResponses: 1 } } }),
    'error rules[0].udp.expectedResponses',
  ],
  [
    'answers from other ports that would have to be counted',
    example({ rule: { protocol: 'udp', udp: { expectedResponses: 1, answersFrom: 'address' } } }),
    'error rules[0].udp.answersFrom',
  ],
]);

finds('rules', [
  [
    'answers from other ports with several workers',
    example({ dataPlane: { workers: 2 }, rule: { protocol: 'udp', udp: { answersFrom: 'address' } } }),
    'note LB_ANSWERS_BY_WORKER rules[0].udp.answersFrom',
  ],
  [
    'TCP that would be moved',
    example({ rule: { flowPolicy: { probeDown: 'rebalance', idle: 'reset' } } }),
    'note LB_REBALANCE_RESETS rules[0].flowPolicy',
  ],
  ['UDP that is moved', example({ rule: { protocol: 'udp', flowPolicy: { probeDown: 'rebalance' } } })],
  [
    'TCP that is dropped when all are down',
    example({ rule: { allDown: 'drop' } }),
    'note LB_DROP_ACCEPTS rules[0].allDown',
  ],
]);

findsOnly('LB_NO_RULES', [['no rules', example({ rules: [] }), 'warning rules']]);

/* Listeners */

findsOnly('LB_OVERLAP', [
  [
    'two rules on one port',
    example({ more: { rules: [{ frontendPort: '440-450', backendPort: 7000, protocol: 'all' }] } }),
    'error rules[1]',
  ],
  ['two rules on one port, one TCP and one UDP', example({ more: { rules: [{ protocol: 'udp' }] } })],
  [
    'two HA-ports rules with common ports',
    haExample({ more: { rules: [{ listenPorts: '8099-9000' }] } }),
    'error rules[1]',
  ],
  [
    'metrics on a port that a rule names',
    example({ metrics: { listen: '0.0.0.0:443' } }),
    'error metrics.listen',
  ],
  [
    'metrics on a port of a UDP rule',
    example({ rule: { protocol: 'udp' }, metrics: { listen: '0.0.0.0:443' } }),
  ],
  [
    'metrics on a port of an HA-ports rule, which leaves it out',
    haExample({ metrics: { listen: '10.0.0.1:8001' } }),
  ],
]);

findsOnly('LB_YIELDS', [
  [
    'an HA-ports rule that yields to one that names the port',
    haExample({
      more: { rules: [{ haPorts: false, protocol: 'udp', frontendPort: 8053, backendPort: 53 }] },
    }),
    'note rules[0]',
  ],
]);

const withWildcard = (address: string) =>
  example({ more: { frontends: [{ name: 'any', address }], rules: [{ frontend: 'any' }] } });
findsOnly('LB_CLASH', [
  ['a wildcard beside a specific address on one port', withWildcard('0.0.0.0'), 'error rules[1]'],
  ['a wildcard of the other family on one port', withWildcard('::')],
]);

/* Loops */

const FIRST = `${MEMBER}[0]`;
const ON_FRONTEND = { backends: ['10.0.0.1', '10.0.1.2'] };
const behind = (address: string, backend: string) =>
  haExample({ frontend: { address }, pool: { backends: [backend, '10.0.1.2'] } });
const floating = (address: string, alias: string) =>
  haExample({
    rule: { floatingIp: true },
    pool: {
      backends: [
        { address, floatingAddresses: { hub: alias } },
        { address: '10.0.1.2', floatingAddresses: { hub: '10.0.5.2' } },
      ],
    },
  });
findsOnly(
  'LB_LOOP',
  [
    [
      'a backend on the frontend of an HA-ports rule',
      haExample({ pool: ON_FRONTEND }),
      `error ${FIRST}.address`,
      /^Rule "ha" would send tcp and udp port 8000-8099 of 10\.0\.0\.1 into the listener of rule "ha" \|/,
    ],
    [
      'the same as IPv4-mapped IPv6',
      haExample({ pool: { backends: ['::ffff:10.0.0.1', '10.0.1.2'] } }),
      `error ${FIRST}.address`,
    ],
    ['a backend on the frontend, at another port', example({ pool: ON_FRONTEND })],
    [
      'a backend on the frontend, whose port another rule listens on',
      example({ pool: ON_FRONTEND, more: { rules: [{ frontendPort: '6400-6500', backendPort: 100 }] } }),
      `error ${FIRST}.address`,
    ],
    [
      'a backend whose port another protocol listens on',
      example({
        pool: ON_FRONTEND,
        more: { rules: [{ protocol: 'udp', frontendPort: 6443, backendPort: 100 }] },
      }),
    ],
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
        ['127.0.0.1', '127.0.0.11', false],
      ] as const
    ).map(([address, backend, loops]) => {
      const found = loops ? [`error ${FIRST}.address`] : [];
      return [`backend ${backend} behind frontend ${address}`, behind(address, backend), ...found] as const;
    }),
    [
      'a floating address on the frontend',
      floating('10.0.1.1', '10.0.0.1'),
      `error ${FIRST}.floatingAddresses.hub`,
    ],
    ['a backend on the frontend whose floating address is elsewhere', floating('10.0.0.1', '10.0.5.1')],
    [
      'a probe into a listener',
      example({ pool: ON_FRONTEND, probe: { port: 443 } }),
      `error ${FIRST}.address`,
    ],
    [
      'a probe into the metrics',
      example({ pool: { backends: ['127.0.0.1', '10.0.1.2'] }, metrics: { listen: '0.0.0.0:9000' } }),
      `error ${FIRST}.address`,
    ],
  ],
  OWN,
);

/* Source addresses */

const everyPort = { listenPorts: undefined };
findsOnly(
  'LB_SOURCE_PORTS',
  [
    [
      'a source address that is bound fully',
      haExample({ rule: everyPort, pool: { sourceAddresses: ['10.0.0.9', '10.0.0.1'] } }),
      'error backendPools[0].sourceAddresses[1]',
    ],
    [
      'a source address that is bound in part',
      haExample({ rule: { listenPorts: '32768-40000' }, pool: { sourceAddresses: ['10.0.0.1'] } }),
      'warning backendPools[0].sourceAddresses[0]',
    ],
    ['a source address that is bound elsewhere', haExample({ pool: { sourceAddresses: ['10.0.0.1'] } })],
    [
      'a source address under a wildcard that is bound fully',
      haExample({
        rule: everyPort,
        frontend: { address: '0.0.0.0' },
        pool: { sourceAddresses: ['192.168.7.7'] },
      }),
      'error backendPools[0].sourceAddresses[0]',
    ],
    [
      'a probe source address that is bound fully',
      haExample({ rule: everyPort, probe: { sourceAddress: '10.0.0.1' } }),
      'error probes[0].sourceAddress',
    ],
  ],
  OWN,
);

findsOnly('LB_SOURCE_NEEDED', [
  [
    'every port bound and no source address anywhere',
    haExample({ rule: everyPort }),
    ...['warning probes[0]', 'warning backendPools[0]'],
  ],
  [
    'every port bound and source addresses given',
    haExample({
      rule: everyPort,
      probe: { sourceAddress: '10.0.0.9' },
      pool: { sourceAddresses: ['10.0.0.9'] },
    }),
  ],
]);
