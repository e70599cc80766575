import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { formatPortSet } from '../../../src/model/ports.js';
import { example, haExample, type Change } from '../../support/example.js';
import { configurationOf } from '../../support/state-factory.js';
import { finds, findsOnly, type Row } from './findings-table.js';

/** All ports of 10.0.0.1, captured. */
function captured(capture: object = {}, { rule, dataPlane, ...change }: Change = {}) {
  return haExample({
    dataPlane: { ...dataPlane, capture: { ...capture } },
    rule: { listenPorts: '1-65535', ...rule },
    ...change,
  });
}
const at = (address: string, capture?: object) => captured(capture, { frontend: { address } });
const on = (listenPorts: string, capture?: object) => captured(capture, { rule: { listenPorts } });
/** A rule that names ports of its own beside the HA-ports rule. */
const naming = (frontendPort: number | string, capture?: object) =>
  captured(capture, {
    more: { rules: [{ haPorts: false, listenPorts: undefined, protocol: 'tcp', frontendPort }] },
  });
const portsOf = (written: object, rule = 0) =>
  formatPortSet(configurationOf(written).rules[rule]?.ports ?? []);

const SSH = 'warning LB_CAPTURE_SSH dataPlane.capture.excludedPorts';
const NAMED = 'error LB_CONFLICT rules[1].frontendPort';
finds(
  'capture',
  [
    ['a captured HA-ports rule', captured()],
    ['a captured HA-ports rule, IPv6', at('fd00::1')],
    [
      'an HA-ports rule that has excluded ports only',
      on('22'),
      'error LB_CONFLICT rules[0].listenPorts',
      /less haports' own ports and excludedPorts \|/,
    ],
    ['a rule that names ssh', naming(22)],
    [
      'a rule that names an excluded port',
      naming(22, { excludedPorts: '22' }),
      NAMED,
      /^Port 22 is among dataPlane\.capture\.excludedPorts \| 22 \|/,
    ],
    [
      'a rule whose range has an excluded port',
      naming('20-30', { excludedPorts: '22' }),
      NAMED,
      /\| 20-30 \|/,
    ],
    ['a rule that names a port beside', naming(23, { excludedPorts: '22' }), 'note LB_YIELDS rules[0]'],
    [
      'captured ssh',
      captured({ excludedPorts: '179' }),
      SSH,
      /\| "179" \|.*ssh to 10\.0\.0\.1 \(frontend "hub"\)/,
    ],
    ['ssh that no rule captures', on('1024-65535', { excludedPorts: '2000' })],
    ['ssh within a range that is excluded', captured({ excludedPorts: '20-30' })],
    ...['0.0.0.0', '::'].map((address): Row => {
      const found = 'error LB_CAPTURE_WILDCARD frontends[0].address';
      return [
        `wildcard ${address}`,
        at(address),
        found,
        new RegExp(`\\| "${address}" \\| a frontend for each`),
      ];
    }),
    [
      'a link-local frontend',
      at('fe80::1%eth0'),
      'error LB_CAPTURE_ADDRESS frontends[0].address',
      /by address alone/,
    ],
    ['an address beside the block', at('10.128.0.1', { block: '240.0.0.0/12' })],
    ['an address beside the IPv6 block', at('fd68:6170:6f72:7474::1')],
    ...['240.0.0.0/4', '250.0.0.0/8', '241.7.0.0/16'].map((block): Row => [
      `block ${block}`,
      captured({ block }),
    ]),
    [
      'a block of ordinary addresses',
      captured({ block: '172.16.0.0/12' }),
      'note LB_CAPTURE_BLOCK dataPlane.capture.block',
      /\| "172\.16\.0\.0\/12" \|/,
    ],
    ['a few ports', on('8000-8014'), 'note LB_CAPTURE_FEW dataPlane.capture'],
    ['not so few ports', on('8000-8015')],
    [
      'the key that chose tproxy',
      on('8000-8099', { mode: 'tproxy' }),
      'error LB_UNKNOWN_KEY dataPlane.capture.mode',
      /^Key "mode" no longer exists \| .*in place of tproxy use the kernel data plane/,
    ],
    ['a wrong word', on('8000-8099', { udp: 'nat' }), 'error LB_VALUE dataPlane.capture.udp'],
    [
      'a wrong key',
      on('8000-8099', { excludePorts: 1 }),
      'error LB_UNKNOWN_KEY dataPlane.capture.excludePorts',
    ],
  ],
  // The probe is on a port that is balanced too.
  { ignored: /^V\d+$/ },
);

const AT_ADDRESS = 'frontends[0].address';
findsOnly('LB_CAPTURE_LOOPBACK', [
  ...['127.0.0.1', '::1'].map((address): Row => [address, at(address), `warning ${AT_ADDRESS}`]),
  ['127.0.0.9', at('127.0.0.9'), `note ${AT_ADDRESS}`],
  ['128.0.0.1', at('128.0.0.1')],
  [
    'a named port of 127.0.0.1, which is meant',
    example({ dataPlane: { capture: {} }, frontend: { address: '127.0.0.1' } }),
  ],
]);

