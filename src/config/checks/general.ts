import { formatEndpoint, isLoopback, type Protocol } from '../../model/address.js';
import { FLOW_TRIGGERS, type BackendPool, type Rule } from '../../model/configuration.js';
import { formatDuration } from '../../model/duration.js';
import {
  intersectPorts,
  parsePortSet,
  portRemainders,
  portSetSize,
  unionPorts,
  type PortSet,
} from '../../model/ports.js';
import { isName } from '../fields.js';
import type { ListName } from '../read.js';
import { isFloating, type Draft } from '../resolve.js';
import { nearestWord } from '../text.js';
import { MEMBERS, POOLS, PROBES, ROOT, RULES, error, note, repeats, warning, type Check } from './check.js';
import { commonPorts, reaches } from './listeners.js';

const NOUN: Readonly<Record<ListName, string>> = {
  frontends: 'frontend',
  probes: 'probe',
  backendPools: 'backend pool',
  rules: 'rule',
};

/** Names that an earlier thing of their kind has, and backends' that another member of the pool has. */
function repeatedNames({ written: { names, backendPools } }: Draft) {
  const ofThings = names.map((name) => ({ ...name, among: name.list, bearer: `a ${NOUN[name.list]}` }));
  const ofMembers = backendPools.flatMap(({ at, value: { name: pool, backends } }) =>
    backends.flatMap(({ name: value }, index) => {
      const named = {
        at: [...at, 'backends', index, 'name'],
        among: at.join(),
        bearer: `a backend of pool "${pool}"`,
      };
      return value === undefined ? [] : [{ ...named, value }];
    }),
  );
  return repeats([...ofThings, ...ofMembers], ({ among, value }) => `${among} ${value}`).map(
    ({ thing: name }) => name,
  );
}

/** References to names that do not exist. What is no name at all the schema reports. */
function unknownNames({ written: { names, references } }: Draft) {
  const known = new Set(names.map(({ list, value }) => `${list} ${value}`));
  return references
    .filter(({ value, list }) => isName(value) && !known.has(`${list} ${value}`))
    .map((reference) => {
      const others = names.filter(({ list }) => list === reference.list).map(({ value }) => value);
      return { ...reference, noun: NOUN[reference.list], others: [...new Set(others)] };
    });
}

function unusedThings({ frontends, probes, pools, written: { rules, hasAllRules } }: Draft) {
  if (!hasAllRules) return [];
  const used = (key: 'frontend' | 'probe' | 'backendPool') => new Set(rules.map(({ value }) => value[key]));
  const lists = [
    ['frontend', frontends, used('frontend')],
    ['probe', probes, used('probe')],
    ['backend pool', pools, used('backendPool')],
  ] as const;
  return lists.flatMap(([noun, things, names]) =>
    things.filter(({ name }) => !names.has(name)).map((thing) => ({ thing, noun, name: thing.name })),
  );
}

/** Names given twice, names that do not exist, and things that no rule names. */
export const NAME_CHECKS = [
  error('LB_DUPLICATE_NAME', repeatedNames, '', {
    say: ({ value, bearer }) => `Name "${value}" is already that of ${bearer}, each must have its own`,
    expected: 'another name',
  }),
  error('LB_UNKNOWN_NAME', unknownNames, '', {
    say: ({ noun, value, others }) => {
      const meant = nearestWord(value, others);
      return `There is no ${noun} "${value}"${meant === undefined ? '' : `; did you mean "${meant}"`}`;
    },
    expected: ({ noun, others }) =>
      others.length === 0 ? `a ${noun} to be defined` : `one of ${others.join(', ')}`,
  }),
  note('LB_UNUSED', unusedThings, '', { say: ({ noun, name }) => `No rule uses ${noun} "${name}"` }),
];

/** Slots a backend should have for flows to spread evenly to about 1 % (Maglev, NSDI 2016, section 3.4). */
const SLOTS_PER_BACKEND = 100;

