import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { example, haExample, parse, type Change, type Example } from '../../support/example.js';

/**
 * What is found: a path of what only Azure forbids, a note, or an error under compat azure; else `warning path`, or
 * `note/warning path` where the severity is another under compat azure. Nothing: the check is silent.
 */
type AzureRow = readonly [what: string, written: Example, found?: string];

/** A second rule like the first, on a frontend and a pool of its own unless `second` says otherwise; all have aliases. */
function beside(
  second: object,
  { of = haExample, rule = {} }: { of?: typeof example; rule?: object } = {},
): Example {
  const backends = (net: number, first: number) =>
    [1, 2].map((index) => ({
      address: `10.0.${net}.${index}`,
      floatingAddresses: { hub: `10.7.1.${first + index}`, spoke: `10.7.2.${first + index}` },
    }));
  return of({
    rule: { ...rule },
    pool: { backends: backends(1, 0) },
    more: {
      frontends: [{ name: 'spoke', address: '10.0.0.2' }],
      pools: [{ name: 'others', backends: backends(2, 100) }],
      rules: [{ frontend: 'spoke', backendPool: 'others', ...second }],
    },
  });
}

const named = {
  ...{ haPorts: false, protocol: 'tcp', frontendPort: 8443, backendPort: 443, listenPorts: undefined },
};
const floating = { rule: { floatingIp: true } };
const symmetric = { rule: { symmetric: true } };
const web = (rule: object) => example({ rule: { ...rule } });
const ha = (rule: object) => haExample({ rule: { ...rule } });
const at = (address: string, of = haExample) => of({ frontend: { address } });
const pool = (backends: readonly (string | object)[], change: Change = {}) =>
  example({ pool: { backends }, ...change });
const admitted = (frontend: object) => example({ frontend: { ...frontend } });

const PRIVATE = '10.9.9.9 172.31.0.1 192.168.0.1 100.64.0.1 127.0.0.1 169.254.1.1 fd00::1 ::1 0.0.0.0'.split(
  ' ',
);
const DUAL_STACK = haExample({
  more: {
    frontends: [{ name: 'hub6', address: 'fd00::1' }],
    pools: [{ name: 'nvas6', backends: ['fd00::11', 'fd00::12'] }],
    rules: [{ frontend: 'hub6', backendPool: 'nvas6' }],
  },
});

