import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { configurationFromJson, configurationToJson } from '../../../src/api/configuration-json.js';
import { ipAddress } from '../../../src/model/address.js';
import type { KernelMode } from '../../../src/model/configuration.js';
import { formatPortSet } from '../../../src/model/ports.js';
import { example, KERNEL_MODES, kernelExample, parse, type Change } from '../../support/example.js';
import { configurationOf } from '../../support/state-factory.js';
import { finds, findsOnly, type Row } from './findings-table.js';

const OTHER_THAN_NAT = KERNEL_MODES.slice(1);
const FLOATING = ['floating-l2', 'floating-routed'] as const;
const SPOKES = ['10.1.0.0/16', '10.2.0.0/16'];
const STATELESS = { flowState: 'stateless', spokes: SPOKES };
const nat = (change: Change, kernel = {}) => kernelExample('nat', kernel, change);
const nextHop = (change: Change, kernel = {}) => kernelExample('next-hop', kernel, change);
const withRule = (rule: object): Change => ({ rule: { ...rule } });
const withPool = (pool: object): Change => ({ pool: { ...pool } });
const withFrontend = (frontend: object): Change => ({ frontend: { ...frontend } });

/** One row a mode. */
const inModes = (modes: readonly KernelMode[], what: string, change: Change, ...found: string[]): Row[] =>
  modes.map((mode) => [`${what} with mode ${mode}`, kernelExample(mode, {}, change), ...found]);

/** All findings but those on Azure's rules, and what every nat configuration is told. */
const kernelFinds = (title: string, rows: readonly Row[]) =>
  finds(title, rows, { ignored: /^(V\d+|LB_KERNEL_RETURN)$/ });

/** An ordinary rule in place of the HA-ports one. */
const ORDINARY = {
  haPorts: false,
  protocol: 'tcp',
  frontendPort: 443,
  backendPort: 443,
  listenPorts: undefined,
};
const V6_POOL = { backends: ['fd00::11', 'fd00::12'] };
const MEMBER = 'backendPools[0].backends';

const options = (findings: string, ...kernels: readonly object[]): Row[] =>
  // floatingIp would be an error with mode nat, and without floatingAddresses on the userspace data plane.
  kernels.map((kernel) => [
    JSON.stringify(kernel),
    kernelExample('floating-routed', { ...kernel }),
    findings,
  ]);
finds('wrong kernel options, and nothing else then', [
  ...options('error LB_VALUE dataPlane.kernel.mode', { mode: 'dsr' }),
  ...options('error LB_VALUE dataPlane.kernel.returnPath', { returnPath: 'tunnel' }),
  ...options(
    'error LB_VALUE dataPlane.kernel.interface',
    { interface: 'a b' },
    { interface: 'sixteen-letters-' },
  ),
  ...options('error LB_VALUE dataPlane.kernel.flowState', { flowState: 'none' }),
  ...options('error LB_VALUE dataPlane.kernel.spokes[0]', { spokes: ['10.0.0.1/8'] }),
  ...options('error LB_TYPE dataPlane.kernel.manageSysctls', { manageSysctls: 'yes' }),
  ...options('error LB_VALUE dataPlane.kernel.onStop', { onStop: 'leave' }),
  ...options('error LB_UNKNOWN_KEY dataPlane.kernel.retrunPath', { retrunPath: 'route' }),
  ...options(
    'error LB_VALUE dataPlane.kernel.tableSize',
    { tableSize: 250 },
    { tableSize: 4094 },
    { tableSize: 65_537 },
  ),
  ...options('error LB_TYPE dataPlane.kernel.tableSize', { tableSize: 'x' }),
]);