/** Indices of backends are 16 bits wide in a table, and 0xffff stands for none. */
const MAXIMUM_BACKENDS = 65534;

const mostBackends = ({ tableSize }: Draft) => Math.min(tableSize, MAXIMUM_BACKENDS);

/** Pools with some backends, and not too many. */
function usablePools(draft: Draft): readonly BackendPool[] {
  return draft.pools.filter(({ backends: { length } }) => length > 0 && length <= mostBackends(draft));
}

function largestPriorityGroup({ backends }: BackendPool): number {
  const sizes = new Map<number, number>();
  for (const { priority } of backends) sizes.set(priority, (sizes.get(priority) ?? 0) + 1);
  return Math.max(...sizes.values());
}

function repeatedAddresses({ pools }: Draft) {
  return pools.flatMap(({ name: pool, backends }) =>
    repeats(backends, ({ address }) => address.text).map(({ thing }) => ({
      thing,
      pool,
      address: thing.address,
    })),
  );
}

/** What hangs together inside one pool. */
export const POOL_CHECKS = [
  error('LB_DUPLICATE_ADDRESS', repeatedAddresses, 'address', {
    say: ({ pool, address }) => `Address ${address.text} is already a backend of pool "${pool}"`,
    expected: 'each address once in a pool',
    reason: 'Pool and address are the identity of a backend',
  }),
  warning('LB_EMPTY_POOL', POOLS, 'backends', {
    when: ({ backends }) => backends.length === 0,
    say: ({ name }) => `Pool "${name}" has no backends, so its rules refuse every flow`,
  }),
  error('LB_VALUE', POOLS, 'backends', {
    when: ({ backends }, draft) => backends.length > mostBackends(draft) && `at most ${mostBackends(draft)}`,
    say: ({ backends }, expected) => `Expected ${expected} backends, found ${backends.length}`,
    found: ({ backends }) => String(backends.length),
    expected: (_, expected) => expected,
  }),
  warning('LB_SMALL_TABLE', usablePools, 'backends', {
    when: ({ backends }, { tableSize }) => backends.length * SLOTS_PER_BACKEND > tableSize && tableSize,
    say: ({ backends }, size) =>
      `Table size ${size} is small for ${backends.length} backends, flows will not spread evenly`,
    found: (_, size) => String(size),
    expected: ({ backends }) => `a tableSize of at least ${backends.length * SLOTS_PER_BACKEND}`,
  }),
  warning('LB_NEVER_ENOUGH', usablePools, 'minimumHealthy', {
    when: (pool) => pool.minimumHealthy > largestPriorityGroup(pool),
    say: ({ name, minimumHealthy }) => `No priority group of pool "${name}" has ${minimumHealthy} members`,
    expected: (pool) => `at most ${largestPriorityGroup(pool)}`,
  }),
  warning('LB_NO_WEIGHT', usablePools, 'backends', {
    when: ({ backends }) => backends.every(({ weight }) => weight === 0),
    say: ({ name }) => `Every backend of pool "${name}" has weight 0, so none gets new flows`,
  }),
  error('LB_CONFLICT', MEMBERS, 'address', {
    when: ({ pool: { sourceAddresses }, backend: { address } }) =>
      sourceAddresses.length > 0 && sourceAddresses.every(({ family }) => family !== address.family),
    say: ({ pool, backend: { address } }) =>
      `No source address of pool "${pool.name}" is IPv${address.family} as ${address.text} is`,
    expected: 'sourceAddresses of each family the backends have',
  }),
  // A source port belongs to one data worker: see OwnPorts.
  error('LB_CONFLICT', POOLS, 'sourcePorts', {
    when: ({ sourcePorts }, { plane, root: { dataPlane } }) =>
      plane === 'userspace' &&
      dataPlane.workers > 1 &&
      portRemainders(sourcePorts, dataPlane.workers).size < dataPlane.workers &&
      dataPlane.workers,
    say: ({ name, sourcePorts }, workers) =>
      `The source ports of pool "${name}" are for ${portRemainders(sourcePorts, workers).size} of ${workers} data workers: ` +
      `a port belongs to the worker whose number is its remainder when divided by ${workers}`,
    found: ({ sourcePorts }) => `${portSetSize(sourcePorts)} ports`,
    expected: (_, workers) => `${workers} consecutive ports or more`,
  }),
];

