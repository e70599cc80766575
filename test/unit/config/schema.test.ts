import assert from 'node:assert/strict';
import { it } from 'node:test';
import { example, parse } from '../../support/example.js';
import { configurationOf } from '../../support/state-factory.js';
import { briefly, finds, type Row } from './findings-table.js';

const MEMBER = 'backendPools[0].backends[0]';

/** A place in the example, what is written there, and what the error says of it. */
const REFUSED: readonly (readonly [at: string, value: unknown, says: RegExp])[] = [
  ['VALUE compat', 'aws', /one of "none", "azure", found "aws"/],
  ['VALUE seed', 2 ** 32, /0 to 4294967295, found 4294967296/],
  ['TYPE seed', '1', /a whole number .*, found "1"/],
  ['VALUE tableSize', 65536, /a prime from 251/],
  ['VALUE tableSize', 241, /a prime from 251/],
  ['VALUE tableSize', 655379, /to 655373/],
  ['VALUE dataPlane.workers', 65, /0 to 64, found 65/],
  ['TYPE dataPlane.workers', 0.5, /whole number/],
  ['TYPE rules', {}, /Expected a list, found an object/],
  ['TYPE rules[0]', null, /Expected an object, found null/],
  ['VALUE frontends[0].name', 'Hub', /lower-case/],
  ['VALUE probes[0].name', '-a', /lower-case/],
  ['VALUE rules[0].name', 'a'.repeat(64), /up to 63/],
  ['VALUE rules[0].name', '', /lower-case/],
  ['VALUE rules[0].name', 'constructor', /reserved/],
  ['VALUE frontends[0].address', 'localhost', /an IP address/],
  ['VALUE frontends[0].address', '127.1', /an IP address/],
  ['VALUE frontends[0].address', '239.1.1.1', /multicast/],
  ['VALUE frontends[0].address', 'fe80::1', /%eth0/],
  ['VALUE frontends[0].allow[0]', '10.0.0.1/8', /10\.0\.0\.0\/8/],
  [`VALUE ${MEMBER}.address`, '0.0.0.0', /wildcard/],
  [`VALUE ${MEMBER}.address`, '255.255.255.255', /broadcast/],
  [`VALUE ${MEMBER}.address`, 'ff02::1', /multicast/],
  [`VALUE ${MEMBER}.weight`, 257, /0 to 256, found 257/],
  [`VALUE ${MEMBER}.weight`, -1, /0 to 256/],
  [`VALUE ${MEMBER}.priority`, 256, /0 to 255/],
  ['VALUE backendPools[0].sourcePorts', '', /ports from 1/],
  ['VALUE backendPools[0].sourcePorts', '9-1', /ports from 1/],
  ['TYPE backendPools[0].connectTimeout', 5, /a duration/],
  ['VALUE probes[0].port', 0, /1 to 65535, found 0/],
  ['VALUE probes[0].interval', '99ms', /100ms to 1h/],
  ['VALUE probes[0].interval', '61m', /100ms to 1h/],
  ['VALUE probes[0].path', 'healthz', /starts with "\/"/],
  ['VALUE probes[0].path', '/a\r\nX: y', /no spaces/],
  ['VALUE probes[0].host', 'a\r\nX: y', /a host name/],
  ['VALUE probes[0].expectStatus', '200-600', /100 to 599/],
  ['VALUE probes[0].threshold.up', 0, /1 to 100, found 0/],
  ['VALUE probes[0].threshold', '2', /or \{"up"/],
  ['VALUE rules[0].frontendPort', 65536, /0 to 65535, found 65536/],
  ['VALUE rules[0].backendPort', -1, /0 to 65535, found -1/],
  [`TYPE ${MEMBER}.weight`, 'heavy', /a whole number from 0 to 256, found "heavy"/],
  ['TYPE rules[0].symmetric', 'yes', /true or false, found "yes"/],
  ['VALUE rules[0].frontendPort', '1-2,4-5', /a range/],
  ['VALUE rules[0].listenPorts', '0-80', /ports from 1/],
  ['VALUE rules[0].idleTimeout.tcp', '999ms', /1s to 24h/],
  ['VALUE rules[0].idleTimeout.udp', '25h', /1s to 24h/],
  ['VALUE rules[0].flowPolicy', 'azur', /"firewall"/],
  [
    'VALUE rules[0].flowPolicy.probeDown.tcp',
    'stay',
    /"persist", "rebalance", "reset", "drop", found "stay"/,
  ],
  ['VALUE rules[0].flowPolicy.idle', 'persist', /"reset", "drop"/],
  ['VALUE rules[0].tcp.keepAlive', 'on', /"off", or a duration/],
  ['VALUE metrics.listen', '127.0.0.1', /address and port/],
  ['VALUE metrics.listen', '::1:9902', /\[::1\]/],
  ['VALUE limits.tcpFlows', 0, /from 1/],
  ['UNKNOWN_KEY rulse', [], /did you mean "rules"/],
  ['UNKNOWN_KEY rules[0].fronted', 'x', /"fronted"; did you mean "frontend"/],
  ['UNKNOWN_KEY rules[0].constructor', 1, /Unknown key "constructor"/],
  ['UNKNOWN_KEY rules[0].flowPolicy.probedown', 'reset', /did you mean "probeDown"/],
  ['UNKNOWN_KEY rules[0].flowPolicy.probeDown.tpc', 'reset', /did you mean "tcp"/],
  ['MISSING_KEY rules[0].name', undefined, /Missing key "name", expected a name/],
  ['MISSING_KEY rules', undefined, /Missing key "rules", expected a list/],
  ['MISSING_KEY probes[0].protocol', undefined, /"tcp", "http", "https"/],
];

/** The example with a value at a place such as `rules[0].tcp.keepAlive`. */
function exampleWith(place: string, value: unknown): object {
  const written = structuredClone(example());
  const steps = place.split(/[.[\]]+/).filter((step) => step !== '');
  const last = steps.pop() ?? '';
  const holder = steps.reduce<Record<string, unknown>>((node, step, index) => {
    const next = steps[index + 1] ?? last;
    return (node[step] ??= /^\d+$/.test(next) ? [] : {}) as Record<string, unknown>;
  }, written);
  holder[last] = value;
  return written;
}

finds(
  'the schema',
  REFUSED.map(([at, value, says]): Row => {
    const [, place = ''] = at.split(' ');
    return [`${JSON.stringify(value)} at ${place}`, exampleWith(place, value), `error LB_${at}`, says];
  }),
  { ignored: /^LB_UNKNOWN_NAME$/ },
);

finds('the schema', [
  [
    'PROXY headers trusted from nobody',
    exampleWith('frontends[0].proxyProtocol', { accept: 'v2', trustedSources: [] }),
    'error LB_VALUE frontends[0].proxyProtocol.trustedSources',
    /at least one/,
  ],
  [
    'a floating address under no name',
    exampleWith(`${MEMBER}.floatingAddresses`, { 'HUB!': '10.0.0.9' }),
    `error LB_VALUE ${MEMBER}.floatingAddresses["HUB!"]`,
    /as key/,
  ],
  [
    'a sample beyond one',
    exampleWith('flowLog', { file: 'f', sample: 1.5 }),
    'error LB_VALUE flowLog.sample',
    /0 to 1, found 1.5/,
  ],
]);

const TAKEN: readonly (readonly [place: string, value: unknown])[] = [
  ['compat', 'azure'],
  ['frontends[0].address', '::'],
  ['frontends[0].address', 'fe80::1%eth0'],
  [`${MEMBER}.address`, '::ffff:10.0.1.9'],
  ['backendPools[0].sourcePorts', 40000],
  ['probes[0].expectStatus', 204],
  ['tableSize', 655373],
  ['tableSize', 251],
  ['metrics.listen', '[::1]:0'],
  ['$schema', './config.schema.json'],
];
finds(
  'the schema',
  [
    ['the example', example()],
    ...TAKEN.map(([place, value]): Row => [
      `${JSON.stringify(value)} at ${place}`,
      exampleWith(place, value),
    ]),
  ],
  // Another family than that of the backends.
  { ignored: /^V17$/ },
);

finds('everything at once: shape, names, and what hangs together', [
  [
    'six mistakes',
    example({
      rule: { weird: 1, frontend: 'hbu' },
      probe: { timeout: '9s' },
      pool: { backends: ['10.0.1.2', '10.0.1.2'] },
      seed: -1,
      admin: {},
    }),
    'error LB_CONFLICT probes[0].timeout',
    'error LB_DUPLICATE_ADDRESS backendPools[0].backends[1].address',
    'error LB_MISSING_KEY admin',
    'error LB_UNKNOWN_KEY rules[0].weird',
    'error LB_UNKNOWN_NAME rules[0].frontend',
    'error LB_VALUE seed',
  ],
]);

it('parseConfiguration() sorts errors first, then by place', () => {
  const { findings } = parse(example({ rule: { probe: undefined }, seed: -1, tableSize: 1 }));
  assert.deepEqual(findings.map(briefly), [
    'error LB_VALUE seed',
    'error LB_VALUE tableSize',
    'warning V12 rules[0]',
    'note LB_UNUSED probes[0]',
  ]);
  assert.ok(findings.every(({ line = 0 }) => line >= 1));
});

it('parseConfiguration() takes what is written in the flow policy over the preset', () => {
  const flowPolicy = { preset: 'firewall', probeDown: { tcp: 'persist' }, removed: 'drop', idle: 'drop' };
  assert.deepEqual(configurationOf(example({ rule: { flowPolicy } })).rules[0]?.flowPolicy, {
    'probe-down': { tcp: 'persist', udp: 'rebalance' },
    'admin-down': { tcp: 'reset', udp: 'rebalance' },
    removed: { tcp: 'drop', udp: 'drop' },
    'drain-deadline': { tcp: 'reset', udp: 'rebalance' },
    idle: { tcp: 'drop', udp: 'drop' },
  });
});
