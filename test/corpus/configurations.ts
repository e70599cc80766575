/* Usable configurations, and what is asked about them without a running process. */

const NVAS = ['nva-1', 'nva-2', 'nva-3'];

const BASE = {
  // Smaller than the default, to be quick.
  tableSize: 1021,
  frontends: [
    { name: 'hub', address: '10.0.0.1' },
    { name: 'hub6', address: 'fd00::1' },
  ],
  probes: [{ name: 'alive', protocol: 'tcp', port: 9000 }],
  backendPools: [
    { name: 'nvas', backends: NVAS.map((name, index) => ({ name, address: `10.0.1.1${index + 1}` })) },
  ],
  rules: [
    { name: 'ha', frontend: 'hub', backendPool: 'nvas', probe: 'alive', haPorts: true },
    { name: 'ha-6', frontend: 'hub6', backendPool: 'nvas', probe: 'alive', haPorts: true },
  ],
};

const POOL_6 = {
  name: 'nvas-6',
  backends: NVAS.map((name, index) => ({ name, address: `fd00:1::1${index + 1}` })),
};

/** BASE with these members in both its rules. */
const rules = (change: object): object =>
  patched(BASE, { rules: BASE.rules.map((rule) => ({ ...rule, ...change })) });

/** BASE with these members in its backends, one by one. */
const backends = (...changes: readonly object[]): object =>
  patched(BASE, {
    'backendPools/0/backends': BASE.backendPools[0]!.backends.map((backend, index) => ({
      ...backend,
      ...changes[index],
    })),
  });

/** Both families, each with its own pool, on the kernel data plane. */
function kernel(options: object, { rule = {}, patch = {} }: { rule?: object; patch?: object } = {}): object {
  const [first, second] = BASE.rules;
  return patched(BASE, {
    dataPlane: { kind: 'kernel', kernel: options },
    'backendPools/1': POOL_6,
    'rules/0': { ...first, ...rule },
    'rules/1': { ...second, backendPool: 'nvas-6', ...rule },
    ...patch,
  });
}

const named = (name: string, frontendPort: number | string, backendPort: number, more: object = {}) => ({
  name,
  ...{ frontend: 'hub', backendPool: 'nvas', probe: 'alive', protocol: 'tcp', frontendPort, backendPort },
  ...more,
});

const FLOATING = { hub: '127.0.0.11', hub6: '::1' };

const WILDCARDS = { 'frontends/0/address': '0.0.0.0', 'frontends/1/address': '::' };

/** Rules that name ports, beside the HA-ports rules. */
const NAMED = [
  named('web', 443, 6443, { distribution: 'source-ip' }),
  named('range', '5000-5009', 15000),
  named('kept', '7000-7009', 0),
  named('dns', 53, 5353, { protocol: 'udp', idleTimeout: { udp: '10s' } }),
  named('both', 8080, 80, { protocol: 'all' }),
];