const many = withPool({ backends: Array.from({ length: 42 }, (_, index) => `10.0.1.${index + 1}`) });
const AT_RETURN = 'dataPlane.kernel.returnPath';
kernelFinds('kernel options', [
  ...inModes(KERNEL_MODES, 'an HA-ports rule', {}),
  ['the smallest table', nat({}, { tableSize: 251 })],
  ['few slots in the kernel', nat(many), `warning LB_SMALL_TABLE ${MEMBER}`],
  ['enough slots in the kernel', nat(many, { tableSize: 4201 })],
  [
    'kernel options on the userspace data plane',
    example({ dataPlane: { kernel: { mode: 'floating-l2' } } }),
    'warning LB_NO_EFFECT dataPlane.kernel',
  ],
  [
    'capture beside the kernel data plane',
    nat({ dataPlane: { capture: { block: '10.0.0.0/8' } } }),
    'error LB_CONFLICT dataPlane.capture',
  ],
  [
    'floating-l2 without an interface',
    kernelExample('floating-l2', { interface: undefined }),
    'error LB_MISSING_KEY dataPlane.kernel.interface',
  ],
  ...KERNEL_MODES.map((mode): Row => [
    `an interface with ${mode}`,
    kernelExample(mode, { interface: 'eth0' }),
  ]),
  [
    'nat that hides clients',
    nat({}, { returnPath: 'masquerade' }),
    `note LB_KERNEL_MASQUERADE ${AT_RETURN}`,
    /instead of the client's .*64,000 flows/,
  ],
  ...OTHER_THAN_NAT.map((mode): Row => {
    const written = kernelExample(mode, { returnPath: 'masquerade' });
    return [`masquerade with ${mode}`, written, `error LB_KERNEL_MODE ${AT_RETURN}`];
  }),
  [
    'nat without flow state',
    nat({}, { flowState: 'stateless' }),
    'error LB_KERNEL_MODE dataPlane.kernel.flowState',
  ],
  ...FLOATING.map((mode): Row => [
    `${mode} without flow state`,
    kernelExample(mode, { flowState: 'stateless' }),
  ]),
  [
    'spokes that no mode but next-hop has',
    nat({}, { spokes: ['10.1.0.0/16', '10.1.0.0/24'] }),
    'note LB_KERNEL_NO_EFFECT dataPlane.kernel.spokes',
  ],
]);

findsOnly('LB_KERNEL_RETURN', [
  ['nat', kernelExample('nat'), 'note dataPlane.kind', /route .*gateway.*masquerade.*doctor/],
  ['nat with the return path written', nat({}, { returnPath: 'route' }), `note ${AT_RETURN}`],
  ['nat that hides clients', nat({}, { returnPath: 'masquerade' })],
  ...inModes(OTHER_THAN_NAT, 'an HA-ports rule', {}),
]);

const WILD_6: Change = { frontend: { address: '::' }, pool: { backends: ['fd00::1', 'fd00::2'] } };
const TOO_FEW = 'error dataPlane.kernel.spokes';
findsOnly('LB_KERNEL_SPOKES', [
  [
    'no spokes, stateless',
    nextHop({}, { flowState: 'stateless' }),
    TOO_FEW,
    /IPv4 blocks \| Without flow state/,
  ],
  ['one spoke, stateless', nextHop({}, { flowState: 'stateless', spokes: SPOKES.slice(1) }), TOO_FEW],
  [
    'one spoke',
    nextHop({}, { spokes: SPOKES.slice(1) }),
    TOO_FEW,
    /or no spokes at all \| .*only what goes from one to another/,
  ],
  ['no spokes', nextHop({}, { spokes: [] })],
  ['one spoke of each family', nextHop({}, { spokes: ['10.1.0.0/16', 'fd01::/16'] }), TOO_FEW],
  ['two spokes', nextHop({}, { spokes: SPOKES })],
  ['two spokes of the other family', nextHop(WILD_6, { spokes: SPOKES }), TOO_FEW],
  ['two spokes, IPv6', nextHop(WILD_6, { spokes: ['fd01::/16', 'fd02::/16'] })],
  ['spokes side by side', nextHop({}, { spokes: ['10.1.0.0/17', '10.1.128.0/17'] })],
  ...['10.1.2.0/24', '10.1.0.0/16', '10.0.0.0/8'].map((inner): Row => {
    const written = nextHop({}, { spokes: ['10.1.0.0/16', '192.168.0.0/16', inner] });
    return [`spoke ${inner} on another`, written, `${TOO_FEW}[2]`, new RegExp(`overlap \\| "${inner}" \\|`)];
  }),
]);

