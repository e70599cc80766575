import {
  cidrsOverlap,
  compareAddresses,
  isWildcard,
  type Cidr,
  type IpAddress,
} from '../../model/address.js';
import { formatDuration } from '../../model/configuration.js';
import { flowPolicyOf, idleTimeoutOf, type BoundRule } from '../bind-rules.js';
import type { Draft } from '../draft.js';
import { error, note, warning, type Issue, type Path } from '../findings.js';
import type { FrontendInput, KernelInput } from '../schema.js';

export const KERNEL: Path = ['dataPlane', 'kernel'];

/** Whether packets reach backends with the frontend's address on them. */
export function isFloating({ mode }: KernelInput): boolean {
  return mode === 'floating-l2' || mode === 'floating-routed';
}

/** Options of the kernel data plane that do not go with its mode, with one another, or with this machine. */
export function kernelIssues(
  draft: Draft,
  rules: readonly BoundRule[],
  ownAddresses: readonly IpAddress[],
): readonly Issue[] {
  const { plane } = draft;
  if (plane.kind === 'userspace') return strayOptions(draft);
  const { options } = plane;
  if (options === undefined) return captureConflict(draft);
  return [
    ...captureConflict(draft),
    ...interfaceIssues(options),
    ...returnIssues(draft, options),
    ...stateIssues(options),
    ...spokeIssues(draft, options, rules),
    ...ownFrontends(draft, options, ownAddresses),
  ];
}

function strayOptions({ given }: Draft): Issue[] {
  if (!given(KERNEL)) return [];
  const message = '"kernel" has no effect on the userspace data plane';
  return [
    warning('LB_NO_EFFECT', KERNEL, message, { atKey: true, expected: 'kind "kernel", or no "kernel"' }),
  ];
}

function captureConflict({ given }: Draft): Issue[] {
  const path = ['dataPlane', 'capture'];
  if (!given(path)) return [];
  return [
    error('LB_CONFLICT', path, 'The kernel data plane has no sockets that ports could be steered to', {
      atKey: true,
      expected: 'kind "userspace", or no "capture"',
      reason: 'It takes every port of a frontend as it is',
    }),
  ];
}

function interfaceIssues({ mode, interface: name }: KernelInput): Issue[] {
  if (mode !== 'floating-l2' || name !== undefined) return [];
  return [
    error(
      'LB_MISSING_KEY',
      [...KERNEL, 'interface'],
      'Missing key "interface", needed with mode floating-l2',
      {
        expected: 'the name of the interface where flows arrive',
        reason: 'Packets are turned round where they come in, before anything else sees them',
      },
    ),
  ];
}

function returnIssues({ given }: Draft, { mode, returnPath }: KernelInput): Issue[] {
  const path = [...KERNEL, 'returnPath'];
  if (mode !== 'nat') {
    if (returnPath === 'route') return [];
    return [
      error('LB_KERNEL_MODE', path, `With mode ${mode} no address is changed, so none can be hidden`, {
        found: '"masquerade"',
        expected: '"route", or mode "nat"',
      }),
    ];
  }
  const at = given(path) ? path : ['dataPlane', 'kind'];
  if (returnPath === 'masquerade') {
    return [
      note('LB_KERNEL_MASQUERADE', at, "Backends see this machine's address instead of the client's", {
        reason:
          'Each backend port then takes at most about 64,000 flows, one for each source port of this machine',
      }),
    ];
  }
  return [
    note('LB_KERNEL_RETURN', at, 'Backends must route their answers back through this machine', {
      expected: 'this machine as their gateway to the clients, or returnPath "masquerade"',
      reason:
        'Only here the frontend\'s address is put back on answers; "haports doctor" checks the way back',
    }),
  ];
}

function stateIssues({ mode, flowState }: KernelInput): Issue[] {
  if (mode !== 'nat' || flowState === 'pinned') return [];
  return [
    error('LB_KERNEL_MODE', [...KERNEL, 'flowState'], 'With mode nat every flow has an entry in conntrack', {
      found: '"stateless"',
      expected: '"pinned", or another mode',
      reason: 'Answers could not be told from other traffic without one',
    }),
  ];
}

