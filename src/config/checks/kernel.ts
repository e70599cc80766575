import { cidrsOverlap, compareAddresses, isWildcard } from '../../model/address.js';
import type { Rule } from '../../model/configuration.js';
import { formatDuration } from '../../model/duration.js';
import { isFloating, type Draft } from '../resolve.js';
import type { KernelInput } from '../schema.js';
import {
  FRONTENDS,
  LINK_LOCAL_BACKEND,
  LINK_LOCAL_FRONTEND,
  MEMBERS,
  POOLS,
  ROOT,
  RULES,
  TARGETS,
  error,
  idleTimes,
  note,
  warning,
  type Check,
  type Over,
  type Row,
} from './check.js';

/** How long stateful firewalls commonly remember an idle TCP flow: PAN-OS and FortiOS by default. */
const APPLIANCE_IDLE_MS = 3_600_000;

/**
 * Kernel marks name backends by 16 bits, and 0 stands for none: MOST_BACKENDS of planes/kernel/program.ts, which cannot be
 * imported here.
 */
const MOST_BACKENDS = 65_535;

const NO_CONNECTION = 'Packets are passed on as they come, and no connection to a backend is opened';
const NO_SOCKETS = 'No socket of this process is on the way';

/** The options of the kernel data plane, where it was asked for and they are right. */
const OPTIONS = ({ kernel }: Draft): readonly KernelInput[] => (kernel === undefined ? [] : [kernel]);
const BACKENDS = ({ pools }: Draft) => pools.flatMap(({ backends }) => backends);

/** What is looked at only where the kernel data plane was asked for. */
function inKernel<T extends object>(over: Over<T>): Over<T> {
  return (draft) => (draft.plane === 'kernel' ? over(draft) : []);
}

/** What is looked at only in some modes of the kernel data plane. */
function where<T extends object>(fits: (kernel: KernelInput) => boolean, over: Over<T>): Over<T> {
  return (draft) => (draft.kernel !== undefined && fits(draft.kernel) ? over(draft) : []);
}

function ofProtocol(protocol: 'tcp' | 'udp', over: Over<Rule>): Over<Rule> {
  return (draft) => [...over(draft)].filter(({ protocols }) => protocols.includes(protocol));
}

const isNat = ({ mode }: KernelInput) => mode === 'nat';
const isNotNat = ({ mode }: KernelInput) => mode !== 'nat';
const isNextHop = ({ mode }: KernelInput) => mode === 'next-hop';
const isNotNextHop = ({ mode }: KernelInput) => mode !== 'next-hop';

/** An error: without it, users would get something else than they were promised. */
function cannot<T extends object, H = true>(
  over: Over<T>,
  at: string,
  row: Row<T, H> & { readonly expected: string },
): Check {
  const expected = `${row.expected}, or kind "userspace"`;
  return error('LB_KERNEL_CANNOT', inKernel(over), at, { ...row, expected });
}

/** A note: nothing is lost but the option's own effect. */
function noEffect<T extends object>(
  over: Over<T>,
  at: string,
  reason: Row<T, boolean>['reason'] & {},
  when: (item: T, draft: Draft) => boolean = (item, draft) => draft.given(item, ...at.split('.')),
): Check {
  const say = `"${at.slice(at.lastIndexOf('.') + 1)}" has no effect on the kernel data plane`;
  return note('LB_KERNEL_NO_EFFECT', inKernel(over), `@${at}`, { when, say, reason });
}

/** How answers come back: reported at the key, or where it was not written at the kind of data plane. */
function returning(path: KernelInput['returnPath']): Over<object> {
  const key = ['dataPlane', 'kernel', 'returnPath'];
  return where(
    (kernel) => isNat(kernel) && kernel.returnPath === path,
    ({ written }) => [{ at: written.given(key) ? key : ['dataPlane', 'kind'] }],
  );
}

function spokes(draft: Draft) {
  return OPTIONS(draft).flatMap((thing) =>
    thing.spokes.map((spoke, index) => {
      return { thing, at: ['spokes', index], spoke, before: thing.spokes.slice(0, index) };
    }),
  );
}