const ROWS: Readonly<Record<string, readonly AzureRow[]>> = {
  V1: [
    ['protocol all on a named port', web({ protocol: 'all' }), 'rules[0]'],
    ['a named port kept', web({ backendPort: 0 }), 'rules[0]'],
    ['every port of TCP only', web({ frontendPort: 0, backendPort: 0, listenPorts: '1-9' }), 'rules[0]'],
    ['every port to one', web({ frontendPort: 0 }), 'error rules[0].backendPort'],
    ['HA ports by the triple', web({ protocol: 'all', frontendPort: 0, backendPort: 0, listenPorts: '1-9' })],
    ['HA ports by the short word', haExample()],
  ],
  V2: [
    ['HA ports on a public address', at('20.1.2.3'), 'rules[0]'],
    ['HA ports on a public IPv6 address', at('2603::1'), 'rules[0]'],
    ['HA ports on 172.32.0.1, past RFC 1918', at('172.32.0.1'), 'rules[0]'],
    ...PRIVATE.map((address) => [`HA ports on ${address}`, at(address)] as const),
    ['a named port on a public address', at('20.1.2.3', example)],
  ],
  V3: [
    ['two HA-ports rules on a frontend', beside({ frontend: 'hub', listenPorts: '9000' }), 'rules[1]'],
    ['two HA-ports rules on two frontends', beside({})],
  ],
  V4: [
    ['a rule beside a non-floating HA-ports rule', beside(named), 'rules[0]'],
    ['a lonely HA-ports rule', haExample()],
    ['floating HA-ports rules', beside({}, floating)],
    ['dual stack with a frontend and a pool for each family', DUAL_STACK],
  ],
  V5: [
    ['a non-floating HA-ports rule on a floating one', beside({ floatingIp: false }, floating), 'rules[1]'],
    ['two floating HA-ports rules', beside({}, floating)],
  ],
  V6: [
    ['two HA-ports rules on one pool', beside({ backendPool: 'nvas' }), 'rules[1]'],
    ['two on one pool, one floating', beside({ backendPool: 'nvas', floatingIp: true }), 'rules[1]'],
    ['two on one pool, both floating', beside({ backendPool: 'nvas' }, floating)],
    ['two on two pools', beside({})],
  ],
  V7: [
    [
      'a public rule on the pool of an internal HA-ports rule',
      haExample({
        more: {
          frontends: [{ name: 'edge', address: '20.1.2.3' }],
          rules: [{ ...named, frontend: 'edge' }],
        },
      }),
      'note rules[1]',
    ],
    ['an internal rule there', beside({ ...named, backendPool: 'nvas' })],
  ],
  V8: [
    [
      'HA and named ports on one frontend and pool',
      beside({ ...named, frontend: 'hub', backendPool: 'nvas' }),
      'rules[1]',
    ],
    ['both floating', beside({ ...named, frontend: 'hub', backendPool: 'nvas' }, floating)],
    ['another pool', beside({ ...named, frontend: 'hub' })],
  ],
  V9: [
    ['HA and named ports on one pool', beside({ ...named, backendPool: 'nvas' }), 'rules[1]'],
    ['a pool for each', beside(named)],
  ],
  V10: [
    [
      'two rules to one backend port',
      beside({ backendPool: 'nvas', frontendPort: 444 }, { of: example }),
      'rules[1]',
    ],
    [
      'two rules to one backend port of two protocols',
      beside({ backendPool: 'nvas', protocol: 'udp' }, { of: example }),
    ],
    [
      'two rules to one backend port by floating IP',
      beside({ backendPool: 'nvas' }, { of: example, ...floating }),
    ],
    [
      'two rules to ranges that meet',
      beside({ backendPool: 'nvas', frontendPort: '100-200', backendPort: 6400 }, { of: example }),
      'rules[1]',
    ],
    [
      'two rules to ranges that do not',
      beside({ backendPool: 'nvas', frontendPort: '100-200', backendPort: 6444 }, { of: example }),
    ],
  ],
  V11: [
    [
      'admin state without probe',
      pool([{ address: '10.0.1.1', adminState: 'down' }, '10.0.1.2'], { rule: { probe: undefined } }),
      'warning backendPools[0].backends[0].adminState',
    ],
    ['admin state with a probe', pool([{ address: '10.0.1.1', adminState: 'up' }, '10.0.1.2'])],
  ],
  V12: [
    ['a rule without probe', web({ probe: undefined }), 'warning rules[0]'],
    ['a probe port that the rule forwards', ha({ listenPorts: '8000-9000' }), 'warning rules[0].probe'],
    [
      'a probe port that a UDP rule forwards',
      ha({ haPorts: false, protocol: 'udp', frontendPort: 0, listenPorts: '8000-9000' }),
    ],
  ],
  V13: [
    ['an HTTP probe on port 25', example({ probe: { port: 25 } }), 'probes[0].port'],
    ['an HTTPS probe on port 993', example({ probe: { protocol: 'https', port: 993 } }), 'probes[0].port'],
    ['a TCP probe on port 25', example({ probe: { protocol: 'tcp', port: 25 } })],
    ['an HTTP probe on port 80', example({ probe: { port: 80 } })],
  ],
  V14: [
    ...['239s', '101m'].map((tcp): AzureRow => {
      return [`a TCP idle timeout of ${tcp}`, web({ idleTimeout: { tcp } }), 'rules[0].idleTimeout.tcp'];
    }),
    ...['4m', '100m'].map((tcp): AzureRow => [`a TCP idle timeout of ${tcp}`, web({ idleTimeout: { tcp } })]),
    [
      'a frontend idle timeout of 2h',
      example({ frontend: { idleTimeout: { tcp: '2h' } } }),
      'frontends[0].idleTimeout.tcp',
    ],
    [
      'a UDP idle timeout',
      web({ protocol: 'udp', idleTimeout: { udp: '1m' } }),
      'note/warning rules[0].idleTimeout.udp',
    ],
  ],
  V15: [
    ['TCP reset on HA ports', ha({ tcpReset: true }), 'note rules[0]'],
    ['a TCP idle timeout on HA ports', ha({ idleTimeout: { tcp: '5m' } }), 'note rules[0]'],
    ['both on a named port', web({ tcpReset: true, idleTimeout: { tcp: '5m' } })],
  ],
  V16: [
    ['symmetry across two frontends', beside({ backendPool: 'nvas' }, symmetric), 'rules[1].symmetric'],
    [
      'symmetry across two pools',
      beside({ frontend: 'hub', listenPorts: '9000' }, symmetric),
      'rules[1].symmetric',
    ],
    ['symmetry on one rule', haExample(symmetric)],
  ],
  V17: [
    ['a backend that is a frontend', pool(['10.0.0.1', '10.0.1.2']), 'backendPools[0].backends[0].address'],
    ['a rule from IPv4 to IPv6', pool(['10.0.1.1', 'fd00::1']), 'rules[0]'],
    ['a rule from IPv4 to IPv4-mapped', pool(['10.0.1.1', '::ffff:10.0.1.2'])],
  ],
  V18: [
    [
      'floating IP without an alias',
      pool([{ address: '10.0.1.1', floatingAddresses: { hub: '10.7.0.1' } }, '10.0.1.2'], floating),
      'error backendPools[0].backends[1]',
    ],
    ['no floating IP, no alias', example()],
  ],
  V19: [
    ['a pool of one', pool(['10.0.1.1']), 'warning backendPools[0].backends'],
    ['a pool of two', example()],
  ],
  V20: [
    ['a backend admitted as client', admitted({ allow: ['10.0.1.1'] }), 'warning frontends[0]'],
    [
      'a backend trusted with PROXY headers',
      admitted({ proxyProtocol: { accept: 'any', trustedSources: ['10.0.1.1/32'] } }),
      'warning frontends[0]',
    ],
    ['a backend admitted and denied', admitted({ allow: ['10.0.1.1'], deny: ['10.0.1.0/24'] })],
    ['a network that has backends in it', admitted({ allow: ['10.0.0.0/8'] })],
  ],
};
describe('Azure checks', () => {
  for (const [code, rows] of Object.entries(ROWS)) {
    for (const [what, written, found] of rows) {
      it(`${code} ${found === undefined ? 'is silent on' : 'tells'} ${what}`, () => {
        const [path, severities = 'note/error'] = (found ?? '').split(' ').reverse();
        const [none, azure = none] = severities.split('/');
        for (const [compat, severity] of [
          ['none', none],
          ['azure', azure],
        ] as const) {
          const findings = parse({ ...written, compat }).findings.filter((finding) => finding.code === code);
          const brief = findings.map((finding) => `${finding.severity} ${finding.path}`);
          assert.deepEqual(brief, found === undefined ? [] : [`${severity} ${path}`], `compat ${compat}`);
          // One sentence.
          for (const { reason = '' } of findings) assert.match(reason, /^[A-Zh][^.]+$/);
        }
      });
    }
  }

  it('every code from V1 to V20 has a row that finds and one that does not', () => {
    for (let number = 1; number <= 20; number++) {
      const kinds = new Set((ROWS[`V${number}`] ?? []).map(([, , found]) => found === undefined));
      assert.equal(kinds.size, 2, `V${number}`);
    }
  });
});