const alias = { address: '10.9.0.1', floatingAddresses: { hub: '10.65.0.1' } };
findsOnly(
  'LB_CAPTURE_ADDRESS',
  (
    [
      [AT_ADDRESS, { frontend: { address: '10.64.0.1' } }],
      [AT_ADDRESS, { frontend: { address: 'fd68:6170:6f72:7473:1::1' } }],
      ['backendPools[0].backends[0].address', { pool: { backends: ['10.127.0.1'] } }],
      ['backendPools[0].sourceAddresses[1]', { pool: { sourceAddresses: ['10.0.0.9', '10.64.0.9'] } }],
      ['backendPools[0].backends[0].floatingAddresses.hub', { pool: { backends: [alias] } }],
      ['probes[0].sourceAddress', { probe: { sourceAddress: '10.65.0.1' } }],
      ['metrics.listen', { metrics: { listen: '10.65.0.1:9902' } }],
      ['admin.http', { admin: { http: '[fd68:6170:6f72:7473::1]:9901' } }],
    ] as const
  ).map(([path, change]): Row => {
    return [
      `an address that stands for a port`,
      captured({ block: '10.64.0.0/10' }, change),
      `error ${path}`,
    ];
  }),
);

const unusable =
  'fd00::/8 0.0.0.0/0 128.0.0.0/3 10.0.0.0/17 10.0.0.1 127.0.0.0/8 0.0.0.0/8 255.0.0.0/8 224.0.0.0/4 239.0.0.0/16';
findsOnly('LB_VALUE', [
  ...unusable
    .split(' ')
    .map((block): Row => [`block ${block}`, captured({ block }), 'error dataPlane.capture.block']),
  ['private ports beyond 65535', captured({ port: 65_472 }), 'error dataPlane.capture.port'],
]);

const crowd = (block: string, count: number) =>
  captured(
    { block },
    {
      frontends: Array.from({ length: count }, (_, index) => ({
        name: index === 0 ? 'hub' : `f${index}`,
        address: index % 2 === 0 ? `10.1.0.${index}` : `fd00::${index}`,
      })),
    },
  );
const AT_BLOCK = 'error dataPlane.capture.block';
findsOnly('LB_CAPTURE_BLOCK', [
  ['one frontend in a /16', crowd('240.0.0.0/16', 1)],
  ['three in a /16', crowd('240.0.0.0/16', 3), AT_BLOCK, /^The block has room for 1 frontend, not for 3 \|/],
  ['16 in a /12', crowd('240.0.0.0/12', 16)],
  ['17 in a /12', crowd('240.0.0.0/12', 17), AT_BLOCK],
  [
    'an address beside the block',
    at('10.128.0.1', { block: '10.64.0.0/10' }),
    AT_BLOCK.replace('error', 'note'),
  ],
]);

const AT_PORT = 'dataPlane.capture.port';
const METRICS = { metrics: { listen: '127.0.0.1:61003' } };
const SOURCES = { pool: { sourcePorts: '20000-29999' } };
const privatePorts = (port: number, workers: number, change: Change = {}) =>
  captured({ port }, { ...change, dataPlane: { workers } });
const anyPort = (listen: string, change: Change = {}) => captured({}, { metrics: { listen }, ...change });
findsOnly('LB_CAPTURE_PORT', [
  ['metrics beside the private ports', privatePorts(61_000, 3, METRICS)],
  ['metrics on the port of the last worker', privatePorts(61_000, 4, METRICS), 'error metrics.listen'],
  ['metrics on the port of the only process', privatePorts(61_003, 0, METRICS), 'error metrics.listen'],
  ['source ports above', privatePorts(19_999, 1, SOURCES)],
  ['source ports that begin there', privatePorts(19_999, 2, SOURCES), `error ${AT_PORT}`],
  ['source ports that end there', privatePorts(29_999, 1, SOURCES), `error ${AT_PORT}`],
  ['the default of sourcePorts', privatePorts(40_000, 1), `error ${AT_PORT}`],
  ["the system's source ports", privatePorts(40_000, 1, SOURCES), `warning ${AT_PORT}`],
  ['private ports up to 65534', privatePorts(65_471, 64)],
  ['metrics on any port of a frontend', anyPort('10.0.0.1:0'), 'error metrics.listen'],
  ['metrics on any port of all addresses', anyPort('0.0.0.0:0'), 'error metrics.listen'],
  ['metrics on any port elsewhere', anyPort('127.0.0.1:0')],
  [
    'the admin API on any port of a frontend',
    anyPort('127.0.0.1:9902', { frontend: { address: '127.0.0.1' }, admin: { http: '127.0.0.1:0' } }),
    'error admin.http',
  ],
]);

findsOnly('LB_SOURCE_NEEDED', [
  ['captured ports, which nothing binds', captured()],
  [
    'ports that may be bound',
    captured({ fallback: 'bind' }),
    ...['warning probes[0]', 'warning backendPools[0]'],
  ],
]);

describe('capture', () => {
  it('fills in what capture leaves open', () => {
    const { excludedPorts, block, ...rest } = configurationOf(captured()).capture!;
    assert.deepEqual(rest, { udp: 'redirect', fallback: 'none', port: 61_000 });
    assert.deepEqual([formatPortSet(excludedPorts), block.text], ['22', '240.0.0.0/4']);
    assert.equal(configurationOf(example()).capture, undefined);
  });

  for (const [written, ports] of [
    [captured(), '1-21,23-65535'],
    [captured({ excludedPorts: '22, 179, 60000-65535' }), '1-21,23-178,180-59999'],
    [captured({}, { metrics: { listen: '0.0.0.0:9902' } }), '1-21,23-9901,9903-65535'],
    [haExample({ rule: { listenPorts: '20-25' } }), '20-25'],
    [naming(22), '1-21,23-65535'],
  ] as const) {
    it(`leaves ${ports} to an HA-ports rule, less excluded and own ports`, () =>
      assert.equal(portsOf(written), ports));
  }

  it('gives a rule that names ssh its port', () => assert.equal(portsOf(naming(22), 1), '22'));
});
