import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { example, haExample, parse, withCode, type Example } from './example.js';

/** What a finding is under compat none and under compat azure. */
type Kind = 'azure only' | 'warning' | 'error' | 'note' | 'note, azure warning' | 'silent';

const SEVERITIES: Readonly<Record<Kind, readonly [string, string]>> = {
  'azure only': ['note', 'error'],
  warning: ['warning', 'warning'],
  error: ['error', 'error'],
  note: ['note', 'note'],
  'note, azure warning': ['note', 'warning'],
  silent: ['', ''],
};

interface Case {
  readonly code: string;
  readonly what: string;
  readonly raw: Example;
  readonly kind: Kind;
  readonly path?: string;
}

const set = (change: Record<string, unknown>, make = example) =>
  make((raw) => (raw.rules[0] = { ...raw.rules[0], ...change }));

/** Adds a rule like the first, on a frontend and a pool of its own unless said otherwise. */
function beside(
  change: Record<string, unknown>,
  make: typeof example = haExample,
  firstRule: Record<string, unknown> = {},
): Example {
  return make((raw) => {
    raw.frontends.push({ name: 'spoke', address: '10.0.0.2' });
    raw.backendPools.push({ name: 'others', backends: [{ address: '10.0.2.1' }, { address: '10.0.2.2' }] });
    raw.rules[0] = { ...raw.rules[0], ...firstRule };
    raw.rules.push({ ...raw.rules[0], name: 'second', frontend: 'spoke', backendPool: 'others', ...change });
    for (const pool of raw.backendPools) {
      for (const [index, backend] of pool.backends.entries()) {
        const alias = (third: number) => `10.7.${third}.${pool['name'] === 'nvas' ? index : 100 + index}`;
        backend['floatingAddresses'] = { hub: alias(1), spoke: alias(2) };
      }
    }
  });
}

const named = {
  haPorts: false,
  protocol: 'tcp',
  frontendPort: 8443,
  backendPort: 443,
  listenPorts: undefined,
};
const floating = { floatingIp: true };
const address = (text: string, make = haExample) =>
  make((raw) => (raw.frontends[0] = { name: 'hub', address: text }));
const pool = (
  backends: readonly Record<string, unknown>[],
  change: (raw: Example) => void = () => undefined,
) =>
  example((raw) => {
    Object.assign(raw.backendPools[0] ?? {}, { backends });
    change(raw);
  });
const probe = (change: Record<string, unknown>) =>
  example((raw) => (raw.probes[0] = { ...raw.probes[0], ...change }));