function spokeIssues(draft: Draft, options: KernelInput, rules: readonly BoundRule[]): Issue[] {
  const { mode, flowState, spokes } = options;
  const path = [...KERNEL, 'spokes'];
  if (mode !== 'next-hop') {
    if (!draft.given(path)) return [];
    return [note('LB_KERNEL_NO_EFFECT', path, `"spokes" has no effect with mode ${mode}`, { atKey: true })];
  }
  const issues = overlappingSpokes(path, spokes);
  if (spokes.length === 0 && flowState === 'pinned') return issues;
  for (const family of new Set(rules.map(({ frontend }) => frontend.value.address.family))) {
    const count = spokes.filter(({ address }) => address.family === family).length;
    if (count >= 2) continue;
    issues.push(
      error('LB_KERNEL_SPOKES', path, `Traffic runs between spokes, and ${count} of them is IPv${family}`, {
        found: `${count}`,
        expected: `at least two IPv${family} blocks${flowState === 'pinned' ? ', or no spokes at all' : ''}`,
        reason:
          flowState === 'pinned'
            ? 'With spokes, only what goes from one to another is balanced'
            : 'Without flow state the order of the spokes tells which direction is hashed the other way round',
      }),
    );
  }
  return issues;
}

function overlappingSpokes(path: Path, spokes: readonly Cidr[]): Issue[] {
  return spokes.flatMap((spoke, index) => {
    const earlier = spokes.slice(0, index).find((other) => cidrsOverlap(other, spoke));
    if (earlier === undefined) return [];
    return [
      error('LB_KERNEL_SPOKES', [...path, index], `Spokes ${earlier.text} and ${spoke.text} overlap`, {
        found: `"${spoke.text}"`,
        expected: 'blocks that have no address in common',
        reason: 'An address belongs to one spoke, or its flows could be taken for those of another',
      }),
    ];
  });
}

/** Policy routing is asked after the table of local addresses. */
function ownFrontends(draft: Draft, { mode }: KernelInput, ownAddresses: readonly IpAddress[]): Issue[] {
  if (mode !== 'floating-routed') return [];
  return draft.frontends
    .filter(({ value }) => ownAddresses.some((own) => compareAddresses(own, value.address) === 0))
    .map(({ path, value: { name, address } }) =>
      error('LB_KERNEL_ADDRESS', [...path, 'address'], `Frontend "${name}" is an address of this machine`, {
        found: `"${address.text}"`,
        expected: 'an address that is routed to this machine, and that only backends have',
        reason: 'What this machine takes for itself it does not route on',
      }),
    );
}

/** How long stateful firewalls commonly remember an idle TCP flow: PAN-OS and FortiOS by default. */
const APPLIANCE_IDLE_MS = 3_600_000;

/** Rules and what they name that the kernel data plane, or its mode, cannot serve as they are written. */
export function kernelRuleIssues(draft: Draft, rules: readonly BoundRule[]): readonly Issue[] {
  if (draft.plane.kind === 'userspace') return [];
  const { options } = draft.plane;
  return [
    ...kernelAddressIssues(draft, rules),
    ...idleSeconds(draft),
    ...rules.flatMap((rule) => [...streamIssues(rule), ...socketNotes(draft, rule)]),
    ...(options === undefined
      ? []
      : [
          ...rules.flatMap((rule) => [
            ...floatingIssues(options, rule),
            ...portIssues(options, rule),
            ...answerIssues(options, rule),
            ...symmetryNotes(options, rule),
            ...applianceNotes(options, rule),
          ]),
        ]),
  ];
}