findsOnly(
  'LB_KERNEL_ADDRESS',
  [
    ['an own address to be routed on', kernelExample('floating-routed'), 'error frontends[0].address'],
    ['an own address with floating-l2', kernelExample('floating-l2')],
    ['an own address with nat', kernelExample('nat')],
  ],
  { ownAddresses: [ipAddress('10.0.0.1')] },
);

const twoFrontends: Change = {
  more: { frontends: [{ name: 'other', address: '10.0.1.1' }], rules: [{ frontend: 'other' }] },
};
const LOOP = `error ${MEMBER}[0].address`;
findsOnly('LB_LOOP', [
  ...inModes(['nat', ...FLOATING], 'a backend that is a frontend', twoFrontends, ...[LOOP, LOOP]),
  ['next-hop', kernelExample('next-hop')],
]);
findsOnly('LB_LOOP', [['next-hop to an own address', kernelExample('next-hop'), LOOP]], {
  ownAddresses: [ipAddress('10.0.1.1')],
});

const fromFrontend: Change = { rule: { listenPorts: '1-65535' }, probe: { sourceAddress: '10.0.0.1' } };
findsOnly('LB_SOURCE_NEEDED', inModes(KERNEL_MODES, 'every port', withRule({ listenPorts: '1-65535' })));
findsOnly('LB_SOURCE_PORTS', [
  ['a probe from the frontend with nat', nat(fromFrontend)],
  [
    'a probe from the frontend with floating IP',
    kernelExample('floating-l2', {}, fromFrontend),
    'error probes[0].sourceAddress',
  ],
]);

const AT_FLOATING = 'error LB_KERNEL_MODE rules[0].floatingIp';
const MAPPED = withRule({ ...ORDINARY, backendPort: 6443 });
const AT_ADDRESS = 'error LB_KERNEL_MODE frontends[0].address';
const MIXED = withPool({ backends: ['10.0.1.1', 'fd00::2'] });
kernelFinds('rules that do not fit the mode', [
  ['floating IP with nat', nat(withRule({ floatingIp: true })), AT_FLOATING],
  ...inModes(FLOATING, 'no floating IP', withRule({ floatingIp: false }), AT_FLOATING),
  ...inModes(FLOATING, 'the default of floatingIp', withRule({ floatingIp: undefined }), AT_FLOATING),
  [
    'floating IP with next-hop',
    nextHop(withRule({ floatingIp: true })),
    'note LB_KERNEL_NO_EFFECT rules[0].floatingIp',
  ],
  ['a port that changes with nat', nat(MAPPED)],
  ...inModes(OTHER_THAN_NAT, 'a port that changes', MAPPED, 'error LB_KERNEL_MODE rules[0].backendPort'),
  ...inModes(OTHER_THAN_NAT, 'a port that stays', withRule(ORDINARY)),
  ...inModes(OTHER_THAN_NAT, 'a port that is kept', withRule({ ...ORDINARY, backendPort: 0 })),
  [
    'a specific address with next-hop',
    nextHop(withFrontend({ address: '10.0.0.1' })),
    AT_ADDRESS,
    /"0\.0\.0\.0" \|/,
  ],
  [
    'a specific IPv6 address with next-hop',
    nextHop({ frontend: { address: 'fd00::1' }, pool: V6_POOL }),
    AT_ADDRESS,
    /\| "fd00::1" \| "::" \|/,
  ],
  ['a specific IPv6 address with nat', nat({ frontend: { address: 'fd00::1' }, pool: V6_POOL })],
  ...inModes(['nat', ...FLOATING], 'a wildcard', withFrontend({ address: '0.0.0.0' }), AT_ADDRESS),
  [
    'both families beside each other',
    nextHop({
      more: {
        frontends: [{ name: 'hub6', address: '::' }],
        pools: [{ name: 'nvas6', ...V6_POOL }],
        rules: [{ frontend: 'hub6', backendPool: 'nvas6' }],
      },
    }),
  ],
  [
    'a link-local frontend',
    nat({ frontend: { address: 'fe80::1%eth0' }, pool: V6_POOL }),
    'error LB_KERNEL_ADDRESS frontends[0].address',
  ],
  [
    'a link-local backend',
    nat({ frontend: { address: 'fd00::1' }, pool: { backends: ['fd00::11', 'fe80::12%eth0'] } }),
    `error LB_KERNEL_ADDRESS ${MEMBER}[1].address`,
  ],
  ...inModes(KERNEL_MODES, 'both families in a pool', MIXED, `error LB_KERNEL_ADDRESS ${MEMBER}[1].address`),
  [
    'a rule for half a second',
    nat(withRule({ idleTimeout: { tcp: '240500ms', udp: '30s' } })),
    'error LB_VALUE rules[0].idleTimeout.tcp',
  ],
  [
    'a frontend for a millisecond more',
    nat(withFrontend({ idleTimeout: { tcp: '5m', udp: '1001ms' } })),
    'error LB_VALUE frontends[0].idleTimeout.udp',
  ],
  ['whole seconds in milliseconds', nat(withRule({ idleTimeout: { tcp: '241000ms' } }))],
  [
    'a named rule on a wildcard with next-hop',
    nextHop({
      more: {
        rules: [{ name: 'dns', haPorts: false, protocol: 'udp', frontendPort: 8053, idleTimeout: undefined }],
      },
    }),
    'note LB_YIELDS rules[0]',
  ],
]);