const CASES: readonly Case[] = [
  {
    code: 'V1',
    what: 'protocol all on a named port',
    raw: set({ protocol: 'all' }),
    kind: 'azure only',
    path: 'rules[0]',
  },
  {
    code: 'V1',
    what: 'a named port kept',
    raw: set({ backendPort: 0 }),
    kind: 'azure only',
    path: 'rules[0]',
  },
  {
    code: 'V1',
    what: 'every port of TCP only',
    raw: set({ frontendPort: 0, backendPort: 0, listenPorts: '1-9' }),
    kind: 'azure only',
    path: 'rules[0]',
  },
  {
    code: 'V1',
    what: 'every port to one',
    raw: set({ frontendPort: 0 }),
    kind: 'error',
    path: 'rules[0].backendPort',
  },
  {
    code: 'V1',
    what: 'HA ports by the triple',
    raw: set({ protocol: 'all', frontendPort: 0, backendPort: 0, listenPorts: '1-9' }),
    kind: 'silent',
  },
  { code: 'V1', what: 'HA ports by the short word', raw: haExample(), kind: 'silent' },
  {
    code: 'V2',
    what: 'HA ports on a public address',
    raw: address('20.1.2.3'),
    kind: 'azure only',
    path: 'rules[0]',
  },
  {
    code: 'V2',
    what: 'HA ports on a public IPv6 address',
    raw: address('2603::1'),
    kind: 'azure only',
    path: 'rules[0]',
  },
  ...[
    '10.9.9.9',
    '172.31.0.1',
    '192.168.0.1',
    '100.64.0.1',
    '127.0.0.1',
    '169.254.1.1',
    'fd00::1',
    '::1',
    '0.0.0.0',
  ].map((text): Case => ({ code: 'V2', what: `HA ports on ${text}`, raw: address(text), kind: 'silent' })),
  {
    code: 'V2',
    what: 'HA ports on 172.32.0.1, past RFC 1918',
    raw: address('172.32.0.1'),
    kind: 'azure only',
    path: 'rules[0]',
  },
  { code: 'V2', what: 'a named port on a public address', raw: address('20.1.2.3', example), kind: 'silent' },
  {
    code: 'V3',
    what: 'two HA-ports rules on a frontend',
    raw: beside({ frontend: 'hub', listenPorts: '9000' }),
    kind: 'azure only',
    path: 'rules[1]',
  },
  { code: 'V3', what: 'two HA-ports rules on two frontends', raw: beside({}), kind: 'silent' },
  {
    code: 'V4',
    what: 'a rule beside a non-floating HA-ports rule',
    raw: beside(named),
    kind: 'azure only',
    path: 'rules[0]',
  },
  { code: 'V4', what: 'a lonely HA-ports rule', raw: haExample(), kind: 'silent' },
  { code: 'V4', what: 'floating HA-ports rules', raw: beside({}, haExample, floating), kind: 'silent' },
  {
    code: 'V4',
    what: 'dual stack with a frontend and a pool for each family',
    raw: haExample((raw) => {
      raw.frontends.push({ name: 'hub6', address: 'fd00::1' });
      raw.backendPools.push({ name: 'nvas6', backends: [{ address: 'fd00::11' }, { address: 'fd00::12' }] });
      raw.rules.push({ ...raw.rules[0], name: 'second', frontend: 'hub6', backendPool: 'nvas6' });
    }),
    kind: 'silent',
  },
  {
    code: 'V5',
    what: 'a non-floating HA-ports rule on a floating one',
    raw: beside({ floatingIp: false }, haExample, floating),
    kind: 'azure only',
    path: 'rules[1]',
  },
  { code: 'V5', what: 'two floating HA-ports rules', raw: beside({}, haExample, floating), kind: 'silent' },
  {
    code: 'V6',
    what: 'two HA-ports rules on one pool',
    raw: beside({ backendPool: 'nvas' }),
    kind: 'azure only',
    path: 'rules[1]',
  },
  {
    code: 'V6',
    what: 'two on one pool, one floating',
    raw: beside({ backendPool: 'nvas', floatingIp: true }),
    kind: 'azure only',
    path: 'rules[1]',
  },
  {
    code: 'V6',
    what: 'two on one pool, both floating',
    raw: beside({ backendPool: 'nvas' }, haExample, floating),
    kind: 'silent',
  },
  { code: 'V6', what: 'two on two pools', raw: beside({}), kind: 'silent' },
  {
    code: 'V7',
    what: 'a public rule on the pool of an internal HA-ports rule',
    raw: haExample((raw) => {
      raw.frontends.push({ name: 'edge', address: '20.1.2.3' });
      raw.rules.push({ ...raw.rules[0], ...named, name: 'second', frontend: 'edge' });
    }),
    kind: 'note',
    path: 'rules[1]',
  },
  {
    code: 'V7',
    what: 'an internal rule there',
    raw: beside({ ...named, backendPool: 'nvas' }),
    kind: 'silent',
  },
  {
    code: 'V8',
    what: 'HA and named ports on one frontend and pool',
    raw: beside({ ...named, frontend: 'hub', backendPool: 'nvas' }),
    kind: 'azure only',
    path: 'rules[1]',
  },
  {
    code: 'V8',
    what: 'both floating',
    raw: beside({ ...named, frontend: 'hub', backendPool: 'nvas' }, haExample, floating),
    kind: 'silent',
  },
  { code: 'V8', what: 'another pool', raw: beside({ ...named, frontend: 'hub' }), kind: 'silent' },
  {
    code: 'V9',
    what: 'HA and named ports on one pool',
    raw: beside({ ...named, backendPool: 'nvas' }),
    kind: 'azure only',
    path: 'rules[1]',
  },
  { code: 'V9', what: 'a pool for each', raw: beside(named), kind: 'silent' },
  {
    code: 'V10',
    what: 'two rules to one backend port',
    raw: beside({ backendPool: 'nvas', frontendPort: 444 }, example),
    kind: 'azure only',
    path: 'rules[1]',
  },
  {
    code: 'V10',
    what: 'two rules to one backend port of two protocols',
    raw: beside({ backendPool: 'nvas', protocol: 'udp' }, example),
    kind: 'silent',
  },
  {
    code: 'V10',
    what: 'two rules to one backend port by floating IP',
    raw: beside({ backendPool: 'nvas' }, example, floating),
    kind: 'silent',
  },
  {
    code: 'V10',
    what: 'two rules to ranges that meet',
    raw: beside({ backendPool: 'nvas', frontendPort: '100-200', backendPort: 6400 }, example),
    kind: 'azure only',
    path: 'rules[1]',
  },
  {
    code: 'V10',
    what: 'two rules to ranges that do not',
    raw: beside({ backendPool: 'nvas', frontendPort: '100-200', backendPort: 6444 }, example),
    kind: 'silent',
  },
  {
    code: 'V11',
    what: 'admin state without probe',
    raw: pool(
      [{ address: '10.0.1.1', adminState: 'down' }, { address: '10.0.1.2' }],
      (raw) => (raw.rules[0] = { ...raw.rules[0], probe: undefined }),
    ),
    kind: 'warning',
    path: 'backendPools[0].backends[0].adminState',
  },
  {
    code: 'V11',
    what: 'admin state with a probe',
    raw: pool([{ address: '10.0.1.1', adminState: 'up' }, { address: '10.0.1.2' }]),
    kind: 'silent',
  },
  {
    code: 'V12',
    what: 'a rule without probe',
    raw: set({ probe: undefined }),
    kind: 'warning',
    path: 'rules[0]',
  },
  {
    code: 'V12',
    what: 'a probe port that the rule forwards',
    raw: set({ listenPorts: '8000-9000' }, haExample),
    kind: 'warning',
    path: 'rules[0].probe',
  },
  {
    code: 'V12',
    what: 'a probe port that a UDP rule forwards',
    raw: set({ haPorts: false, protocol: 'udp', frontendPort: 0, listenPorts: '8000-9000' }, haExample),
    kind: 'silent',
  },
  {
    code: 'V13',
    what: 'an HTTP probe on port 25',
    raw: probe({ port: 25 }),
    kind: 'azure only',
    path: 'probes[0].port',
  },
  {
    code: 'V13',
    what: 'an HTTPS probe on port 993',
    raw: probe({ protocol: 'https', port: 993 }),
    kind: 'azure only',
    path: 'probes[0].port',
  },
  { code: 'V13', what: 'a TCP probe on port 25', raw: probe({ protocol: 'tcp', port: 25 }), kind: 'silent' },
  { code: 'V13', what: 'an HTTP probe on port 80', raw: probe({ port: 80 }), kind: 'silent' },
  {
    code: 'V14',
    what: 'a TCP idle timeout of 239s',
    raw: set({ idleTimeout: { tcp: '239s' } }),
    kind: 'azure only',
    path: 'rules[0].idleTimeout.tcp',
  },
  {
    code: 'V14',
    what: 'a TCP idle timeout of 101m',
    raw: set({ idleTimeout: { tcp: '101m' } }),
    kind: 'azure only',
    path: 'rules[0].idleTimeout.tcp',
  },
  {
    code: 'V14',
    what: 'a TCP idle timeout of 100m',
    raw: set({ idleTimeout: { tcp: '100m' } }),
    kind: 'silent',
  },
  { code: 'V14', what: 'a TCP idle timeout of 4m', raw: set({ idleTimeout: { tcp: '4m' } }), kind: 'silent' },
  {
    code: 'V14',
    what: 'a frontend idle timeout of 2h',
    raw: example((raw) => (raw.frontends[0] = { ...raw.frontends[0], idleTimeout: { tcp: '2h' } })),
    kind: 'azure only',
    path: 'frontends[0].idleTimeout.tcp',
  },
  {
    code: 'V14',
    what: 'a UDP idle timeout',
    raw: set({ protocol: 'udp', idleTimeout: { udp: '1m' } }),
    kind: 'note, azure warning',
    path: 'rules[0].idleTimeout.udp',
  },
  {
    code: 'V15',
    what: 'TCP reset on HA ports',
    raw: set({ tcpReset: true }, haExample),
    kind: 'note',
    path: 'rules[0]',
  },
  {
    code: 'V15',
    what: 'a TCP idle timeout on HA ports',
    raw: set({ idleTimeout: { tcp: '5m' } }, haExample),
    kind: 'note',
    path: 'rules[0]',
  },
  {
    code: 'V15',
    what: 'both on a named port',
    raw: set({ tcpReset: true, idleTimeout: { tcp: '5m' } }),
    kind: 'silent',
  },
  {
    code: 'V16',
    what: 'symmetry across two frontends',
    raw: beside({ backendPool: 'nvas' }, haExample, { symmetric: true }),
    kind: 'azure only',
    path: 'rules[1].symmetric',
  },
  {
    code: 'V16',
    what: 'symmetry across two pools',
    raw: beside({ frontend: 'hub', listenPorts: '9000' }, haExample, { symmetric: true }),
    kind: 'azure only',
    path: 'rules[1].symmetric',
  },
  { code: 'V16', what: 'symmetry on one rule', raw: set({ symmetric: true }, haExample), kind: 'silent' },
  {
    code: 'V17',
    what: 'a backend that is a frontend',
    raw: pool([{ address: '10.0.0.1' }, { address: '10.0.1.2' }]),
    kind: 'azure only',
    path: 'backendPools[0].backends[0].address',
  },
  {
    code: 'V17',
    what: 'a rule from IPv4 to IPv6',
    raw: pool([{ address: '10.0.1.1' }, { address: 'fd00::1' }]),
    kind: 'azure only',
    path: 'rules[0]',
  },
  {
    code: 'V17',
    what: 'a rule from IPv4 to IPv4-mapped',
    raw: pool([{ address: '10.0.1.1' }, { address: '::ffff:10.0.1.2' }]),
    kind: 'silent',
  },
  {
    code: 'V18',
    what: 'floating IP without an alias',
    raw: pool(
      [{ address: '10.0.1.1', floatingAddresses: { hub: '10.7.0.1' } }, { address: '10.0.1.2' }],
      (raw) => (raw.rules[0] = { ...raw.rules[0], ...floating }),
    ),
    kind: 'error',
    path: 'backendPools[0].backends[1]',
  },
  { code: 'V18', what: 'no floating IP, no alias', raw: example(), kind: 'silent' },
  {
    code: 'V19',
    what: 'a pool of one',
    raw: pool([{ address: '10.0.1.1' }]),
    kind: 'warning',
    path: 'backendPools[0].backends',
  },
  { code: 'V19', what: 'a pool of two', raw: example(), kind: 'silent' },
  {
    code: 'V20',
    what: 'a backend admitted as client',
    raw: example((raw) => (raw.frontends[0] = { ...raw.frontends[0], allow: ['10.0.1.1'] })),
    kind: 'warning',
    path: 'frontends[0]',
  },
  {
    code: 'V20',
    what: 'a backend trusted with PROXY headers',
    raw: example(
      (raw) =>
        (raw.frontends[0] = {
          ...raw.frontends[0],
          proxyProtocol: { accept: 'any', trustedSources: ['10.0.1.1/32'] },
        }),
    ),
    kind: 'warning',
    path: 'frontends[0]',
  },
  {
    code: 'V20',
    what: 'a backend admitted and denied',
    raw: example(
      (raw) => (raw.frontends[0] = { ...raw.frontends[0], allow: ['10.0.1.1'], deny: ['10.0.1.0/24'] }),
    ),
    kind: 'silent',
  },
  {
    code: 'V20',
    what: 'a network that has backends in it',
    raw: example((raw) => (raw.frontends[0] = { ...raw.frontends[0], allow: ['10.0.0.0/8'] })),
    kind: 'silent',
  },
];

describe('Azure checks', () => {
  for (const { code, what, raw, kind, path } of CASES) {
    it(`${code} is ${kind === 'silent' ? 'silent on' : `${kind} for`} ${what}`, () => {
      for (const [index, compat] of (['none', 'azure'] as const).entries()) {
        const expected = kind === 'silent' ? [] : [`${SEVERITIES[kind][index] ?? ''} ${code} ${path ?? ''}`];
        assert.deepEqual(withCode({ compat, ...raw }, code), expected, `compat ${compat}`);
      }
    });
  }

  it('every code from V1 to V20 has a case that finds and one that does not', () => {
    for (let number = 1; number <= 20; number++) {
      const kinds = CASES.filter(({ code }) => code === `V${number}`).map(({ kind }) => kind);
      assert.ok(kinds.includes('silent') && kinds.some((kind) => kind !== 'silent'), `V${number}`);
    }
  });

  it('every finding gives its reason in one sentence', () => {
    for (const { code, raw } of CASES) {
      for (const finding of parse(raw).findings.filter((each) => each.code === code)) {
        assert.match(finding.reason ?? '', /^[A-Zh][^.]+$/, code);
      }
    }
  });
});
