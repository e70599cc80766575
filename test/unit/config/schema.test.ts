import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { brief, configurationOf, example, only, parse, type Example } from './example.js';

type Change = (raw: Example) => void;

/** Sets `key` of the first element of a list. */
const rule =
  (key: string, value: unknown): Change =>
  (raw) =>
    (raw.rules[0] = { ...raw.rules[0], [key]: value });
const probe =
  (key: string, value: unknown): Change =>
  (raw) =>
    (raw.probes[0] = { ...raw.probes[0], [key]: value });
const frontend =
  (key: string, value: unknown): Change =>
  (raw) =>
    (raw.frontends[0] = { ...raw.frontends[0], [key]: value });
const backend =
  (key: string, value: unknown): Change =>
  (raw) => {
    const pool = raw.backendPools[0];
    if (pool !== undefined) pool.backends[0] = { ...pool.backends[0], [key]: value };
  };
const pool =
  (key: string, value: unknown): Change =>
  (raw) => {
    const first = raw.backendPools[0];
    if (first !== undefined) first[key] = value;
  };
const top =
  (key: string, value: unknown): Change =>
  (raw) =>
    (raw[key] = value);

describe('schema', () => {
  it('parseConfiguration() has nothing to say about the example', () => {
    assert.deepEqual(brief(example()), []);
    assert.deepEqual(brief(example(top('compat', 'azure'))), []);
  });

  const refused: readonly (readonly [string, Change, string, string, RegExp])[] = [
    [
      'compat of another cloud',
      top('compat', 'aws'),
      'LB_VALUE',
      'compat',
      /one of "none", "azure", found "aws"/,
    ],
    ['a seed beyond 32 bits', top('seed', 2 ** 32), 'LB_VALUE', 'seed', /0 to 4294967295, found 4294967296/],
    ['a seed in quotes', top('seed', '1'), 'LB_TYPE', 'seed', /a whole number .*, found "1"/],
    ['a table size that is no prime', top('tableSize', 65536), 'LB_VALUE', 'tableSize', /a prime from 251/],
    ['a table size too small', top('tableSize', 241), 'LB_VALUE', 'tableSize', /a prime from 251/],
    ['a table size too large', top('tableSize', 655379), 'LB_VALUE', 'tableSize', /to 655373/],
    [
      'workers beyond 64',
      top('dataPlane', { workers: 65 }),
      'LB_VALUE',
      'dataPlane.workers',
      /0 to 64, found 65/,
    ],
    ['half a worker', top('dataPlane', { workers: 0.5 }), 'LB_TYPE', 'dataPlane.workers', /whole number/],
    ['rules that are no list', top('rules', {}), 'LB_TYPE', 'rules', /Expected a list, found an object/],
    ['a null rule', top('rules', [null]), 'LB_TYPE', 'rules[0]', /Expected an object, found null/],
    ['a capital in a name', frontend('name', 'Hub'), 'LB_VALUE', 'frontends[0].name', /lower-case/],
    ['a leading hyphen in a name', probe('name', '-a'), 'LB_VALUE', 'probes[0].name', /lower-case/],
    ['a name too long', rule('name', 'a'.repeat(64)), 'LB_VALUE', 'rules[0].name', /up to 63/],
    ['an empty name', rule('name', ''), 'LB_VALUE', 'rules[0].name', /lower-case/],
    ['the reserved name', rule('name', 'constructor'), 'LB_VALUE', 'rules[0].name', /reserved/],
    [
      'a host name for an address',
      frontend('address', 'localhost'),
      'LB_VALUE',
      'frontends[0].address',
      /an IP address/,
    ],
    ['a short address', frontend('address', '127.1'), 'LB_VALUE', 'frontends[0].address', /an IP address/],
    [
      'a multicast frontend',
      frontend('address', '239.1.1.1'),
      'LB_VALUE',
      'frontends[0].address',
      /multicast/,
    ],
    [
      'a link-local frontend without zone',
      frontend('address', 'fe80::1'),
      'LB_VALUE',
      'frontends[0].address',
      /%eth0/,
    ],
    [
      'host bits in a block',
      frontend('allow', ['10.0.0.1/8']),
      'LB_VALUE',
      'frontends[0].allow[0]',
      /10\.0\.0\.0\/8/,
    ],
    [
      'PROXY headers trusted from nobody',
      frontend('proxyProtocol', { accept: 'v2', trustedSources: [] }),
      'LB_VALUE',
      'frontends[0].proxyProtocol.trustedSources',
      /at least one/,
    ],
    [
      'a wildcard backend',
      backend('address', '0.0.0.0'),
      'LB_VALUE',
      'backendPools[0].backends[0].address',
      /wildcard/,
    ],
    [
      'a broadcast backend',
      backend('address', '255.255.255.255'),
      'LB_VALUE',
      'backendPools[0].backends[0].address',
      /broadcast/,
    ],
    [
      'a multicast backend',
      backend('address', 'ff02::1'),
      'LB_VALUE',
      'backendPools[0].backends[0].address',
      /multicast/,
    ],
    [
      'a weight too heavy',
      backend('weight', 257),
      'LB_VALUE',
      'backendPools[0].backends[0].weight',
      /0 to 256, found 257/,
    ],
    [
      'a negative weight',
      backend('weight', -1),
      'LB_VALUE',
      'backendPools[0].backends[0].weight',
      /0 to 256/,
    ],
    [
      'a priority too high',
      backend('priority', 256),
      'LB_VALUE',
      'backendPools[0].backends[0].priority',
      /0 to 255/,
    ],
    [
      'a floating address under no name',
      backend('floatingAddresses', { 'HUB!': '10.0.0.9' }),
      'LB_VALUE',
      'backendPools[0].backends[0].floatingAddresses["HUB!"]',
      /as key/,
    ],
    [
      'no source port at all',
      pool('sourcePorts', ''),
      'LB_VALUE',
      'backendPools[0].sourcePorts',
      /ports from 1/,
    ],
    [
      'a reversed port range',
      pool('sourcePorts', '9-1'),
      'LB_VALUE',
      'backendPools[0].sourcePorts',
      /ports from 1/,
    ],
    [
      'a connect timeout without unit',
      pool('connectTimeout', 5),
      'LB_TYPE',
      'backendPools[0].connectTimeout',
      /a duration/,
    ],
    ['probe port 0', probe('port', 0), 'LB_VALUE', 'probes[0].port', /1 to 65535, found 0/],
    [
      'a probe interval too short',
      probe('interval', '99ms'),
      'LB_VALUE',
      'probes[0].interval',
      /100ms to 1h/,
    ],
    ['a probe interval too long', probe('interval', '61m'), 'LB_VALUE', 'probes[0].interval', /100ms to 1h/],
    ['a path without slash', probe('path', 'healthz'), 'LB_VALUE', 'probes[0].path', /starts with "\/"/],
    ['a path with a line break', probe('path', '/a\r\nX: y'), 'LB_VALUE', 'probes[0].path', /no spaces/],
    ['a host with a line break', probe('host', 'a\r\nX: y'), 'LB_VALUE', 'probes[0].host', /a host name/],
    [
      'a status beyond 599',
      probe('expectStatus', '200-600'),
      'LB_VALUE',
      'probes[0].expectStatus',
      /100 to 599/,
    ],
    [
      'a threshold of none',
      probe('threshold', { up: 0 }),
      'LB_VALUE',
      'probes[0].threshold.up',
      /1 to 100, found 0/,
    ],
    ['a threshold in quotes', probe('threshold', '2'), 'LB_VALUE', 'probes[0].threshold', /or \{"up"/],
    [
      'a port beyond 65535',
      rule('frontendPort', 65536),
      'LB_VALUE',
      'rules[0].frontendPort',
      /0 to 65535, found 65536/,
    ],
    ['two port ranges', rule('frontendPort', '1-2,4-5'), 'LB_VALUE', 'rules[0].frontendPort', /a range/],
    [
      'port 0 in listenPorts',
      rule('listenPorts', '0-80'),
      'LB_VALUE',
      'rules[0].listenPorts',
      /ports from 1/,
    ],
    [
      'an idle time too short',
      rule('idleTimeout', { tcp: '999ms' }),
      'LB_VALUE',
      'rules[0].idleTimeout.tcp',
      /1s to 24h/,
    ],
    [
      'an idle time too long',
      rule('idleTimeout', { udp: '25h' }),
      'LB_VALUE',
      'rules[0].idleTimeout.udp',
      /1s to 24h/,
    ],
    ['an unknown preset', rule('flowPolicy', 'azur'), 'LB_VALUE', 'rules[0].flowPolicy', /"firewall"/],
    [
      'an unknown action',
      rule('flowPolicy', { probeDown: { tcp: 'stay' } }),
      'LB_VALUE',
      'rules[0].flowPolicy.probeDown.tcp',
      /"persist", "rebalance", "reset", "drop", found "stay"/,
    ],
    [
      'a flow that idles for ever',
      rule('flowPolicy', { idle: 'persist' }),
      'LB_VALUE',
      'rules[0].flowPolicy.idle',
      /"reset", "drop"/,
    ],
    [
      'keep-alive on',
      rule('tcp', { keepAlive: 'on' }),
      'LB_VALUE',
      'rules[0].tcp.keepAlive',
      /"off", or a duration/,
    ],
    [
      'a sample beyond one',
      top('flowLog', { file: 'f', sample: 1.5 }),
      'LB_VALUE',
      'flowLog.sample',
      /0 to 1, found 1.5/,
    ],
    [
      'metrics without port',
      top('metrics', { listen: '127.0.0.1' }),
      'LB_VALUE',
      'metrics.listen',
      /address and port/,
    ],
    [
      'IPv6 metrics without brackets',
      top('metrics', { listen: '::1:9902' }),
      'LB_VALUE',
      'metrics.listen',
      /\[::1\]/,
    ],
    ['a limit of none', top('limits', { tcpFlows: 0 }), 'LB_VALUE', 'limits.tcpFlows', /from 1/],
    ['an unknown key', top('rule', []), 'LB_UNKNOWN_KEY', 'rule', /did you mean "rules"/],
    [
      'a misspelt key',
      rule('fronted', 'x'),
      'LB_UNKNOWN_KEY',
      'rules[0].fronted',
      /"fronted"; did you mean "frontend"/,
    ],
    [
      'a key of JavaScript',
      rule('constructor', 1),
      'LB_UNKNOWN_KEY',
      'rules[0].constructor',
      /Unknown key "constructor"/,
    ],
    [
      'a misspelt key inside a choice',
      rule('flowPolicy', { probedown: 'reset' }),
      'LB_UNKNOWN_KEY',
      'rules[0].flowPolicy.probedown',
      /did you mean "probeDown"/,
    ],
    [
      'a misspelt key deeper inside a choice',
      rule('flowPolicy', { probeDown: { tpc: 'reset' } }),
      'LB_UNKNOWN_KEY',
      'rules[0].flowPolicy.probeDown.tpc',
      /did you mean "tcp"/,
    ],
    [
      'a missing name',
      rule('name', undefined),
      'LB_MISSING_KEY',
      'rules[0].name',
      /Missing key "name", expected a name/,
    ],
    [
      'a missing list',
      top('rules', undefined),
      'LB_MISSING_KEY',
      'rules',
      /Missing key "rules", expected a list/,
    ],
    [
      'a missing protocol',
      probe('protocol', undefined),
      'LB_MISSING_KEY',
      'probes[0].protocol',
      /"tcp", "http", "https"/,
    ],
  ];
  for (const [what, change, code, path, message] of refused) {
    it(`parseConfiguration() refuses ${what}`, () => {
      const raw = example(change);
      assert.ok(!parse(raw).ok);
      const finding = only(raw, code);
      assert.equal(finding.severity, 'error');
      assert.equal(finding.path, path);
      assert.match(finding.message, message);
      assert.ok(finding.line !== undefined && finding.line >= 1);
    });
  }

  const accepted: readonly (readonly [string, Change])[] = [
    ['a wildcard frontend', frontend('address', '::')],
    ['a scoped link-local frontend', frontend('address', 'fe80::1%eth0')],
    ['an IPv4-mapped backend', backend('address', '::ffff:10.0.1.9')],
    ['a number for a port set', pool('sourcePorts', 40000)],
    ['a number for a status', probe('expectStatus', 204)],
    ['the largest prime', top('tableSize', 655373)],
    ['the smallest prime', top('tableSize', 251)],
    ['metrics on any free port', top('metrics', { listen: '[::1]:0' })],
    ['an editor schema', top('$schema', './config.schema.json')],
  ];
  for (const [what, change] of accepted) {
    it(`parseConfiguration() takes ${what}`, () => assert.ok(parse(example(change)).ok));
  }

  it('parseConfiguration() tells everything at once: shape, names, and what hangs together', () => {
    const raw = example((all) => {
      rule('weird', 1)(all);
      all.rules[0] = { ...all.rules[0], frontend: 'hbu' };
      probe('timeout', '9s')(all);
      backend('address', '10.0.1.2')(all);
      top('seed', -1)(all);
      top('admin', {})(all);
    });
    assert.deepEqual([...brief(raw)].sort(), [
      'error LB_CONFLICT probes[0].timeout',
      'error LB_DUPLICATE_ADDRESS backendPools[0].backends[1].address',
      'error LB_MISSING_KEY admin',
      'error LB_UNKNOWN_KEY rules[0].weird',
      'error LB_UNKNOWN_NAME rules[0].frontend',
      'error LB_VALUE seed',
    ]);
  });

  it('parseConfiguration() sorts errors first, then by place', () => {
    const raw = example((all) => {
      rule('probe', undefined)(all);
      top('seed', -1)(all);
      top('tableSize', 1)(all);
    });
    assert.deepEqual(brief(raw), [
      'error LB_VALUE seed',
      'error LB_VALUE tableSize',
      'warning V12 rules[0]',
      'note LB_UNUSED probes[0]',
    ]);
  });

  it('parseConfiguration() takes what is written in the flow policy over the preset', () => {
    const raw = example(
      rule('flowPolicy', {
        preset: 'firewall',
        probeDown: { tcp: 'persist' },
        removed: 'drop',
        idle: 'drop',
      }),
    );
    assert.deepEqual(configurationOf(raw).rules[0]?.flowPolicy, {
      'probe-down': { tcp: 'persist', udp: 'rebalance' },
      'admin-down': { tcp: 'reset', udp: 'rebalance' },
      removed: { tcp: 'drop', udp: 'drop' },
      'drain-deadline': { tcp: 'reset', udp: 'rebalance' },
      idle: { tcp: 'drop', udp: 'drop' },
    });
  });
});