/** Conntrack and the timeouts of sets count in seconds. */
function idleSeconds({ frontends, rules }: Draft): Issue[] {
  return [...frontends, ...rules].flatMap(({ path, value: { idleTimeout } }) =>
    (['tcp', 'udp'] as const).flatMap((protocol) => {
      const ms = idleTimeout?.[protocol];
      if (ms === undefined || ms % 1000 === 0) return [];
      const found = formatDuration(ms);
      return [
        error('LB_VALUE', [...path, 'idleTimeout', protocol], `Expected whole seconds, found ${found}`, {
          found: `"${found}"`,
          expected: 'whole seconds',
          reason: 'The kernel counts idle times in seconds',
        }),
      ];
    }),
  );
}

/** What is about single datagrams or about what is in a stream. */
function streamIssues({ path, input }: BoundRule): Issue[] {
  const issues: Issue[] = [];
  if (input.udp?.perPacket === true) {
    issues.push(
      cannot(
        [...path, 'udp', 'perPacket'],
        'The kernel data plane balances flows, not single datagrams',
        'no "perPacket"',
      ),
    );
  }
  if (input.udp?.expectedResponses !== undefined) {
    issues.push(
      cannot(
        [...path, 'udp', 'expectedResponses'],
        'The kernel data plane cannot end a flow by the number of its answers',
        'no "expectedResponses", and a short idleTimeout',
      ),
    );
  }
  return issues;
}

function socketNotes({ given }: Draft, { path, input }: BoundRule): Issue[] {
  const noSockets = 'No socket of this process is on the way';
  return [
    ...(['noDelay', 'keepAlive'] as const)
      .filter((key) => given([...path, 'tcp', key]))
      .map((key) => noEffect([...path, 'tcp', key], noSockets)),
    ...(input.tcpReset === false
      ? [
          noEffect(
            [...path, 'tcpReset'],
            'No FIN can be sent for others: an idle flow is forgotten without a word',
          ),
        ]
      : []),
  ];
}

function floatingIssues(options: KernelInput, { path, input, pool }: BoundRule): Issue[] {
  const at = [...path, 'floatingIp'];
  if (options.mode === 'next-hop') {
    if (!input.floatingIp) return [];
    return [noEffect(at, 'With mode next-hop destinations are never changed')];
  }
  if (input.floatingIp !== isFloating(options)) {
    return [
      error('LB_KERNEL_MODE', at, `floatingIp ${input.floatingIp} does not go with mode ${options.mode}`, {
        found: String(input.floatingIp),
        expected: input.floatingIp
          ? 'false, or mode "floating-l2" or "floating-routed"'
          : 'true, or mode "nat"',
        reason: input.floatingIp
          ? 'With mode nat packets are addressed to the backend'
          : "With a floating mode packets keep the frontend's address",
      }),
    ];
  }
  if (!input.floatingIp) return [];
  const message = `Each backend of pool "${pool.value.name}" needs the address of frontend "${input.frontend}" on a loopback interface`;
  const reason = 'Packets reach it with that address; "haports doctor" tests it and prints the commands';
  return [note('V18', at, message, { reason })];
}

function portIssues(options: KernelInput, { path, input, portOffset }: BoundRule): Issue[] {
  if (options.mode === 'nat' || portOffset === 0) return [];
  return [
    error('LB_KERNEL_MODE', [...path, 'backendPort'], `With mode ${options.mode} the port cannot change`, {
      found: String(input.backendPort),
      expected: '0 (the same port), or mode "nat"',
      reason: 'Packets reach the backend as they are',
    }),
  ];
}

function answerIssues(options: KernelInput, { path, input, protocols, haPorts }: BoundRule): Issue[] {
  if (!protocols.includes('udp')) return [];
  const at = [...path, 'udp', 'answersFrom'];
  const asked = input.udp?.answersFrom;
  if (options.mode !== 'nat') {
    if (asked === undefined) return [];
    return [noEffect(at, `With mode ${options.mode} answers are never held against the requests`)];
  }
  if (asked === 'address') {
    return [
      cannot(
        at,
        'The kernel data plane takes answers for those of a flow only from the port that was asked',
        '"endpoint"',
        'Conntrack knows a flow by both its ports',
      ),
    ];
  }
  if (asked !== undefined || !haPorts || input.distribution !== 'source-ip') return [];
  const message = 'Backends may answer only from the port they were asked on';
  const reason =
    'Conntrack knows a flow by both its ports; the userspace data plane takes any port by default here';
  return [note('LB_KERNEL_ANSWERS', [...path, 'distribution'], message, { reason })];
}