/** Name to configuration. A new one may be added at any time; record it with the build that is known to be right. */
export const CONFIGURATIONS: Readonly<Record<string, object>> = {
  'five-tuple': BASE,
  'source-ip': rules({ distribution: 'source-ip' }),
  'source-ip-protocol': rules({ distribution: 'source-ip-protocol' }),
  symmetric: rules({ symmetric: true }),
  'symmetric-source-ip': rules({ symmetric: true, distribution: 'source-ip' }),
  'symmetric-source-ip-protocol': rules({ symmetric: true, distribution: 'source-ip-protocol' }),
  'seed-1': patched(BASE, { seed: 1 }),
  'seed-largest': patched(BASE, { seed: 4_294_967_295 }),
  'table-251': patched(BASE, { tableSize: 251 }),
  'table-default': patched(BASE, { '-tableSize': 0 }),
  'table-131071': patched(BASE, { tableSize: 131_071 }),
  azure: patched(BASE, { compat: 'azure', '-rules/1': 0, '-frontends/1': 0 }),
  weights: backends({ weight: 1 }, { weight: 2 }, { weight: 7 }),
  'weights-large': backends({ weight: 256 }, { weight: 255 }, { weight: 1 }),
  'weight-0': backends({}, { weight: 0 }, {}),
  priorities: backends({ priority: 1 }, { priority: 0 }, { priority: 0 }),
  'priorities-minimum': patched(backends({ priority: 0 }, { priority: 0 }, { priority: 5 }), {
    'backendPools/0/minimumHealthy': 2,
  }),
  'priorities-and-weights': backends({ priority: 0, weight: 3 }, { priority: 0 }, { priority: 3, weight: 9 }),
  'admin-down': backends({ adminState: 'down' }, {}, {}),
  'admin-up': backends({ adminState: 'up' }, {}, {}),
  'all-admin-down': backends(...NVAS.map(() => ({ adminState: 'down' }))),
  'all-down-drop': rules({ allDown: 'drop' }),
  'all-down-fail-open': rules({ allDown: 'fail-open' }),
  'one-backend': patched(BASE, {
    '-backendPools/0/backends/2': 0,
    'backendPools/0/backends/1': { address: '10.0.1.99' },
  }),
  'two-backends': patched(BASE, { '-backendPools/0/backends/1': 0 }),
  'four-backends': patched(BASE, { 'backendPools/0/backends/3': { name: 'nva-4', address: '10.0.1.14' } }),
  'forty-backends': patched(BASE, {
    'backendPools/0/backends': Array.from({ length: 40 }, (_, index) => ({
      address: `10.0.2.${index + 1}`,
      weight: 1 + (index % 5),
      priority: index < 35 ? 0 : 1,
    })),
  }),
  'order-reversed': patched(BASE, { 'backendPools/0/backends': BASE.backendPools[0]!.backends.toReversed() }),
  'moved-backend': patched(BASE, { 'backendPools/0/backends/0/address': '10.0.1.21' }),
  'renamed-backend': patched(BASE, { 'backendPools/0/backends/0/name': 'firewall-1' }),
  'renamed-rule': patched(BASE, { 'rules/0/name': 'everything' }),
  'renamed-pool': patched(BASE, {
    'backendPools/0/name': 'firewalls',
    'rules/0/backendPool': 'firewalls',
    'rules/1/backendPool': 'firewalls',
  }),
  'renamed-probe': patched(BASE, {
    'probes/0/name': 'health',
    'rules/0/probe': 'health',
    'rules/1/probe': 'health',
  }),
  'ipv6-backends': patched(BASE, { 'backendPools/0': { ...POOL_6, name: 'nvas' } }),
  'both-families': patched(BASE, { 'backendPools/1': POOL_6, 'rules/1/backendPool': 'nvas-6' }),
  'no-probe': patched(BASE, { '-probes/0': 0, '-rules/0/probe': 0, '-rules/1/probe': 0 }),
  'http-probe': patched(BASE, {
    'probes/0': {
      ...{ name: 'alive', protocol: 'http', port: 9000, path: '/healthz?full', host: 'nva.example' },
      ...{ expectStatus: '200-299', expectBody: 'ok', interval: '2s', timeout: '1s' },
      ...{ threshold: { up: 3, down: 1 }, explicitAnswerFlips: false, weightFromProbeHeader: 'X-Weight' },
      flapDamping: { transitions: 4, window: '30s', hold: '10s' },
    },
  }),
  'probe-interval': patched(BASE, { 'probes/0/interval': '1s', 'probes/0/threshold': 3 }),
  'probe-port': patched(BASE, { 'probes/0/port': 9001 }),
  'listen-ports': rules({ listenPorts: '22, 80, 8000-8099' }),
  'listen-ports-wider': rules({ listenPorts: '22, 80, 8000-8199' }),
  'named-rules': patched(BASE, { rules: [...BASE.rules, ...NAMED] }),
  'only-named-rules': patched(BASE, { rules: NAMED, '-frontends/1': 0 }),
  'named-rules-less': patched(BASE, { rules: [BASE.rules[0], ...NAMED.slice(1)], '-frontends/1': 0 }),
  wildcards: patched(BASE, WILDCARDS),
  'wildcards-and-named': patched(BASE, { ...WILDCARDS, rules: [...BASE.rules, ...NAMED] }),
  'more-specific-frontend': patched(BASE, {
    ...WILDCARDS,
    'frontends/2': { name: 'inner', address: '10.0.0.9' },
    'rules/0': named('web', 443, 6443, { distribution: 'source-ip' }),
    'rules/2': { ...BASE.rules[0], name: 'inner', frontend: 'inner', listenPorts: '8000-8099' },
    'rules/1/listenPorts': '9000-9099',
  }),
  access: patched(BASE, {
    'frontends/0/allow': ['192.0.2.0/24', '198.51.100.7/32'],
    'frontends/0/deny': ['192.0.2.128/25'],
    'frontends/1/deny': ['2001:db8::/64'],
  }),
  'proxy-protocol': patched(BASE, {
    'frontends/0/proxyProtocol': { accept: 'any', trustedSources: ['192.0.2.0/24'], headerTimeout: '1s' },
    'backendPools/0/proxyProtocol': 'v2',
  }),
  floating: patched(backends(...NVAS.map(() => ({ floatingAddresses: FLOATING }))), {
    'rules/0/floatingIp': true,
    'rules/1/floatingIp': true,
  }),
  'floating-and-nat': patched(backends(...NVAS.map(() => ({ floatingAddresses: FLOATING }))), {
    'rules/0/floatingIp': true,
  }),
  timeouts: patched(rules({ idleTimeout: { tcp: '10m', udp: '1m' }, tcpReset: false }), {
    'frontends/0/idleTimeout': { tcp: '5m' },
    'backendPools/0/connectTimeout': '2s',
    'backendPools/0/connectAttempts': 5,
    shutdown: { deadline: '1m' },
    limits: {
      embryonicTimeout: '5s',
      tcpFlows: 1000,
      udpFlows: 2000,
      embryonicFlows: 10,
      tcpFlowsPerSource: 10,
      udpFlowsPerSource: 20,
    },
  }),
  'policy-aws-gwlb': rules({ flowPolicy: 'aws-gwlb' }),
  'policy-gcp': rules({ flowPolicy: 'gcp' }),
  'policy-firewall': rules({ flowPolicy: 'firewall' }),
  'policy-own': rules({
    flowPolicy: {
      ...{ preset: 'gcp', probeDown: { tcp: 'drop', udp: 'reset' }, adminDown: 'rebalance' },
      ...{ removed: 'reset', drainDeadline: { udp: 'drop' }, idle: 'drop' },
    },
  }),
  'per-packet': rules({ udp: { perPacket: true } }),
  'udp-answers': rules({ distribution: 'source-ip', udp: { answersFrom: 'endpoint', expectedResponses: 2 } }),
  'pool-options': patched(BASE, {
    'backendPools/0/sourceAddresses': ['10.0.0.50', '10.0.0.51'],
    'backendPools/0/sourcePorts': '40000-49999',
    'backendPools/0/maxConnections': 500,
    'backendPools/0/slowStart': '30s',
    'backendPools/0/backends/0/maxConnections': 10,
    'rules/0/tcp': { noDelay: false, keepAlive: '30s' },
  }),
  workers: patched(BASE, { dataPlane: { kind: 'userspace', workers: 4 } }),
  observed: patched(BASE, {
    logging: { level: 'debug', format: 'json' },
    flowLog: { file: 'flows.ndjson', sample: 0.5 },
    metrics: { listen: '127.0.0.1:9902' },
    admin: { socket: 'haports.sock', http: '127.0.0.1:9901', token: 'correct-horse-battery' },
    events: { webhook: 'http://127.0.0.1:9999/hook' },
  }),
  capture: patched(BASE, { dataPlane: { kind: 'userspace', capture: {} } }),
  'capture-options': patched(rules({ listenPorts: '1-30, 40-1000' }), {
    dataPlane: {
      ...{ kind: 'userspace', workers: 3, instance: 'edge' },
      capture: { udp: 'bind', excludedPorts: '22, 25', fallback: 'bind', port: 62_000, block: '240.0.0.0/6' },
    },
  }),
  'capture-named-rules': patched(BASE, {
    dataPlane: { kind: 'userspace', workers: 2, capture: { excludedPorts: '22,9901' } },
    rules: [...BASE.rules, ...NAMED],
    admin: { http: '127.0.0.1:9901' },
  }),
  nat: kernel({}),
  'nat-masquerade': kernel({ returnPath: 'masquerade', tableSize: 251 }),
  'nat-options': kernel(
    { interface: 'eth0', tableSize: 1021, manageSysctls: true, onStop: 'remove' },
    {
      rule: { symmetric: true, idleTimeout: { tcp: '90s', udp: '12s' }, tcpReset: false, allDown: 'drop' },
      patch: { 'dataPlane/instance': 'edge', seed: 305_419_896 },
    },
  ),
  'nat-source-ip': kernel({}, { rule: { distribution: 'source-ip' } }),
  'nat-source-ip-protocol': kernel({}, { rule: { distribution: 'source-ip-protocol' } }),
  'nat-weights': kernel({}, { patch: { 'backendPools/0/backends/0/weight': 5 } }),
  'nat-access': kernel(
    {},
    {
      patch: {
        'frontends/0/allow': ['192.0.2.0/24'],
        'frontends/0/deny': ['192.0.2.128/25'],
        'frontends/1/deny': ['2001:db8::/64'],
      },
    },
  ),
  'nat-named': kernel(
    { returnPath: 'masquerade' },
    {
      patch: {
        'rules/2': NAMED[0],
        'rules/3': NAMED[1],
        'rules/4': NAMED[3],
        'rules/5': NAMED[4],
        'rules/6': NAMED[2],
      },
    },
  ),
  'nat-listen-ports': kernel({}, { rule: { listenPorts: '80, 8000-8099' } }),
  'nat-policies': kernel({}, { rule: { flowPolicy: 'firewall', allDown: 'fail-open' } }),
  'nat-rebalance': kernel(
    {},
    { rule: { flowPolicy: { probeDown: 'rebalance', adminDown: 'drop', removed: 'reset' } } },
  ),
  'nat-priorities': kernel({}, { patch: { 'backendPools/0/backends/0/priority': 1 } }),
  'floating-l2': kernel({ mode: 'floating-l2', interface: 'eth0' }, { rule: { floatingIp: true } }),
  'floating-l2-stateless': kernel(
    { mode: 'floating-l2', interface: 'eth0', flowState: 'stateless' },
    { rule: { floatingIp: true, listenPorts: '80, 8000-8099' } },
  ),
  'floating-routed': kernel({ mode: 'floating-routed' }, { rule: { floatingIp: true } }),
  'floating-routed-options': kernel(
    { mode: 'floating-routed', interface: 'eth1', tableSize: 251 },
    {
      rule: { floatingIp: true, symmetric: true, distribution: 'source-ip' },
      patch: { 'dataPlane/instance': 'edge' },
    },
  ),
  'next-hop': kernel({ mode: 'next-hop' }, { rule: { flowPolicy: 'firewall' }, patch: WILDCARDS }),
  'next-hop-stateless': kernel(
    {
      ...{ mode: 'next-hop', flowState: 'stateless' },
      spokes: ['10.0.0.0/16', '192.0.2.0/24', 'fd00::/48', '2001:db8::/48'],
    },
    { patch: WILDCARDS },
  ),
  'next-hop-spokes': kernel(
    { mode: 'next-hop', spokes: ['10.1.0.0/16', '10.2.0.0/16', 'fd01::/48', 'fd02::/48'], interface: 'eth0' },
    { rule: { flowPolicy: 'azure', allDown: 'drop' }, patch: WILDCARDS },
  ),
  'next-hop-spokes-stateless': kernel(
    {
      ...{ mode: 'next-hop', flowState: 'stateless', tableSize: 251 },
      spokes: ['10.1.0.0/16', '10.2.0.0/16'],
    },
    {
      rule: { allDown: 'fail-open', distribution: 'source-ip' },
      patch: { ...WILDCARDS, '-rules/1': 0, '-frontends/1': 0, '-backendPools/1': 0 },
    },
  ),
};

