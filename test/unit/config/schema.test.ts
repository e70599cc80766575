import assert from 'node:assert/strict';
import { it } from 'node:test';
import { example, parse, type Change } from '../../support/example.js';
import { configurationOf } from '../../support/state-factory.js';
import { briefly, finds, type Row } from './findings-table.js';

/** The one error of a change, and what its sentence says. */
const refused = (what: string, change: Change, found: string, says: RegExp): Row => [
  what,
  example(change),
  `error LB_${found}`,
  says,
];
const frontend = (key: string, value: unknown): Change => ({ frontend: { [key]: value } });
const probe = (key: string, value: unknown): Change => ({ probe: { [key]: value } });
const pool = (key: string, value: unknown): Change => ({ pool: { [key]: value } });
const backend = (key: string, value: unknown): Change => ({
  pool: { backends: [{ address: '10.0.1.1', [key]: value }, '10.0.1.2'] },
});
const rule = (key: string, value: unknown): Change => ({ rule: { [key]: value } });
const MEMBER = 'backendPools[0].backends[0]';

finds(
  'the schema',
  [
    refused(
      'compat of another cloud',
      { compat: 'aws' },
      'VALUE compat',
      /one of "none", "azure", found "aws"/,
    ),
    refused('a seed beyond 32 bits', { seed: 2 ** 32 }, 'VALUE seed', /0 to 4294967295, found 4294967296/),
    refused('a seed in quotes', { seed: '1' }, 'TYPE seed', /a whole number .*, found "1"/),
    refused('a table size that is no prime', { tableSize: 65536 }, 'VALUE tableSize', /a prime from 251/),
    refused('a table size too small', { tableSize: 241 }, 'VALUE tableSize', /a prime from 251/),
    refused('a table size too large', { tableSize: 655379 }, 'VALUE tableSize', /to 655373/),
    refused(
      'workers beyond 64',
      { dataPlane: { workers: 65 } },
      'VALUE dataPlane.workers',
      /0 to 64, found 65/,
    ),
    refused('half a worker', { dataPlane: { workers: 0.5 } }, 'TYPE dataPlane.workers', /whole number/),
    refused('rules that are no list', { rules: {} }, 'TYPE rules', /Expected a list, found an object/),
    refused('a null rule', { rules: [null] }, 'TYPE rules[0]', /Expected an object, found null/),
    refused('a capital in a name', frontend('name', 'Hub'), 'VALUE frontends[0].name', /lower-case/),
    refused('a leading hyphen in a name', probe('name', '-a'), 'VALUE probes[0].name', /lower-case/),
    refused('a name too long', rule('name', 'a'.repeat(64)), 'VALUE rules[0].name', /up to 63/),
    refused('an empty name', rule('name', ''), 'VALUE rules[0].name', /lower-case/),
    refused('the reserved name', rule('name', 'constructor'), 'VALUE rules[0].name', /reserved/),
    refused(
      'a host name for an address',
      frontend('address', 'localhost'),
      'VALUE frontends[0].address',
      /an IP address/,
    ),
    refused('a short address', frontend('address', '127.1'), 'VALUE frontends[0].address', /an IP address/),
    refused(
      'a multicast frontend',
      frontend('address', '239.1.1.1'),
      'VALUE frontends[0].address',
      /multicast/,
    ),
    refused(
      'a link-local frontend without zone',
      frontend('address', 'fe80::1'),
      'VALUE frontends[0].address',
      /%eth0/,
    ),
    refused(
      'host bits in a block',
      frontend('allow', ['10.0.0.1/8']),
      'VALUE frontends[0].allow[0]',
      /10\.0\.0\.0\/8/,
    ),
    refused(
      'PROXY headers trusted from nobody',
      frontend('proxyProtocol', { accept: 'v2', trustedSources: [] }),
      'VALUE frontends[0].proxyProtocol.trustedSources',
      /at least one/,
    ),
    refused('a wildcard backend', backend('address', '0.0.0.0'), `VALUE ${MEMBER}.address`, /wildcard/),
    refused(
      'a broadcast backend',
      backend('address', '255.255.255.255'),
      `VALUE ${MEMBER}.address`,
      /broadcast/,
    ),
    refused('a multicast backend', backend('address', 'ff02::1'), `VALUE ${MEMBER}.address`, /multicast/),
    refused('a weight too heavy', backend('weight', 257), `VALUE ${MEMBER}.weight`, /0 to 256, found 257/),
    refused('a negative weight', backend('weight', -1), `VALUE ${MEMBER}.weight`, /0 to 256/),
    refused('a priority too high', backend('priority', 256), `VALUE ${MEMBER}.priority`, /0 to 255/),
    refused(
      'a floating address under no name',
      backend('floatingAddresses', { 'HUB!': '10.0.0.9' }),
      `VALUE ${MEMBER}.floatingAddresses["HUB!"]`,
      /as key/,
    ),
    refused(
      'no source port at all',
      pool('sourcePorts', ''),
      'VALUE backendPools[0].sourcePorts',
      /ports from 1/,
    ),
    refused(
      'a reversed port range',
      pool('sourcePorts', '9-1'),
      'VALUE backendPools[0].sourcePorts',
      /ports from 1/,
    ),
    refused(
      'a connect timeout without unit',
      pool('connectTimeout', 5),
      'TYPE backendPools[0].connectTimeout',
      /a duration/,
    ),
    refused('probe port 0', probe('port', 0), 'VALUE probes[0].port', /1 to 65535, found 0/),
    refused(
      'a probe interval too short',
      probe('interval', '99ms'),
      'VALUE probes[0].interval',
      /100ms to 1h/,
    ),
    refused('a probe interval too long', probe('interval', '61m'), 'VALUE probes[0].interval', /100ms to 1h/),
    refused('a path without slash', probe('path', 'healthz'), 'VALUE probes[0].path', /starts with "\/"/),
    refused('a path with a line break', probe('path', '/a\r\nX: y'), 'VALUE probes[0].path', /no spaces/),
    refused('a host with a line break', probe('host', 'a\r\nX: y'), 'VALUE probes[0].host', /a host name/),
    refused(
      'a status beyond 599',
      probe('expectStatus', '200-600'),
      'VALUE probes[0].expectStatus',
      /100 to 599/,
    ),
    refused(
      'a threshold of none',
      probe('threshold', { up: 0 }),
      'VALUE probes[0].threshold.up',
      /1 to 100, found 0/,
    ),
    refused('a threshold in quotes', probe('threshold', '2'), 'VALUE probes[0].threshold', /or \{"up"/),
    refused(
      'a port beyond 65535',
      rule('frontendPort', 65536),
      'VALUE rules[0].frontendPort',
      /0 to 65535, found 65536/,
    ),
    refused('two port ranges', rule('frontendPort', '1-2,4-5'), 'VALUE rules[0].frontendPort', /a range/),
    refused(
      'port 0 in listenPorts',
      rule('listenPorts', '0-80'),
      'VALUE rules[0].listenPorts',
      /ports from 1/,
    ),
    refused(
      'an idle time too short',
      rule('idleTimeout', { tcp: '999ms' }),
      'VALUE rules[0].idleTimeout.tcp',
      /1s to 24h/,
    ),
    refused(
      'an idle time too long',
      rule('idleTimeout', { udp: '25h' }),
      'VALUE rules[0].idleTimeout.udp',
      /1s to 24h/,
    ),
    refused('an unknown preset', rule('flowPolicy', 'azur'), 'VALUE rules[0].flowPolicy', /"firewall"/),
    refused(
      'an unknown action',
      rule('flowPolicy', { probeDown: { tcp: 'stay' } }),
      'VALUE rules[0].flowPolicy.probeDown.tcp',
      /"persist", "rebalance", "reset", "drop", found "stay"/,
    ),
    refused(
      'a flow that idles for ever',
      rule('flowPolicy', { idle: 'persist' }),
      'VALUE rules[0].flowPolicy.idle',
      /"reset", "drop"/,
    ),
    refused(
      'keep-alive on',
      rule('tcp', { keepAlive: 'on' }),
      'VALUE rules[0].tcp.keepAlive',
      /"off", or a duration/,
    ),
    refused(
      'a sample beyond one',
      { flowLog: { file: 'f', sample: 1.5 } },
      'VALUE flowLog.sample',
      /0 to 1, found 1.5/,
    ),
    refused(
      'metrics without port',
      { metrics: { listen: '127.0.0.1' } },
      'VALUE metrics.listen',
      /address and port/,
    ),
    refused(
      'IPv6 metrics without brackets',
      { metrics: { listen: '::1:9902' } },
      'VALUE metrics.listen',
      /\[::1\]/,
    ),
    refused('a limit of none', { limits: { tcpFlows: 0 } }, 'VALUE limits.tcpFlows', /from 1/),
    refused('an unknown key', { rulse: [] }, 'UNKNOWN_KEY rulse', /did you mean "rules"/),
    refused(
      'a misspelt key',
      rule('fronted', 'x'),
      'UNKNOWN_KEY rules[0].fronted',
      /"fronted"; did you mean "frontend"/,
    ),
    refused(
      'a key of JavaScript',
      rule('constructor', 1),
      'UNKNOWN_KEY rules[0].constructor',
      /Unknown key "constructor"/,
    ),
    refused(
      'a misspelt key inside a choice',
      rule('flowPolicy', { probedown: 'reset' }),
      'UNKNOWN_KEY rules[0].flowPolicy.probedown',
      /did you mean "probeDown"/,
    ),
    refused(
      'a misspelt key deeper inside a choice',
      rule('flowPolicy', { probeDown: { tpc: 'reset' } }),
      'UNKNOWN_KEY rules[0].flowPolicy.probeDown.tpc',
      /did you mean "tcp"/,
    ),
    refused(
      'a missing name',
      rule('name', undefined),
      'MISSING_KEY rules[0].name',
      /Missing key "name", expected a name/,
    ),
    refused(
      'a missing list',
      { rules: undefined },
      'MISSING_KEY rules',
      /Missing key "rules", expected a list/,
    ),
    refused(
      'a missing protocol',
      probe('protocol', undefined),
      'MISSING_KEY probes[0].protocol',
      /"tcp", "http", "https"/,
    ),
  ],
  { ignored: /^LB_(UNUSED|NO_RULES|UNKNOWN_NAME)$/ },
);

const taken = (what: string, change: Change): Row => [what, example(change)];
finds(
  'the schema',
  [
    taken('the example', {}),
    taken('the example under compat azure', { compat: 'azure' }),
    taken('a wildcard frontend', frontend('address', '::')),
    taken('a scoped link-local frontend', frontend('address', 'fe80::1%eth0')),
    taken('an IPv4-mapped backend', backend('address', '::ffff:10.0.1.9')),
    taken('a number for a port set', pool('sourcePorts', 40000)),
    taken('a number for a status', probe('expectStatus', 204)),
    taken('the largest prime', { tableSize: 655373 }),
    taken('the smallest prime', { tableSize: 251 }),
    taken('metrics on any free port', { metrics: { listen: '[::1]:0' } }),
    taken('an editor schema', { $schema: './config.schema.json' }),
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