/** Families of frontends that too few spokes are of. */
function fewSpokes(draft: Draft) {
  return OPTIONS(draft).flatMap((thing) => {
    const isPinned = thing.flowState === 'pinned';
    if (thing.spokes.length === 0 && isPinned) return [];
    return [...new Set(draft.rules.map(({ frontend }) => frontend.address.family))]
      .map((family) => {
        const count = thing.spokes.filter(({ address }) => address.family === family).length;
        return { thing, family, count, isPinned };
      })
      .filter(({ count }) => count < 2);
  });
}

/** Options of the kernel data plane that do not go with its mode, with one another, or with this machine. */
const OPTION_CHECKS = [
  warning('LB_NO_EFFECT', ROOT, '@dataPlane.kernel', {
    when: (root, draft) => draft.plane === 'userspace' && draft.given(root, 'dataPlane', 'kernel'),
    say: '"kernel" has no effect on the userspace data plane',
    expected: 'kind "kernel", or no "kernel"',
  }),
  error('LB_CONFLICT', inKernel(ROOT), '@dataPlane.capture', {
    when: (root, draft) => draft.given(root, 'dataPlane', 'capture'),
    say: 'The kernel data plane has no sockets that ports could be steered to',
    expected: 'kind "userspace", or no "capture"',
    reason: 'It takes every port of a frontend as it is',
  }),
  error('LB_MISSING_KEY', OPTIONS, 'interface', {
    when: (kernel) => kernel.mode === 'floating-l2' && kernel.interface === undefined,
    say: 'Missing key "interface", needed with mode floating-l2',
    expected: 'the name of the interface where flows arrive',
    reason: 'Packets are turned round where they come in, before anything else sees them',
  }),
  error('LB_KERNEL_MODE', where(isNotNat, OPTIONS), 'returnPath', {
    when: ({ returnPath }) => returnPath === 'masquerade',
    say: ({ mode }) => `With mode ${mode} no address is changed, so none can be hidden`,
    expected: '"route", or mode "nat"',
  }),
  note('LB_KERNEL_MASQUERADE', returning('masquerade'), '', {
    say: "Backends see this machine's address instead of the client's",
    reason:
      'Each backend port then takes at most about 64,000 flows, one for each source port of this machine',
  }),
  note('LB_KERNEL_RETURN', returning('route'), '', {
    say: 'Backends must route their answers back through this machine',
    found: () => undefined,
    expected: 'this machine as their gateway to the clients, or returnPath "masquerade"',
    reason:
      'Only here the frontend\'s address is put back on answers; "haports doctor" checks the return path',
  }),
  error('LB_KERNEL_MODE', where(isNat, OPTIONS), 'flowState', {
    when: ({ flowState }) => flowState === 'stateless',
    say: 'With mode nat every flow has an entry in conntrack',
    expected: '"pinned", or another mode',
    reason: 'Without one, answers could not be distinguished from other traffic',
  }),
  note('LB_KERNEL_NO_EFFECT', where(isNotNextHop, OPTIONS), '@spokes', {
    when: (kernel, draft) => draft.given(kernel, 'spokes'),
    say: ({ mode }) => `"spokes" has no effect with mode ${mode}`,
  }),
  error('LB_KERNEL_SPOKES', where(isNextHop, spokes), '', {
    when: ({ spoke, before }) => before.find((other) => cidrsOverlap(other, spoke)),
    say: ({ spoke }, earlier) => `Spokes ${earlier.text} and ${spoke.text} overlap`,
    expected: 'blocks that have no address in common',
    reason: 'An address belongs to one spoke, or its flows could be taken for those of another',
  }),
  error('LB_KERNEL_SPOKES', where(isNextHop, fewSpokes), 'spokes', {
    say: ({ count, family }) => `Traffic runs between spokes, and ${count} of them is IPv${family}`,
    found: ({ count }) => String(count),
    expected: ({ family, isPinned }) =>
      `at least two IPv${family} blocks${isPinned ? ', or no spokes at all' : ''}`,
    reason: ({ isPinned }) =>
      isPinned
        ? 'With spokes, only what goes from one to another is balanced'
        : 'Without flow state the order of the spokes tells which direction is hashed the other way round',
  }),
  // Policy routing is asked after the table of local addresses.
  error(
    'LB_KERNEL_ADDRESS',
    where(({ mode }) => mode === 'floating-routed', FRONTENDS),
    'address',
    {
      when: ({ address }, { ownAddresses }) =>
        ownAddresses.some((own) => compareAddresses(own, address) === 0),
      say: ({ name }) => `Frontend "${name}" is an address of this machine`,
      expected: 'an address that is routed to this machine, and that only backends have',
      reason: 'What this machine takes for itself it does not route on',
    },
  ),
];