const REFUSED: readonly (readonly [string, Change])[] = [
  [
    'frontends[0].proxyProtocol',
    withFrontend({ proxyProtocol: { accept: 'v2', trustedSources: ['10.0.0.0/8'] } }),
  ],
  ['backendPools[0].proxyProtocol', withPool({ proxyProtocol: 'v2' })],
  ['backendPools[0].sourceAddresses', withPool({ sourceAddresses: ['10.0.0.9'] })],
  ['backendPools[0].maxConnections', withPool({ maxConnections: 7 })],
  [
    `${MEMBER}[1].maxConnections`,
    withPool({ backends: ['10.0.1.1', { address: '10.0.1.2', maxConnections: 7 }] }),
  ],
  ['rules[0].udp.perPacket', withRule({ udp: { perPacket: true } })],
  ['rules[0].udp.expectedResponses', withRule({ udp: { expectedResponses: 1 } })],
  ['limits.tcpFlowsPerSource', { limits: { tcpFlowsPerSource: 9 } }],
  ['limits.udpFlowsPerSource', { limits: { udpFlowsPerSource: 9 } }],
];
kernelFinds(
  'what the kernel cannot do',
  REFUSED.flatMap(([path, change]) => inModes(KERNEL_MODES, path, change, `error LB_KERNEL_CANNOT ${path}`)),
);
findsOnly('LB_KERNEL_CANNOT', [
  ...REFUSED.map(([path, change]): Row => [
    path,
    nat(change),
    `error ${path}`,
    /, or kind "userspace" \| .*$/,
  ]),
  ...REFUSED.map(([path, change]): Row => [
    `${path}, in userspace`,
    nat({ ...change, dataPlane: { kind: 'userspace' } }),
  ]),
  [
    'a cap, with the reason',
    nat(withPool({ maxConnections: 7 })),
    'error backendPools[0].maxConnections',
    /by its hash alone/,
  ],
  ['what is off', nat(withPool({ proxyProtocol: 'none', sourceAddresses: [] }))],
  ['flows, not datagrams', nat(withRule({ udp: { perPacket: false } }))],
]);

