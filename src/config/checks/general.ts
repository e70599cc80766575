import { formatEndpoint, isLoopback, type IpAddress, type Protocol } from '../../model/address.js';
import { FLOW_TRIGGERS, formatDuration } from '../../model/configuration.js';
import { intersectPorts, parsePortSet, portSetSize, unionPorts, type PortSet } from '../../model/ports.js';
import { flowPolicyOf, type BoundRule } from '../bind-rules.js';
import { tableSizeOf, type Draft, type ListName, type Located, type PlaneDraft } from '../draft.js';
import { isName } from '../fields.js';
import { error, note, warning, type Issue, type Path } from '../findings.js';
import type { ProbeInput } from '../schema-probe.js';
import type { BackendPoolInput } from '../schema.js';
import { nearestWord } from '../text.js';
import { isFloating } from './kernel.js';
import { reaches } from './listeners.js';

const NOUN: Readonly<Record<ListName, string>> = {
  frontends: 'frontend',
  probes: 'probe',
  backendPools: 'backend pool',
  rules: 'rule',
};

/** Names given twice, and names that nothing bears. */
export function nameIssues(draft: Draft): readonly Issue[] {
  const duplicates = (Object.keys(NOUN) as ListName[]).flatMap((list) =>
    duplicateIssues(draft.declared[list], `a ${NOUN[list]}`),
  );
  const backends = draft.pools.flatMap(({ path, value: pool }) =>
    duplicateIssues(
      pool.backends.flatMap(({ name }, index) =>
        name === undefined ? [] : [{ path: [...path, 'backends', index, 'name'], value: name }],
      ),
      `a backend of pool "${pool.name}"`,
    ),
  );
  return [...duplicates, ...backends, ...referenceIssues(draft), ...unusedNotes(draft)];
}

function duplicateIssues(names: readonly Located<string>[], bearer: string): Issue[] {
  const seen = new Set<string>();
  return names.flatMap(({ path, value }) => {
    if (!seen.has(value)) {
      seen.add(value);
      return [];
    }
    const message = `Name "${value}" is already that of ${bearer}, each must have its own`;
    return [error('LB_DUPLICATE_NAME', path, message, { found: `"${value}"`, expected: 'another name' })];
  });
}

function referenceIssues(draft: Draft): Issue[] {
  const declared = Object.fromEntries(
    Object.entries(draft.declared).map(([list, items]) => [list, new Set(items.map(({ value }) => value))]),
  );
  return draft.references.flatMap(({ path, value, list, atKey }) => {
    // What is no name at all the schema has told.
    if (declared[list]?.has(value) === true || !isName(value)) return [];
    const names = [...(declared[list] ?? [])];
    const meant = nearestWord(value, names);
    const hint = meant === undefined ? '' : `; did you mean "${meant}"`;
    return [
      error('LB_UNKNOWN_NAME', path, `There is no ${NOUN[list]} "${value}"${hint}`, {
        atKey,
        found: `"${value}"`,
        expected: names.length === 0 ? `a ${NOUN[list]} to be defined` : `one of ${names.join(', ')}`,
      }),
    ];
  });
}

function unusedNotes(draft: Draft): Issue[] {
  // With a rule missing nobody knows what it would have used.
  if (draft.rules.length < draft.declared.rules.length) return [];
  const unused = (list: ListName, items: readonly Located<{ readonly name: string }>[], used: Set<unknown>) =>
    items
      .filter(({ value }) => !used.has(value.name))
      .map(({ path, value }) => note('LB_UNUSED', path, `No rule uses ${NOUN[list]} "${value.name}"`));
  const rules = draft.rules.map(({ value }) => value);
  return [
    ...unused('frontends', draft.frontends, new Set(rules.map((rule) => rule.frontend))),
    ...unused('probes', draft.probes, new Set(rules.map((rule) => rule.probe))),
    ...unused('backendPools', draft.pools, new Set(rules.map((rule) => rule.backendPool))),
  ];
}

/** Slots a backend should have for flows to spread evenly to about 1 % (Maglev, NSDI 2016, section 3.4). */
const SLOTS_PER_BACKEND = 100;