function symmetryNotes({ mode }: KernelInput, { path, input }: BoundRule): Issue[] {
  if (!input.symmetric || mode === 'next-hop') return [];
  const reason =
    mode === 'nat'
      ? 'Conntrack keeps both directions of a flow on one backend, however it is hashed'
      : 'Answers go from the backend to the client and do not pass through here';
  return [noEffect([...path, 'symmetric'], reason)];
}

/** Appliances remember flows, and one that did not see the beginning of a flow drops the rest. */
function applianceNotes({ mode, flowState }: KernelInput, rule: BoundRule): Issue[] {
  if (mode !== 'next-hop' || !rule.protocols.includes('tcp')) return [];
  const issues: Issue[] = [];
  if (flowPolicyOf(rule)['probe-down'].tcp === 'persist') {
    issues.push(
      note(
        'LB_KERNEL_APPLIANCE',
        [...rule.path, 'flowPolicy'],
        'TCP flows stay on an appliance that is down',
        {
          expected: '"firewall", which resets them so that clients connect anew',
          reason: 'No other stateful appliance would take them over',
        },
      ),
    );
  }
  const idle = idleTimeoutOf(rule, 'tcp');
  if (flowState === 'pinned' && idle.value < APPLIANCE_IDLE_MS) {
    const found = formatDuration(idle.value);
    const path = idle.origin === 'frontend' ? rule.frontend.path : rule.path;
    issues.push(
      note(
        'LB_KERNEL_IDLE',
        [...path, 'idleTimeout', 'tcp'],
        `A TCP flow is forgotten after ${found} of silence`,
        {
          found,
          expected: `at least as long as the appliances remember it, often ${formatDuration(APPLIANCE_IDLE_MS)}`,
          reason: 'Its next packet is refused then, though its appliance may still know the connection',
        },
      ),
    );
  }
  return issues;
}

/** Addresses that the kernel data plane, or its mode, cannot steer by. */
export function kernelAddressIssues(draft: Draft, rules: readonly BoundRule[]): readonly Issue[] {
  const options = draft.plane.kind === 'kernel' ? draft.plane.options : undefined;
  return [
    ...zoneIssues(draft),
    ...rules.flatMap(familyIssues),
    ...(options === undefined
      ? []
      : draft.frontends.flatMap(({ path, value }) => [
          ...wildcardIssues(options, [...path, 'address'], value.name, value.address),
          ...accessNotes(options, path, value),
        ])),
  ];
}

/** Marks and maps know addresses, not interfaces. */
function zoneIssues({ frontends, pools }: Draft): Issue[] {
  const zoned = (path: Path, what: string, { text, zone }: IpAddress): Issue[] =>
    zone === undefined
      ? []
      : [
          error('LB_KERNEL_ADDRESS', path, `${what} has an address of one interface only`, {
            found: `"${text}"`,
            expected: 'an address that is not link-local',
            reason:
              'The kernel steers by address alone, and other interfaces may have the same link-local one',
          }),
        ];
  return [
    ...frontends.flatMap(({ path, value: { name, address } }) =>
      zoned([...path, 'address'], `Frontend "${name}"`, address),
    ),
    ...pools.flatMap(({ path, value: pool }) =>
      pool.backends.flatMap(({ address }, index) =>
        zoned([...path, 'backends', index, 'address'], `A backend of pool "${pool.name}"`, address),
      ),
    ),
  ];
}