/** Frontends whose access lists are asked about packets of both directions. */
function listed(draft: Draft) {
  return draft.frontends
    .filter(({ allow, deny }) => allow.length + deny.length > 0)
    .map((thing) => ({ thing, at: [thing.allow.length > 0 ? 'allow' : 'deny'] }));
}

/** Addresses that the kernel data plane, or its mode, cannot steer by. Marks and maps know addresses, not interfaces. */
const ADDRESS_CHECKS = [
  error('LB_KERNEL_ADDRESS', inKernel(FRONTENDS), 'address', LINK_LOCAL_FRONTEND),
  error('LB_KERNEL_ADDRESS', inKernel(MEMBERS), 'address', LINK_LOCAL_BACKEND),
  error('LB_KERNEL_ADDRESS', inKernel(TARGETS), 'address', {
    when: ({ rule: { frontend }, backend }) => frontend.address.family !== backend.address.family,
    say: ({ rule: { name, frontend }, backend }) =>
      `Rule "${name}" would send IPv${frontend.address.family} packets to an IPv${backend.address.family} address`,
    expected: ({ rule: { frontend } }) =>
      `IPv${frontend.address.family} backends, as frontend "${frontend.name}" is, or kind "userspace"`,
    reason: 'The kernel data plane does not translate between address families',
  }),
  error('LB_KERNEL_MODE', where(isNextHop, FRONTENDS), 'address', {
    when: ({ address }) => !isWildcard(address),
    say: ({ name }) => `With mode next-hop, frontend "${name}" has no address of its own`,
    expected: ({ address }) => (address.family === 4 ? '"0.0.0.0"' : '"::"'),
    reason: 'It stands for the destinations beyond, which packets keep',
  }),
  error('LB_KERNEL_MODE', where(isNotNextHop, FRONTENDS), 'address', {
    when: ({ address }) => isWildcard(address),
    say: ({ name }) => `Frontend "${name}" stands for every address of this machine`,
    expected: 'a frontend for each address, or mode "next-hop" for destinations beyond',
    reason: "The kernel data plane takes every port of an address away from this machine's own services",
  }),
  // Pinned, the first packet of a flow alone is asked.
  note(
    'LB_KERNEL_ACCESS',
    where((kernel) => isNextHop(kernel) && kernel.flowState === 'stateless', listed),
    '',
    {
      say: 'Packets of both directions are held against "allow" and "deny"',
      reason: 'Without flow state it is unknown which side began a flow',
    },
  ),
];

/** Rules, or the frontends that say so for them, that forget TCP flows earlier than appliances do. */
function forgetful({ rules }: Draft) {
  return rules
    .filter(
      ({ protocols, idleTimeoutMs: { tcp } }) => protocols.includes('tcp') && tcp.value < APPLIANCE_IDLE_MS,
    )
    .map((rule) => {
      const { value, origin } = rule.idleTimeoutMs.tcp;
      return { thing: origin === 'frontend' ? rule.frontend : rule, idle: formatDuration(value) };
    });
}