/** Indices of backends are 16 bits wide in a table, and 0xffff stands for none. */
const MAXIMUM_BACKENDS = 65534;

/** What hangs together inside one pool. */
export function poolIssues(draft: Draft): readonly Issue[] {
  return draft.pools.flatMap(({ path, value: pool }) => [
    ...duplicateAddresses(path, pool),
    ...memberCounts(path, pool, tableSizeOf(draft)),
    ...sourceFamilies(path, pool),
    ...(draft.plane.kind === 'kernel' ? [] : portsForWorkers(path, pool, draft.root.dataPlane.workers)),
  ]);
}

/** Each data worker has source ports of its own, an equal part of the pool's. */
function portsForWorkers(path: Path, { name, sourcePorts }: BackendPoolInput, workers: number): Issue[] {
  const count = portSetSize(sourcePorts);
  if (count >= workers) return [];
  const message = `Pool "${name}" has ${count} source ports for ${workers} data workers, so some would have none`;
  return [
    error('LB_CONFLICT', [...path, 'sourcePorts'], message, {
      found: `${count} ports`,
      expected: `at least ${workers} ports`,
    }),
  ];
}

function duplicateAddresses(path: Path, pool: BackendPoolInput): Issue[] {
  const seen = new Set<string>();
  return pool.backends.flatMap(({ address }, index) => {
    if (!seen.has(address.text)) {
      seen.add(address.text);
      return [];
    }
    const message = `Address ${address.text} is already a backend of pool "${pool.name}"`;
    return [
      error('LB_DUPLICATE_ADDRESS', [...path, 'backends', index, 'address'], message, {
        found: `"${address.text}"`,
        expected: 'each address once in a pool',
        reason: 'Pool and address are the identity of a backend',
      }),
    ];
  });
}

function memberCounts(path: Path, pool: BackendPoolInput, tableSize: number): Issue[] {
  const { backends, minimumHealthy } = pool;
  const at = [...path, 'backends'];
  const count = backends.length;
  if (count === 0) {
    return [
      warning('LB_EMPTY_POOL', at, `Pool "${pool.name}" has no backends, so its rules refuse every flow`),
    ];
  }
  if (count > Math.min(tableSize, MAXIMUM_BACKENDS)) {
    const expected = `at most ${Math.min(tableSize, MAXIMUM_BACKENDS)}`;
    return [
      error('LB_VALUE', at, `Expected ${expected} backends, found ${count}`, {
        found: String(count),
        expected,
      }),
    ];
  }
  const issues: Issue[] = [];
  if (count * SLOTS_PER_BACKEND > tableSize) {
    const message = `Table size ${tableSize} is small for ${count} backends, flows will not spread evenly`;
    issues.push(
      warning('LB_SMALL_TABLE', at, message, {
        found: String(tableSize),
        expected: `a tableSize of at least ${count * SLOTS_PER_BACKEND}`,
      }),
    );
  }
  const largestGroup = largestPriorityGroup(pool);
  if (minimumHealthy > largestGroup) {
    const message = `No priority group of pool "${pool.name}" has ${minimumHealthy} members`;
    issues.push(
      warning('LB_NEVER_ENOUGH', [...path, 'minimumHealthy'], message, {
        found: String(minimumHealthy),
        expected: `at most ${largestGroup}`,
      }),
    );
  }
  if (backends.every(({ weight }) => weight === 0)) {
    const message = `Every backend of pool "${pool.name}" has weight 0, so none gets new flows`;
    issues.push(warning('LB_NO_WEIGHT', at, message));
  }
  return issues;
}

function largestPriorityGroup({ backends }: BackendPoolInput): number {
  const sizes = new Map<number, number>();
  for (const { priority } of backends) sizes.set(priority, (sizes.get(priority) ?? 0) + 1);
  return Math.max(...sizes.values());
}

function sourceFamilies(path: Path, pool: BackendPoolInput): Issue[] {
  const families = new Set(pool.sourceAddresses.map((address) => address.family));
  if (families.size === 0) return [];
  return pool.backends.flatMap(({ address }, index) =>
    families.has(address.family)
      ? []
      : [
          error(
            'LB_CONFLICT',
            [...path, 'backends', index, 'address'],
            `No source address of pool "${pool.name}" is IPv${address.family} as ${address.text} is`,
            { found: `"${address.text}"`, expected: 'sourceAddresses of each family the backends have' },
          ),
        ],
  );
}