function wildcardIssues({ mode }: KernelInput, path: Path, name: string, address: IpAddress): Issue[] {
  if ((mode === 'next-hop') === isWildcard(address)) return [];
  const found = `"${address.text}"`;
  if (mode === 'next-hop') {
    return [
      error('LB_KERNEL_MODE', path, `With mode next-hop, frontend "${name}" has no address of its own`, {
        found,
        expected: address.family === 4 ? '"0.0.0.0"' : '"::"',
        reason: 'It stands for the destinations beyond, which packets keep',
      }),
    ];
  }
  return [
    error('LB_KERNEL_MODE', path, `Frontend "${name}" stands for every address of this machine`, {
      found,
      expected: 'a frontend for each address, or mode "next-hop" for destinations beyond',
      reason: "The kernel data plane takes every port of an address away from this machine's own services",
    }),
  ];
}

function familyIssues({ input, frontend, pool }: BoundRule): Issue[] {
  const { family } = frontend.value.address;
  return pool.value.backends.flatMap(({ address }, index) =>
    address.family === family
      ? []
      : [
          error(
            'LB_KERNEL_ADDRESS',
            [...pool.path, 'backends', index, 'address'],
            `Rule "${input.name}" would send IPv${family} packets to an IPv${address.family} address`,
            {
              found: `"${address.text}"`,
              expected: `IPv${family} backends, as frontend "${input.frontend}" is, or kind "userspace"`,
              reason: 'The kernel data plane does not translate between address families',
            },
          ),
        ],
  );
}

/** Pinned, the first packet of a flow alone is asked. */
function accessNotes({ mode, flowState }: KernelInput, path: Path, { allow, deny }: FrontendInput): Issue[] {
  if (mode !== 'next-hop' || flowState !== 'stateless' || allow.length + deny.length === 0) return [];
  const key = allow.length > 0 ? 'allow' : 'deny';
  const message = 'Packets of both directions are held against "allow" and "deny"';
  const reason = 'Without flow state nobody knows which side began a flow';
  return [note('LB_KERNEL_ACCESS', [...path, key], message, { reason })];
}

/**
 * Kernel marks name backends by 16 bits, and 0 stands for none: MOST_BACKENDS of dataplane/kernel/backend-marks.ts, which
 * cannot be imported here.
 */
const MOST_BACKENDS = 65_535;

/** What only a process can do that has each flow in its hands. Where nobody asked for it, nothing is said. */
export function kernelLimitIssues(draft: Draft): readonly Issue[] {
  if (draft.plane.kind === 'userspace') return [];
  return [
    ...proxyIssues(draft),
    ...poolIssues(draft),
    ...backendCount(draft),
    ...capIssues(draft),
    ...idleNotes(draft),
    ...stopNote(draft),
  ];
}

/** An error: without it, users would get something else than they were promised. */
export function cannot(path: Path, message: string, expected: string, reason?: string): Issue {
  return error('LB_KERNEL_CANNOT', path, message, {
    expected: `${expected}, or kind "userspace"`,
    ...(reason === undefined ? {} : { reason }),
  });
}

/** A note: nothing is lost but the option's own effect. */
export function noEffect(path: Path, reason: string): Issue {
  const key = String(path.at(-1));
  const message = `"${key}" has no effect on the kernel data plane`;
  return note('LB_KERNEL_NO_EFFECT', path, message, { atKey: true, reason });
}

const NO_CONNECTION = 'Packets are passed on as they come, and no connection to a backend is opened';

function proxyIssues({ frontends }: Draft): Issue[] {
  return frontends.flatMap(({ path, value: { name, proxyProtocol } }) =>
    proxyProtocol === undefined
      ? []
      : [
          cannot(
            [...path, 'proxyProtocol'],
            `Frontend "${name}" expects PROXY headers, which the kernel data plane cannot read`,
            'no "proxyProtocol"',
            'It balances packets and never looks into streams',
          ),
        ],
  );
}