/** With what `haports kernel ruleset` says. */
export const RULESETS = Object.keys(CONFIGURATIONS).filter(
  (name) => /^(capture|nat|floating-|next-hop)/.test(name) && name !== 'floating-and-nat',
);

const EVERYWHERE = ['tcp 192.0.2.7:40000 10.0.0.1:443', 'udp [2001:db8::7]:5353 [fd00::1]:53'];

/** Which flows are asked about where; both families, both protocols, and what no rule takes. */
export const EXPLAINED: readonly {
  readonly configuration: string;
  readonly flow: string;
  readonly down?: readonly string[];
}[] = [
  ...Object.keys(CONFIGURATIONS).flatMap((configuration) =>
    EVERYWHERE.map((flow) => ({ configuration, flow })),
  ),
  ...['five-tuple', 'symmetric', 'nat', 'next-hop-spokes'].flatMap((configuration) =>
    [
      'udp 10.0.0.1:443 192.0.2.7:40000',
      'tcp 10.1.0.4:1 10.2.0.4:65535',
      'udp [::ffff:192.0.2.7]:9 10.0.0.1:9',
    ].map((flow) => ({ configuration, flow })),
  ),
  ...['named-rules', 'only-named-rules', 'wildcards-and-named', 'nat-named', 'capture-named-rules'].flatMap(
    (configuration) =>
      [443, 5003, 7009, 53, 8080, 22, 9901, 61_000].flatMap((port) =>
        ['tcp', 'udp'].map((protocol) => ({
          configuration,
          flow: `${protocol} 198.51.100.7:1234 10.0.0.1:${port}`,
        })),
      ),
  ),
  ...['access', 'nat-access'].flatMap((configuration) =>
    [
      'tcp 192.0.2.200:1 10.0.0.1:1',
      'tcp 203.0.113.1:1 10.0.0.1:1',
      'udp [2001:db8:0:1::1]:1 [fd00::1]:1',
    ].map((flow) => ({ configuration, flow })),
  ),
  ...[
    'tcp 192.0.2.7:40000 10.0.0.9:443',
    'tcp 192.0.2.7:40000 10.99.0.9:443',
    'udp [2001:db8::7]:1 [fd00::9]:2',
  ].flatMap((flow) =>
    ['more-specific-frontend', 'five-tuple', 'next-hop'].map((configuration) => ({ configuration, flow })),
  ),
  ...[
    'five-tuple',
    'priorities-minimum',
    'all-down-drop',
    'all-down-fail-open',
    'nat',
    'weights',
    'policy-own',
    'next-hop',
  ].flatMap((configuration) =>
    [['nvas/nva-1'], ['nvas/nva-1', 'nvas/10.0.1.12'], NVAS.map((name) => `nvas/${name}`)].map((down) => ({
      configuration,
      flow: EVERYWHERE[0]!,
      down,
    })),
  ),
];