/** Keys that mean something only where HTTP is spoken, and only where TLS is. */
const HTTP_KEYS = [
  'path',
  'host',
  'expectStatus',
  'expectBody',
  'weightFromProbeHeader',
  'explicitAnswerFlips',
] as const;
const TLS_KEYS = ['serverName', 'ca', 'skipVerify'] as const;

/** Ports where an appliance answers its operators, whatever the state of its data path. */
const MANAGEMENT_PORTS: ReadonlyMap<number, string> = new Map([
  [22, 'SSH'],
  [23, 'Telnet'],
  [3389, 'remote desktop'],
]);

/** What hangs together inside one probe. */
export function probeIssues(draft: Draft): readonly Issue[] {
  return draft.probes.flatMap(({ path, value: probe }) => [
    ...strayKeys(path, probe),
    ...timeoutIssues(path, probe),
    ...managementPort(path, probe),
    ...uselessCa(path, probe),
  ]);
}

function strayKeys(path: Path, probe: ProbeInput): Issue[] {
  const stray = [
    ...(probe.protocol === 'tcp' ? HTTP_KEYS : []).map((key) => [key, 'http or https'] as const),
    ...(probe.protocol === 'https' ? [] : TLS_KEYS).map((key) => [key, 'https'] as const),
  ];
  return stray
    .filter(([key]) => probe[key] !== undefined)
    .map(([key, needed]) =>
      error('LB_CONFLICT', [...path, key], `"${key}" needs protocol ${needed}, found ${probe.protocol}`, {
        atKey: true,
        found: probe.protocol,
        expected: needed,
      }),
    );
}

function timeoutIssues(path: Path, { timeout, interval }: ProbeInput): Issue[] {
  if (timeout === undefined || timeout <= interval) return [];
  const found = formatDuration(timeout);
  const expected = `at most the interval, ${formatDuration(interval)}`;
  return [
    error('LB_CONFLICT', [...path, 'timeout'], `The timeout must be ${expected}, found ${found}`, {
      found,
      expected,
      reason: 'A backend is never probed twice at a time',
    }),
  ];
}

function managementPort(path: Path, { port }: ProbeInput): Issue[] {
  const service = MANAGEMENT_PORTS.get(port);
  if (service === undefined) return [];
  return [
    warning('LB_MANAGEMENT_PORT', [...path, 'port'], `Port ${port} is a management port (${service})`, {
      found: String(port),
      expected: 'a port that only answers while the appliance passes traffic',
      reason: 'An appliance that passes no traffic any more often still answers its operators',
    }),
  ];
}

function uselessCa(path: Path, { ca, skipVerify }: ProbeInput): Issue[] {
  if (ca === undefined || skipVerify !== true) return [];
  return [warning('LB_NO_EFFECT', [...path, 'ca'], '"ca" has no effect while "skipVerify" is true')];
}

/** What hangs together inside one rule, and what of it turns out otherwise than it reads. */
export function ruleIssues({ plane }: Draft, rules: readonly BoundRule[]): readonly Issue[] {
  return rules.flatMap((rule) => [
    ...strayOptions(rule),
    ...perPacketIssues(rule),
    ...rebalanceNotes(plane, rule),
    ...(plane.kind === 'userspace' ? dropNotes(rule) : []),
  ]);
}

function strayOptions({ path, input, protocols }: BoundRule): Issue[] {
  const stray = (protocol: 'tcp' | 'udp', key: readonly string[]): Issue[] =>
    protocols.includes(protocol)
      ? []
      : [
          warning(
            'LB_NO_EFFECT',
            [...path, ...key],
            `"${key.join('.')}" has no effect on a ${protocols.join()} rule`,
            {
              atKey: true,
            },
          ),
        ];
  return [
    ...(input.tcp === undefined ? [] : stray('tcp', ['tcp'])),
    ...(input.tcpReset === undefined ? [] : stray('tcp', ['tcpReset'])),
    ...(input.idleTimeout?.tcp === undefined ? [] : stray('tcp', ['idleTimeout', 'tcp'])),
    ...(input.udp === undefined ? [] : stray('udp', ['udp'])),
    ...(input.idleTimeout?.udp === undefined ? [] : stray('udp', ['idleTimeout', 'udp'])),
  ];
}