function poolIssues({ pools, given }: Draft): Issue[] {
  return pools.flatMap(({ path, value: pool }) => {
    const issues: Issue[] = [];
    if (pool.proxyProtocol !== 'none') {
      issues.push(
        cannot(
          [...path, 'proxyProtocol'],
          `Pool "${pool.name}" is to get PROXY headers, which the kernel data plane cannot write`,
          '"none"',
          'Backends see the client\'s address without them, unless returnPath is "masquerade"',
        ),
      );
    }
    if (pool.sourceAddresses.length > 0) {
      issues.push(
        cannot(
          [...path, 'sourceAddresses'],
          `Pool "${pool.name}" is to be reached from addresses of its own`,
          'no "sourceAddresses"',
          'The client stays the source, or with "masquerade" the address of the route to the backend',
        ),
      );
    }
    const capped: Path[] = [
      [...path, 'maxConnections'],
      ...pool.backends.map((_, index): Path => [...path, 'backends', index, 'maxConnections']),
    ];
    issues.push(
      ...capped
        .filter((at) => given(at))
        .map((at) =>
          cannot(
            at,
            'The kernel data plane cannot cap the connections of a backend',
            'no "maxConnections"',
            'A flow is placed by its hash alone, whoever has how many',
          ),
        ),
      ...(['sourcePorts', 'connectTimeout', 'connectAttempts'] as const)
        .filter((key) => given([...path, key]))
        .map((key) => noEffect([...path, key], NO_CONNECTION)),
      ...pool.backends
        .map((_, index): Path => [...path, 'backends', index, 'floatingAddresses'])
        .filter((at) => given(at))
        .map((at) => noEffect(at, "With floating IP the backend has the frontend's address itself")),
    );
    return issues;
  });
}

function backendCount({ pools }: Draft): Issue[] {
  const count = pools.reduce((sum, { value }) => sum + value.backends.length, 0);
  if (count <= MOST_BACKENDS) return [];
  const expected = `at most ${MOST_BACKENDS} in all pools together`;
  return [
    error('LB_VALUE', ['backendPools'], `Expected ${expected}, found ${count} backends`, {
      found: String(count),
      expected,
      reason: 'A backend is told by 16 bits of a packet mark',
    }),
  ];
}

function capIssues({ given }: Draft): Issue[] {
  const refused = (['tcpFlowsPerSource', 'udpFlowsPerSource'] as const)
    .map((key): Path => ['limits', key])
    .filter((path) => given(path))
    .map((path) =>
      cannot(
        path,
        'The kernel data plane cannot cap the flows of one client',
        `no "${String(path[1])}"`,
        'It does not count flows by client',
      ),
    );
  const useless = (['embryonicFlows', 'embryonicTimeout'] as const)
    .map((key): Path => ['limits', key])
    .filter((path) => given(path))
    .map((path) => noEffect(path, NO_CONNECTION));
  const listed = (['tcpFlows', 'udpFlows'] as const)
    .map((key): Path => ['limits', key])
    .filter((path) => given(path))
    .map((path) =>
      note(
        'LB_KERNEL_LIMIT',
        path,
        `"${String(path[1])}" bounds the flows that are listed, not those that pass`,
        {
          atKey: true,
          reason: 'The kernel has limits of its own, net.netfilter.nf_conntrack_max above all',
        },
      ),
    );
  return [...refused, ...useless, ...listed];
}

function idleNotes({ given }: Draft): Issue[] {
  return [
    ...(given(['dataPlane', 'workers'])
      ? [noEffect(['dataPlane', 'workers'], 'It has no data processes: the kernel moves the packets')]
      : []),
    ...(given(['tableSize'])
      ? [noEffect(['tableSize'], 'Its tables have dataPlane.kernel.tableSize slots')]
      : []),
  ];
}

function stopNote({ given, plane }: Draft): Issue[] {
  const keeps = plane.kind === 'kernel' && plane.options?.onStop === 'keep';
  if (!keeps || !given(['shutdown', 'deadline'])) return [];
  const reason = `With ${KERNEL.join('.')}.onStop "keep" no flow ends with this process, so none is waited for`;
  return [noEffect(['shutdown', 'deadline'], reason)];
}