/** Keys that mean something only where HTTP is spoken, and only where TLS is. */
const HTTP_KEYS = [
  'path',
  'host',
  'expectStatus',
  'expectBody',
  'weightFromProbeHeader',
  'explicitAnswerFlips',
];
const TLS_KEYS = ['serverName', 'ca', 'skipVerify'];

/** Ports where an appliance answers its operators, whatever the state of its data path. */
const MANAGEMENT_PORTS: ReadonlyMap<number, string> = new Map([
  [22, 'SSH'],
  [23, 'Telnet'],
  [3389, 'remote desktop'],
]);

function strayKey(key: string, ...protocols: readonly string[]): Check {
  const needed = protocols.join(' or ');
  return error('LB_CONFLICT', PROBES, `@${key}`, {
    when: (probe, draft) => !protocols.includes(probe.protocol) && draft.given(probe, key),
    say: ({ protocol }) => `"${key}" needs protocol ${needed}, found ${protocol}`,
    found: ({ protocol }) => protocol,
    expected: needed,
  });
}

/** What hangs together inside one probe. */
export const PROBE_CHECKS = [
  ...HTTP_KEYS.map((key) => strayKey(key, 'http', 'https')),
  ...TLS_KEYS.map((key) => strayKey(key, 'https')),
  error('LB_CONFLICT', PROBES, 'timeout', {
    when: ({ timeoutMs, intervalMs }) =>
      timeoutMs > intervalMs && `at most the interval, ${formatDuration(intervalMs)}`,
    say: ({ timeoutMs }, limit) => `The timeout must be ${limit}, found ${formatDuration(timeoutMs)}`,
    expected: (_, limit) => limit,
    reason: 'A backend is never probed twice at a time',
  }),
  warning('LB_MANAGEMENT_PORT', PROBES, 'port', {
    when: ({ port }) => MANAGEMENT_PORTS.get(port),
    say: ({ port }, service) => `Port ${port} is a management port (${service})`,
    expected: 'a port that only answers while the appliance passes traffic',
    reason: 'An appliance that no longer passes traffic often still answers its operators',
  }),
  warning('LB_NO_EFFECT', PROBES, 'ca', {
    when: (probe, draft) => draft.given(probe, 'ca') && 'skipVerify' in probe && probe.skipVerify,
    say: '"ca" has no effect while "skipVerify" is true',
  }),
];

function strayOption(protocol: Protocol, key: string): Check {
  return warning('LB_NO_EFFECT', RULES, `@${key}`, {
    when: (rule, draft) => !rule.protocols.includes(protocol) && draft.given(rule, ...key.split('.')),
    say: ({ protocols }) => `"${key}" has no effect on a ${protocols.join()} rule`,
  });
}

function perPacketIgnores(key: 'symmetric' | 'distribution'): Check {
  return warning('LB_NO_EFFECT', RULES, key, {
    when: (rule, draft) => {
      const { udp, symmetric, distribution } = draft.input(rule);
      return udp?.perPacket === true && (key === 'symmetric' ? symmetric : distribution !== undefined);
    },
    say: `"${key}" has no effect on datagrams under perPacket`,
  });
}

/** On what TCP flows are to be rebalanced; false: never. */
function rebalanced({ protocols, flowPolicy }: Rule): string | false {
  const triggers = FLOW_TRIGGERS.filter((trigger) => flowPolicy[trigger].tcp === 'rebalance');
  return protocols.includes('tcp') && triggers.length > 0 && `For TCP, rebalance on ${triggers.join(', ')}`;
}