const IGNORED: readonly (readonly [string, Change])[] = [
  ['backendPools[0].sourcePorts', withPool({ sourcePorts: '1024-2047' })],
  ['backendPools[0].connectTimeout', withPool({ connectTimeout: '1s' })],
  ['backendPools[0].connectAttempts', withPool({ connectAttempts: 1 })],
  ['rules[0].tcp.noDelay', withRule({ tcp: { noDelay: false } })],
  ['rules[0].tcp.keepAlive', withRule({ tcp: { keepAlive: '30s' } })],
  ['rules[0].tcpReset', withRule({ tcpReset: false })],
  ['limits.embryonicFlows', { limits: { embryonicFlows: 9 } }],
  ['limits.embryonicTimeout', { limits: { embryonicTimeout: '9s' } }],
  ['tableSize', { tableSize: 65_537 }],
  ['dataPlane.workers', { dataPlane: { workers: 1 } }],
  ['shutdown.deadline', { shutdown: { deadline: '1m' } }],
];
kernelFinds('what has no effect in the kernel', [
  ...IGNORED.map(([path, change]): Row => [path, nat(change), `note LB_KERNEL_NO_EFFECT ${path}`]),
  ['a deadline where a stop removes', nat({ shutdown: { deadline: '1m' } }, { onStop: 'remove' })],
  ['tcpReset that is on', nat(withRule({ tcpReset: true }))],
  [
    'source ports too few for the workers of the other data plane',
    nat({ pool: { sourcePorts: 1024 }, dataPlane: { workers: 4 } }),
    ...['backendPools[0].sourcePorts', 'dataPlane.workers'].map((path) => `note LB_KERNEL_NO_EFFECT ${path}`),
  ],
  ...['tcpFlows', 'udpFlows'].map((key): Row => {
    return [
      `${key}, which bounds what is listed`,
      nat({ limits: { [key]: 9 } }),
      `note LB_KERNEL_LIMIT limits.${key}`,
    ];
  }),
  ['what works by weights', nat(withPool({ slowStart: '1m', minimumHealthy: 2 }))],
  ['priorities', nat(withPool({ backends: [{ address: '10.0.1.1', weight: 3, priority: 1 }, '10.0.1.2'] }))],
  ['access lists', nat(withFrontend({ allow: ['10.0.0.0/8'], deny: ['10.7.0.0/16'] }))],
]);

const asked = (answersFrom: string) => withRule({ udp: { answersFrom } });
const AT_ANSWERS = 'rules[0].udp.answersFrom';
const bySource = (rule = {}) => withRule({ distribution: 'source-ip', ...rule });
const symmetric = withRule({ symmetric: true });
const NO_SYMMETRY = 'note LB_KERNEL_NO_EFFECT rules[0].symmetric';
kernelFinds('answers and symmetry', [
  ['answers from any port with nat', nat(asked('address')), `error LB_KERNEL_CANNOT ${AT_ANSWERS}`],
  ['answers from the port that was asked with nat', nat(asked('endpoint'))],
  ...['address', 'endpoint'].flatMap((word) =>
    inModes(OTHER_THAN_NAT, `answers from ${word}`, asked(word), `note LB_KERNEL_NO_EFFECT ${AT_ANSWERS}`),
  ),
  ['HA ports by source', nat(bySource()), 'note LB_KERNEL_ANSWERS rules[0].distribution'],
  ['HA ports by source that say so', nat(bySource({ udp: { answersFrom: 'endpoint' } }))],
  ['a port by source', nat(bySource(ORDINARY))],
  ['HA ports by source with floating IP', kernelExample('floating-l2', {}, bySource())],
  ['every TCP port by source', nat(bySource({ haPorts: false, protocol: 'tcp', frontendPort: 0 }))],
  ['symmetry with nat', nat(symmetric), NO_SYMMETRY, /Conntrack keeps both directions/],
  [
    'symmetry with floating-l2',
    kernelExample('floating-l2', {}, symmetric),
    NO_SYMMETRY,
    /do not pass through here$/,
  ],
  ['symmetry with floating-routed', kernelExample('floating-routed', {}, symmetric), NO_SYMMETRY],
  ['symmetry with next-hop', nextHop(symmetric)],
]);