function perPacketIssues({ path, input }: BoundRule): Issue[] {
  if (input.udp?.perPacket !== true) return [];
  const issues: Issue[] = [];
  const expected = input.udp.expectedResponses;
  if (expected !== undefined && expected > 0) {
    issues.push(
      error(
        'LB_CONFLICT',
        [...path, 'udp', 'expectedResponses'],
        'perPacket carries no replies to wait for',
        {
          found: String(expected),
          expected: '0, or no perPacket',
        },
      ),
    );
  }
  if (input.symmetric) {
    issues.push(
      warning(
        'LB_NO_EFFECT',
        [...path, 'symmetric'],
        '"symmetric" has no effect on datagrams under perPacket',
      ),
    );
  }
  if (input.distribution !== undefined) {
    issues.push(
      warning(
        'LB_NO_EFFECT',
        [...path, 'distribution'],
        '"distribution" has no effect on datagrams under perPacket',
      ),
    );
  }
  return issues;
}

function rebalanceNotes(plane: PlaneDraft, rule: BoundRule): Issue[] {
  const { path, protocols } = rule;
  const policy = flowPolicyOf(rule);
  const triggers = FLOW_TRIGGERS.filter((trigger) => policy[trigger].tcp === 'rebalance');
  if (!protocols.includes('tcp') || triggers.length === 0) return [];
  const what = `For TCP, rebalance on ${triggers.join(', ')}`;
  if (plane.kind === 'kernel' && plane.options?.mode !== 'nat') {
    const reason =
      'It resets a connection that it does not know, unless it shares its sessions with the others';
    return [
      note(
        'LB_REBALANCE_MOVES',
        [...path, 'flowPolicy'],
        `${what} sends the next packets to another backend`,
        {
          reason,
        },
      ),
    ];
  }
  const message = `${what} means reset`;
  const reason =
    plane.kind === 'kernel'
      ? 'Another backend does not know a connection that conntrack translated for this one'
      : 'A spliced TCP stream cannot be moved to another backend';
  return [note('LB_REBALANCE_RESETS', [...path, 'flowPolicy'], message, { reason })];
}

function dropNotes({ path, input, protocols }: BoundRule): Issue[] {
  if (!protocols.includes('tcp') || input.allDown !== 'drop') return [];
  const message = 'For TCP, drop means accepted, never answered, and closed at the embryonic timeout';
  const reason = 'The kernel completes the handshake before haports sees the connection';
  return [note('LB_DROP_ACCEPTS', [...path, 'allDown'], message, { reason })];
}

/** Linux's default net.ipv4.ip_local_port_range: what the kernel chooses from. */
const EPHEMERAL_PORTS: PortSet = parsePortSet('32768-60999') ?? [];

const REASON = 'A port that haports listens on cannot be the source of a connection to a backend';

/** Local addresses of upstream connections and probes whose ports the listeners have taken. */
export function sourceIssues(
  draft: Draft,
  rules: readonly BoundRule[],
  ownAddresses: readonly IpAddress[],
): readonly Issue[] {
  const { plane } = draft;
  // What is not floating, the kernel tells from answers to this machine by conntrack.
  if (plane.kind === 'kernel' && (plane.options === undefined || !isFloating(plane.options))) return [];
  const taken = (address: IpAddress, protocols: readonly Protocol[]): PortSet =>
    rules
      .filter((rule) => rule.protocols.some((protocol) => protocols.includes(protocol)))
      .filter((rule) => reaches(rule.frontend.value.address, address, ownAddresses))
      .reduce<PortSet>((ports, rule) => unionPorts(ports, rule.ports), []);

  const check = (
    path: Path,
    address: IpAddress,
    wanted: PortSet,
    protocols: readonly Protocol[],
  ): Issue[] => {
    const lost = portSetSize(intersectPorts(wanted, taken(address, protocols)));
    if (lost === 0) return [];
    const found = `"${address.text}"`;
    if (lost < portSetSize(wanted)) {
      const message = `Listeners take ${lost} of the source ports of ${address.text}`;
      return [warning('LB_SOURCE_PORTS', path, message, { found, reason: REASON })];
    }
    const message = `Listeners take every source port of ${address.text}`;
    const expected = 'a local address that no rule listens on with all ports';
    return [error('LB_SOURCE_PORTS', path, message, { found, expected, reason: REASON })];
  };

  return [
    ...draft.pools.flatMap(({ path, value: pool }) =>
      pool.sourceAddresses.flatMap((address, index) =>
        check([...path, 'sourceAddresses', index], address, pool.sourcePorts, protocolsOf(pool.name, rules)),
      ),
    ),
    ...draft.probes.flatMap(({ path, value: { sourceAddress } }) =>
      sourceAddress === undefined
        ? []
        : check([...path, 'sourceAddress'], sourceAddress, EPHEMERAL_PORTS, ['tcp']),
    ),
    ...sourceNeeded(draft, rules),
  ];
}