/** Rules that the kernel data plane, or its mode, cannot serve as they are written. */
const RULE_CHECKS = [
  // Conntrack and the timeouts of sets count in seconds.
  error('LB_VALUE', inKernel(idleTimes('tcp', 'udp')), '', {
    when: ({ ms }) => ms % 1000 !== 0 && formatDuration(ms),
    say: (_, idle) => `Expected whole seconds, found ${idle}`,
    expected: 'whole seconds',
    reason: 'The kernel counts idle times in seconds',
  }),
  cannot(RULES, 'udp.perPacket', {
    when: (rule, draft) => draft.input(rule).udp?.perPacket,
    say: 'The kernel data plane balances flows, not single datagrams',
    expected: 'no "perPacket"',
  }),
  cannot(RULES, 'udp.expectedResponses', {
    when: (rule, draft) => draft.given(rule, 'udp', 'expectedResponses'),
    say: 'The kernel data plane cannot end a flow by the number of its answers',
    expected: 'no "expectedResponses", and a short idleTimeout',
  }),
  noEffect(RULES, 'tcp.noDelay', NO_SOCKETS),
  noEffect(RULES, 'tcp.keepAlive', NO_SOCKETS),
  noEffect(
    RULES,
    'tcpReset',
    'No FIN can be sent on behalf of others: an idle flow is dropped silently',
    ({ tcpReset }) => !tcpReset,
  ),
  noEffect(
    where(isNextHop, RULES),
    'floatingIp',
    'With mode next-hop destinations are never changed',
    (rule, draft) => draft.input(rule).floatingIp,
  ),
  error('LB_KERNEL_MODE', where(isNotNextHop, RULES), 'floatingIp', {
    when: ({ floatingIp }, { kernel }) => floatingIp !== isFloating(kernel) && kernel,
    say: ({ floatingIp }, { mode }) => `floatingIp ${floatingIp} does not go with mode ${mode}`,
    expected: ({ floatingIp }) =>
      floatingIp ? 'false, or mode "floating-l2" or "floating-routed"' : 'true, or mode "nat"',
    reason: ({ floatingIp }) =>
      floatingIp
        ? 'With mode nat packets are addressed to the backend'
        : "With a floating mode packets keep the frontend's address",
  }),
  note('V18', where(isFloating, RULES), 'floatingIp', {
    when: ({ floatingIp }) => floatingIp,
    say: ({ pool, frontend }) =>
      `Each backend of pool "${pool.name}" needs the address of frontend "${frontend.name}" on a loopback interface`,
    reason: 'Packets reach it with that address; "haports doctor" tests it and prints the commands',
  }),
  error('LB_KERNEL_MODE', where(isNotNat, RULES), 'backendPort', {
    when: ({ portOffset }, { kernel }) => portOffset !== 0 && kernel,
    say: (_, { mode }) => `With mode ${mode} the port cannot change`,
    expected: '0 (the same port), or mode "nat"',
    reason: 'Packets reach the backend as they are',
  }),
  noEffect(
    ofProtocol('udp', where(isNotNat, RULES)),
    'udp.answersFrom',
    (_, __, { kernel }) => `With mode ${kernel?.mode ?? ''} answers are never held against the requests`,
  ),
  cannot(ofProtocol('udp', where(isNat, RULES)), 'udp.answersFrom', {
    when: (rule, draft) => draft.input(rule).udp?.answersFrom === 'address',
    say: 'The kernel data plane takes answers for those of a flow only from the port that was asked',
    expected: '"endpoint"',
    reason: 'Conntrack knows a flow by both its ports',
  }),
  note('LB_KERNEL_ANSWERS', ofProtocol('udp', where(isNat, RULES)), 'distribution', {
    when: (rule, draft) =>
      rule.haPorts && rule.distribution === 'source-ip' && !draft.given(rule, 'udp', 'answersFrom'),
    say: 'Backends may answer only from the port they were asked on',
    reason:
      'Conntrack knows a flow by both its ports; the userspace data plane takes any port by default here',
  }),
  noEffect(
    where(isNotNextHop, RULES),
    'symmetric',
    (_, __, { kernel }) =>
      kernel?.mode === 'nat'
        ? 'Conntrack keeps both directions of a flow on one backend, however it is hashed'
        : 'Answers go from the backend to the client and do not pass through here',
    ({ symmetric }) => symmetric,
  ),
  // Appliances remember flows, and one that did not see the beginning of a flow drops the rest.
  note('LB_KERNEL_APPLIANCE', ofProtocol('tcp', where(isNextHop, RULES)), 'flowPolicy', {
    when: ({ flowPolicy }) => flowPolicy['probe-down'].tcp === 'persist',
    say: 'TCP flows stay on an appliance that is down',
    expected: '"firewall", which resets them so that clients connect anew',
    reason: 'No other stateful appliance would take them over',
  }),
  note(
    'LB_KERNEL_IDLE',
    where((kernel) => isNextHop(kernel) && kernel.flowState === 'pinned', forgetful),
    'idleTimeout.tcp',
    {
      say: ({ idle }) => `A TCP flow is forgotten after ${idle} of silence`,
      found: ({ idle }) => idle,
      expected: `at least as long as the appliances remember it, often ${formatDuration(APPLIANCE_IDLE_MS)}`,
      reason: 'Its next packet is refused then, though its appliance may still know the connection',
    },
  ),
];