const moved = withRule({ flowPolicy: { probeDown: 'rebalance' } });
const EVERY_UDP = { haPorts: false, protocol: 'udp', frontendPort: 0 };
const idle = (tcp?: string) => withRule({ idleTimeout: { tcp } });
const AT_IDLE = 'note LB_KERNEL_IDLE rules[0].idleTimeout.tcp';
kernelFinds('flow policy and idle times', [
  ['TCP that nat would move', nat(moved), 'note LB_REBALANCE_RESETS rules[0].flowPolicy', /conntrack/],
  ...inModes(OTHER_THAN_NAT, 'TCP that is moved', moved, 'note LB_REBALANCE_MOVES rules[0].flowPolicy'),
  ...inModes(KERNEL_MODES, 'drop, which drops', withRule({ allDown: 'drop' })),
  ...[undefined, 'azure', 'gcp', { probeDown: { tcp: 'persist' } }].map((flowPolicy): Row => {
    const what = `appliances under ${JSON.stringify(flowPolicy)}`;
    return [what, nextHop(withRule({ flowPolicy })), 'note LB_KERNEL_APPLIANCE rules[0].flowPolicy'];
  }),
  ['UDP on appliances', nextHop(withRule({ ...EVERY_UDP, flowPolicy: 'azure', idleTimeout: {} }))],
  ...inModes(['nat', ...FLOATING], 'persistence', withRule({ flowPolicy: 'azure' })),
  ['59m of silence', nextHop(idle('59m')), AT_IDLE],
  ['1h of silence', nextHop(idle('1h'))],
  ['the default silence', nextHop(idle()), AT_IDLE],
  [
    'a frontend that forgets',
    nextHop(withFrontend({ idleTimeout: { tcp: '10m' } })),
    'note LB_KERNEL_IDLE frontends[0].idleTimeout.tcp',
  ],
  ['silence without flow state', nextHop(idle('4m'), STATELESS)],
  ['silence with nat', nat(idle('4m'))],
]);

kernelFinds('access lists and flow state', [
  ...['allow', 'deny'].flatMap((key): Row[] => {
    const listed = withFrontend({ [key]: ['10.1.0.0/16'] });
    return [
      [`${key} without flow state`, nextHop(listed, STATELESS), `note LB_KERNEL_ACCESS frontends[0].${key}`],
      [`${key} with flow state`, nextHop(listed, { spokes: SPOKES })],
      [`${key} with floating IP`, kernelExample('floating-l2', { flowState: 'stateless' }, listed)],
    ];
  }),
  ['empty lists', nextHop(withFrontend({ allow: [], deny: [] }), STATELESS)],
]);

const block = (net: number, count: number) =>
  Array.from({ length: count }, (_, n) => `10.${net}.${n >> 8}.${n & 255}`);
const crowd = (count: number) =>
  nat(
    {
      pool: { backends: block(200, 32_768) },
      more: { pools: [{ name: 'others', backends: block(201, count) }] },
    },
    { tableSize: 65_521 },
  );
findsOnly('LB_VALUE', [
  ['as many backends as marks', crowd(32_767)],
  ['more backends than marks', crowd(32_768), 'error backendPools'],
]);