const plan = (before: string, ...after: readonly string[]) => after.map((name) => ({ before, after: name }));

export const PLANS: readonly { readonly before: string; readonly after: string }[] = [
  ...plan('five-tuple', ...Object.keys(CONFIGURATIONS)),
  ...plan('four-backends', 'five-tuple', 'two-backends', 'moved-backend'),
  ...plan('named-rules', 'named-rules-less', 'five-tuple', 'only-named-rules'),
  ...plan('listen-ports', 'listen-ports-wider', 'five-tuple'),
  ...plan('weights', 'five-tuple', 'weights-large', 'priorities'),
  ...plan('nat', ...RULESETS),
  ...plan('capture', 'capture-options', 'five-tuple'),
  ...plan('all-admin-down', 'five-tuple', 'all-down-fail-open'),
  ...plan('observed', 'five-tuple'),
];

export const SIMULATIONS: readonly { readonly configuration: string; readonly suppose: string }[] = [
  ...Object.keys(CONFIGURATIONS).map((configuration) => ({ configuration, suppose: '' })),
  ...[
    '--down nvas/nva-1',
    '--drain nvas/nva-2',
    '--admin-state nvas/nva-3=down',
    '--weight nvas/nva-1=50',
    '--weight nvas/nva-1=0 --down nvas/10.0.1.12',
    '--sources 3 --seed 7',
    NVAS.map((name) => `--down nvas/${name}`).join(' '),
  ].flatMap((suppose) =>
    [
      'five-tuple',
      'source-ip',
      'weights',
      'priorities-minimum',
      'policy-own',
      'policy-firewall',
      'all-down-fail-open',
      'all-down-drop',
      'admin-up',
      'named-rules',
      'access',
      'per-packet',
      'nat',
      'floating-l2',
      'next-hop',
      'next-hop-stateless',
    ].map((configuration) => ({ configuration, suppose })),
  ),
];

/** A copy with values set at paths (`rules/0/probe`) and removed at paths after a minus. */
export function patched(base: unknown, patch: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const copy = structuredClone(base) as Record<string, unknown>;
  for (const [path, value] of Object.entries(patch)) {
    const steps = path.replace(/^-/, '').split('/');
    const last = steps.pop() ?? '';
    const parent = steps.reduce<Record<string, unknown>>(
      (node, step) => node[step] as Record<string, unknown>,
      copy,
    );
    if (!path.startsWith('-')) parent[last] = value;
    else if (Array.isArray(parent)) parent.splice(Number(last), 1);
    else Reflect.deleteProperty(parent, last);
  }
  return copy;
}