const movesTcp = ({ plane, kernel }: Draft) => plane === 'kernel' && kernel?.mode !== 'nat';

/** Keys of one rule that contradict each other, or that act differently than they read. */
export const RULE_CHECKS = [
  ...['tcp', 'tcpReset', 'idleTimeout.tcp'].map((key) => strayOption('tcp', key)),
  ...['udp', 'idleTimeout.udp'].map((key) => strayOption('udp', key)),
  error('LB_CONFLICT', RULES, 'udp.expectedResponses', {
    when: (rule, draft) => {
      const { perPacket = false, expectedResponses = 0 } = draft.input(rule).udp ?? {};
      return perPacket && expectedResponses > 0 && String(expectedResponses);
    },
    say: 'perPacket carries no replies to wait for',
    expected: '0, or no perPacket',
  }),
  perPacketIgnores('symmetric'),
  perPacketIgnores('distribution'),
  note('LB_REBALANCE_RESETS', RULES, 'flowPolicy', {
    when: (rule, draft) => !movesTcp(draft) && rebalanced(rule),
    say: (_, what) => `${what} means reset`,
    reason: (_, __, { plane }) =>
      plane === 'kernel'
        ? 'Another backend does not know a connection that conntrack translated for this one'
        : 'A spliced TCP stream cannot be moved to another backend',
  }),
  note('LB_REBALANCE_MOVES', RULES, 'flowPolicy', {
    when: (rule, draft) => movesTcp(draft) && rebalanced(rule),
    say: (_, what) => `${what} sends the next packets to another backend`,
    reason: 'It resets a connection that it does not know, unless it shares its sessions with the others',
  }),
  note('LB_DROP_ACCEPTS', RULES, 'allDown', {
    when: ({ protocols, allDown }, { plane }) =>
      plane === 'userspace' && protocols.includes('tcp') && allDown === 'drop',
    say: 'For TCP, drop means accepted, never answered, and closed at the embryonic timeout',
    reason: 'The kernel completes the handshake before haports sees the connection',
  }),
];

/** Linux's default net.ipv4.ip_local_port_range: what the kernel chooses source ports from. */
export const EPHEMERAL_PORTS: PortSet = parsePortSet('32768-60999') ?? [];

/** Local addresses of upstream connections and of probes, and the ports that each may use. */
function sources({ plane, kernel, pools, probes, rules }: Draft) {
  // What is not floating, the kernel tells from answers to this machine by conntrack.
  if (plane === 'kernel' && !isFloating(kernel)) return [];
  const ofPools = pools.flatMap((thing) => {
    const protocols = rules.filter(({ pool }) => pool === thing).flatMap((rule) => rule.protocols);
    return thing.sourceAddresses.map((address, index) => {
      return { thing, at: ['sourceAddresses', index], address, ports: thing.sourcePorts, protocols };
    });
  });
  const tcp: readonly Protocol[] = ['tcp'];
  const ofProbes = probes.flatMap((thing) => {
    const { sourceAddress: address } = thing;
    const rest = { thing, at: ['sourceAddress'], ports: EPHEMERAL_PORTS, protocols: tcp };
    return address === undefined ? [] : [{ ...rest, address }];
  });
  return [...ofPools, ...ofProbes];
}

/** Sources that have lost ports to listeners: every port, or some. */
function withLosses(isAll: boolean) {
  return (draft: Draft) =>
    sources(draft).flatMap((source) => {
      const taken = draft.rules
        .filter((rule) => commonPorts(rule, source) !== undefined)
        .filter(({ frontend }) => reaches(frontend.address, source.address, draft.ownAddresses))
        .reduce<PortSet>((sum, { ports }) => unionPorts(sum, ports), []);
      const lost = portSetSize(intersectPorts(source.ports, taken));
      const all = portSetSize(source.ports);
      return lost > 0 && (lost === all) === isAll ? [{ ...source, lost }] : [];
    });
}