/** What only a process can do that has each flow in its hands. Reported only where it was asked for. */
const LIMIT_CHECKS = [
  cannot(FRONTENDS, 'proxyProtocol', {
    when: ({ proxyProtocol }) => proxyProtocol !== undefined,
    say: ({ name }) => `Frontend "${name}" expects PROXY headers, which the kernel data plane cannot read`,
    expected: 'no "proxyProtocol"',
    reason: 'It balances packets and never looks into streams',
  }),
  cannot(POOLS, 'proxyProtocol', {
    when: ({ proxyProtocol }) => proxyProtocol !== 'none',
    say: ({ name }) => `Pool "${name}" is to get PROXY headers, which the kernel data plane cannot write`,
    expected: '"none"',
    reason: 'Backends see the client\'s address without them, unless returnPath is "masquerade"',
  }),
  cannot(POOLS, 'sourceAddresses', {
    when: ({ sourceAddresses }) => sourceAddresses.length > 0,
    say: ({ name }) => `Pool "${name}" is to be reached from addresses of its own`,
    expected: 'no "sourceAddresses"',
    reason: 'The client stays the source, or with "masquerade" the address of the route to the backend',
  }),
  ...[POOLS, BACKENDS].map((over) =>
    cannot<object>(over, 'maxConnections', {
      when: (thing, draft) => draft.given(thing, 'maxConnections'),
      say: 'The kernel data plane cannot cap the connections of a backend',
      expected: 'no "maxConnections"',
      reason: 'A flow is placed by its hash alone, no matter how many each backend has',
    }),
  ),
  noEffect(POOLS, 'sourcePorts', NO_CONNECTION),
  noEffect(POOLS, 'connectTimeout', NO_CONNECTION),
  noEffect(POOLS, 'connectAttempts', NO_CONNECTION),
  noEffect(BACKENDS, 'floatingAddresses', "With floating IP the backend has the frontend's address itself"),
  error('LB_VALUE', inKernel(ROOT), 'backendPools', {
    when: (_, draft) => BACKENDS(draft).length > MOST_BACKENDS && BACKENDS(draft).length,
    say: (_, count) => `Expected at most ${MOST_BACKENDS} in all pools together, found ${count} backends`,
    found: (_, count) => String(count),
    expected: `at most ${MOST_BACKENDS} in all pools together`,
    reason: 'A packet mark has 16 bits for the backend',
  }),
  ...['tcpFlowsPerSource', 'udpFlowsPerSource'].map((key) =>
    cannot(ROOT, `limits.${key}`, {
      when: (root, draft) => draft.given(root, 'limits', key),
      say: 'The kernel data plane cannot cap the flows of one client',
      expected: `no "${key}"`,
      reason: 'It does not count flows by client',
    }),
  ),
  noEffect(ROOT, 'limits.embryonicFlows', NO_CONNECTION),
  noEffect(ROOT, 'limits.embryonicTimeout', NO_CONNECTION),
  ...['tcpFlows', 'udpFlows'].map((key) =>
    note('LB_KERNEL_LIMIT', inKernel(ROOT), `@limits.${key}`, {
      when: (root, draft) => draft.given(root, 'limits', key),
      say: `"${key}" bounds the flows that are listed, not those that pass`,
      reason: 'The kernel has limits of its own, net.netfilter.nf_conntrack_max above all',
    }),
  ),
  noEffect(ROOT, 'dataPlane.workers', 'It has no data processes: the kernel moves the packets'),
  noEffect(ROOT, 'tableSize', 'Its tables have dataPlane.kernel.tableSize slots'),
  noEffect(
    where(({ onStop }) => onStop === 'keep', ROOT),
    'shutdown.deadline',
    'With dataPlane.kernel.onStop "keep" no flow ends with this process, so none is waited for',
  ),
];

export const KERNEL_CHECKS = [...OPTION_CHECKS, ...LIMIT_CHECKS, ...ADDRESS_CHECKS, ...RULE_CHECKS];