describe('kernel data plane', () => {
  it('fills in what the options leave open', () => {
    const { kernel, tableSize, workers, capture } = configurationOf(
      nat({ dataPlane: { kernel: undefined } }),
    );
    assert.deepEqual(
      { ...kernel },
      {
        ...{ mode: 'nat', returnPath: 'route', flowState: 'pinned', spokes: [] },
        ...{ manageSysctls: false, onStop: 'keep' },
      },
    );
    assert.deepEqual([tableSize, workers, capture], [4093, 0, undefined]);
    assert.equal(configurationOf(example()).kernel, undefined);
    const userspace = configurationOf(example({ dataPlane: { kernel: { mode: 'floating-l2' } } }));
    assert.deepEqual([userspace.kernel, userspace.tableSize], [undefined, 65_537]);
  });

  it('takes every option over', () => {
    const given = { interface: 'eth0.7', flowState: 'stateless', manageSysctls: true, onStop: 'remove' };
    const configuration = configurationOf(nextHop({}, { ...given, spokes: SPOKES, tableSize: 65_521 }));
    const { kernel, tableSize } = configuration;
    assert.deepEqual(
      { ...kernel, spokes: kernel?.spokes.map(({ text }) => text) },
      { mode: 'next-hop', returnPath: 'route', ...given, spokes: SPOKES },
    );
    assert.equal(tableSize, 65_521);
    assert.deepEqual(configurationFromJson(configurationToJson(configuration)), configuration);
  });

  it('works out floatingIp, ports and answers as the mode has them', () => {
    const rule = (mode: KernelMode, change: object) =>
      configurationOf(kernelExample(mode, {}, withRule(change))).rules[0];
    assert.equal(rule('next-hop', { floatingIp: true })?.floatingIp, false);
    assert.equal(rule('floating-l2', {})?.floatingIp, true);
    assert.equal(configurationOf(nat(MAPPED)).rules[0]?.portOffset, 6000);
    assert.deepEqual(rule('nat', { distribution: 'source-ip' })?.udp, { perPacket: false });
  });

  const listens: readonly (readonly [KernelMode, string, boolean])[] = [
    ['nat', '0.0.0.0:8005', true],
    ['nat', '10.0.0.1:8005', true],
    ['nat', '10.0.0.2:8005', false],
    ['floating-l2', '0.0.0.0:8005', false],
    ['floating-routed', '0.0.0.0:8005', false],
    ['floating-routed', '10.0.0.1:8005', true],
    ['next-hop', '0.0.0.0:8005', false],
    ['next-hop', '127.0.0.1:8005', false],
  ];
  for (const [mode, listen, isLeftOut] of listens) {
    it(`${isLeftOut ? 'leaves out' : 'keeps'} the port of metrics on ${listen} with mode ${mode}`, () => {
      const { rules } = configurationOf(kernelExample(mode, {}, { metrics: { listen } }));
      const ports = isLeftOut ? '8000-8004,8006-8099' : '8000-8099';
      assert.equal(formatPortSet(rules[0]?.ports ?? []), ports);
    });
  }

  it('resolves floating IP to the frontend itself', () => {
    const alias = withPool({
      backends: [{ address: '10.0.1.1', floatingAddresses: { hub: '127.0.0.9' } }, '10.0.1.2'],
    });
    const written = kernelExample('floating-routed', {}, alias);
    const paths = parse(written)
      .findings.filter(({ code }) => code === 'LB_KERNEL_NO_EFFECT')
      .map(({ path }) => path);
    assert.deepEqual(paths, [`${MEMBER}[0].floatingAddresses`]);
    assert.deepEqual(
      configurationOf(written).backendPools[0]?.backends.map((one) => one.floatingAddresses['hub']?.text),
      ['10.0.0.1', '10.0.0.1'],
    );
    assert.deepEqual(configurationOf(nat(alias)).backendPools[0]?.backends[0]?.floatingAddresses, {});
  });
});

for (const compat of ['none', 'azure']) {
  findsOnly('V18', [
    [
      `what backends need for floating IP, under compat ${compat}`,
      kernelExample('floating-l2', {}, { compat }),
      'note rules[0].floatingIp',
      /loopback interface \|.*haports doctor/,
    ],
    ...inModes(['nat', 'next-hop'], `no floating IP, under compat ${compat},`, { compat }),
  ]);
}
findsOnly('LB_DROP_ACCEPTS', [
  [
    'drop in userspace',
    nat({ rule: { allDown: 'drop' }, dataPlane: { kind: 'userspace' } }),
    'note rules[0].allDown',
  ],
]);