function protocolsOf(pool: string, rules: readonly BoundRule[]): readonly Protocol[] {
  return rules.filter((rule) => rule.pool.value.name === pool).flatMap((rule) => rule.protocols);
}

/** Bound on one address, all ports are gone for sockets without a local address of their own (measured, Linux 6). Captured ports are not bound, nor are those of the kernel data plane. */
function sourceNeeded(draft: Draft, rules: readonly BoundRule[]): Issue[] {
  if (draft.plane.kind === 'kernel' || draft.root.dataPlane.capture?.fallback === 'none') return [];
  const hog = rules.find(
    (rule) =>
      rule.protocols.includes('tcp') &&
      portSetSize(intersectPorts(EPHEMERAL_PORTS, rule.ports)) === portSetSize(EPHEMERAL_PORTS),
  );
  if (hog === undefined) return [];
  const missing: (readonly [Path, string])[] = [
    ...draft.pools
      .filter(({ value: pool }) => pool.sourceAddresses.length === 0)
      .map(({ path, value: pool }) => [path, `Pool "${pool.name}" has no sourceAddresses`] as const),
    ...draft.probes
      .filter(({ value: probe }) => probe.sourceAddress === undefined)
      .map(({ path, value: probe }) => [path, `Probe "${probe.name}" has no sourceAddress`] as const),
  ];
  return missing.map(([path, what]) =>
    warning('LB_SOURCE_NEEDED', path, `${what}, and rule "${hog.input.name}" listens on every port`, {
      expected: 'a local address that no rule listens on',
      reason:
        'With all ports bound the kernel finds none for a connection that has no address of its own (EADDRNOTAVAIL)',
    }),
  );
}

/** Who could reach the admin API, and whether anybody could. */
export function adminIssues({ root: { admin } }: Draft): readonly Issue[] {
  if (admin === undefined) return [];
  const { socket, http, tls, token } = admin;
  if (http === undefined) {
    const idle = (['tls', 'token'] as const).filter((key) => admin[key] !== undefined);
    return [
      ...(socket === undefined
        ? [
            error('LB_MISSING_KEY', ['admin'], 'The admin API can be reached nowhere', {
              found: 'neither "socket" nor "http"',
              expected: '"socket", "http" or both',
            }),
          ]
        : []),
      ...idle.map((key) =>
        warning('LB_NO_EFFECT', ['admin', key], `"${key}" has no effect without "http"`, {
          reason: 'The Unix socket is guarded by its mode, 0600, and by nothing else',
        }),
      ),
    ];
  }
  const missing = [...(tls === undefined ? ['tls'] : []), ...(token === undefined ? ['token'] : [])];
  if (isLoopback(http.address) || missing.length === 0) return [];
  const place = formatEndpoint(http.address, http.port);
  return [
    error('LB_ADMIN_EXPOSED', ['admin', 'http'], `The admin API would be open to others on ${place}`, {
      found: `"${place}" without ${missing.join(' and ')}`,
      expected: 'a loopback address such as "127.0.0.1:9901", or both "tls" and "token"',
      reason: 'Whoever reaches the admin API can drain every backend and replace the configuration',
    }),
  ];
}