/** What connects without a local address of its own, while a rule listens on every port that it could get. */
function withoutSource({ plane, root, pools, probes, rules }: Draft) {
  // Captured ports are not bound, nor are those of the kernel data plane.
  if (plane === 'kernel' || root.dataPlane.capture?.fallback === 'none') return [];
  const every = portSetSize(EPHEMERAL_PORTS);
  const hog = rules.find(
    ({ protocols, ports }) =>
      protocols.includes('tcp') && portSetSize(intersectPorts(EPHEMERAL_PORTS, ports)) === every,
  );
  if (hog === undefined) return [];
  return [
    ...pools
      .filter(({ sourceAddresses }) => sourceAddresses.length === 0)
      .map((thing) => ({ thing, hog, what: `Pool "${thing.name}" has no sourceAddresses` })),
    ...probes
      .filter(({ sourceAddress }) => sourceAddress === undefined)
      .map((thing) => ({ thing, hog, what: `Probe "${thing.name}" has no sourceAddress` })),
  ];
}

const NO_SOURCE = 'A port that haports listens on cannot be the source of a connection to a backend';

/** Local addresses of upstream connections and probes whose ports the listeners have taken. */
export const SOURCE_CHECKS = [
  warning('LB_SOURCE_PORTS', withLosses(false), '', {
    say: ({ lost, address }) => `Listeners take ${lost} of the source ports of ${address.text}`,
    reason: NO_SOURCE,
  }),
  error('LB_SOURCE_PORTS', withLosses(true), '', {
    say: ({ address }) => `Listeners take every source port of ${address.text}`,
    expected: 'a local address that no rule listens on with all ports',
    reason: NO_SOURCE,
  }),
  // Bound on one address, all ports are gone for sockets without a local address of their own (measured, Linux 6).
  warning('LB_SOURCE_NEEDED', withoutSource, '', {
    say: ({ what, hog }) => `${what}, and rule "${hog.name}" listens on every port`,
    expected: 'a local address that no rule listens on',
    reason:
      'With all ports bound the kernel finds none for a connection that has no address of its own (EADDRNOTAVAIL)',
  }),
];

const ADMIN = ({ root: { admin } }: Draft) => (admin === undefined ? [] : [admin]);

/** Who can reach the admin API, if anyone; and a configuration that does nothing. */
export const ROOT_CHECKS = [
  error('LB_MISSING_KEY', ADMIN, '', {
    when: ({ socket, http }) => socket === undefined && http === undefined,
    say: 'The admin API can be reached nowhere',
    found: 'neither "socket" nor "http"',
    expected: '"socket", "http" or both',
  }),
  ...(['tls', 'token'] as const).map((key) =>
    warning('LB_NO_EFFECT', ADMIN, key, {
      when: (admin) => admin.http === undefined && admin[key] !== undefined,
      say: `"${key}" has no effect without "http"`,
      reason: 'The Unix socket is guarded by its mode, 0600, and by nothing else',
    }),
  ),
  error('LB_ADMIN_EXPOSED', ADMIN, 'http', {
    when: ({ http, ...admin }) => {
      const missing = (['tls', 'token'] as const).filter((key) => admin[key] === undefined);
      if (http === undefined || isLoopback(http.address) || missing.length === 0) return undefined;
      return { place: formatEndpoint(http.address, http.port), missing: missing.join(' and ') };
    },
    say: (_, { place }) => `The admin API would be open to others on ${place}`,
    found: (_, { place, missing }) => `"${place}" without ${missing}`,
    expected: 'a loopback address such as "127.0.0.1:9901", or both "tls" and "token"',
    reason: 'Anyone who can reach the admin API can drain every backend and replace the configuration',
  }),
  warning('LB_NO_RULES', ROOT, 'rules', {
    when: (_, { written: { rules, hasAllRules } }) => hasAllRules && rules.length === 0,
    say: 'There are no rules, so nothing is balanced',
  }),
];
