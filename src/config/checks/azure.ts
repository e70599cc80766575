import { cidrContains, isWildcard, parseCidr, type Cidr, type IpAddress } from '../../model/address.js';
import type { Rule } from '../../model/configuration.js';
import { formatDuration } from '../../model/duration.js';
import { portSetContains } from '../../model/ports.js';
import { shiftPorts, type Draft } from '../resolve.js';
import {
  MEMBERS,
  POOLS,
  PROBES,
  RULES,
  TARGETS,
  azureOnly,
  error,
  idleTimes,
  note,
  pairs,
  warning,
} from './check.js';
import { commonPorts, dialled } from './listeners.js';

/*
 * Azure's HA-ports rules, V1 to V20. The whole configuration stands for one load balancer resource; where a rule of
 * Azure's speaks of things that no configuration holds (other resources, networks, interfaces), its check does what can
 * be decided and says so.
 */

/** Not on the public Internet: RFC 1918, RFC 6598, RFC 3927, RFC 4193, RFC 4291 and loopback. */
const PRIVATE_BLOCKS: readonly Cidr[] = [
  ...['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', '169.254.0.0/16', '127.0.0.0/8'],
  ...['fc00::/7', 'fe80::/10', '::1'],
].flatMap((text) => parseCidr(text) ?? []);

/** Whether an address could only belong to a public load balancer. */
function isPublic(address: IpAddress): boolean {
  return !isWildcard(address) && !isIn(PRIVATE_BLOCKS, address);
}

function isIn(blocks: readonly Cidr[], address: IpAddress): boolean {
  return blocks.some((block) => cidrContains(block, address));
}

/** Independent under dual stack: another family on another pool (Azure: separate frontends and pools). */
function apart(a: Rule, b: Rule): boolean {
  return a.frontend.address.family !== b.frontend.address.family && a.pool !== b.pool;
}

const HA_RULES = ({ rules }: Draft) => rules.filter(({ haPorts }) => haPorts);
const FIXED_HA_RULES = (draft: Draft) => HA_RULES(draft).filter((rule) => !draft.input(rule).floatingIp);
const FLOATING_HA_RULES = (draft: Draft) => HA_RULES(draft).filter((rule) => draft.input(rule).floatingIp);

const bothHa = (a: Rule, b: Rule) => a.haPorts && b.haPorts;
const mixed = (a: Rule, b: Rule) => a.haPorts !== b.haPorts;
const bothFloat = (a: Rule, b: Rule, draft: Draft) => draft.input(a).floatingIp && draft.input(b).floatingIp;
const bothRules = ({ rule, earlier }: { readonly rule: Rule; readonly earlier: Rule }) =>
  `Rules "${earlier.name}" and "${rule.name}"`;

/** Ports that Azure does not probe by HTTP. */
const FORBIDDEN_HTTP_PORTS: ReadonlySet<number> = new Set([19, 21, 25, 70, 110, 119, 143, 220, 993]);

/** Of load-balancing rules. Outbound rules have 4 to 120 minutes, but haports has no outbound rules. */
const MINIMUM_MS = 4 * 60_000;
const MAXIMUM_MS = 100 * 60_000;

/** Whether flows of both rules end on the same port of a backend. HA-ports rules are left to V4, V6, V8 and V9. */
function meetAtMember(a: Rule, b: Rule, draft: Draft): boolean {
  const atMember = ({ protocols, ports, portOffset }: Rule) => ({
    protocols,
    ports: shiftPorts(ports, portOffset),
  });
  if (a.haPorts || b.haPorts || commonPorts(atMember(a), atMember(b)) === undefined) return false;
  const addresses = (rule: Rule) => {
    const { floatingIp } = draft.input(rule);
    // In the kernel the frontend's own address, which is another for each frontend.
    if (floatingIp && draft.plane === 'kernel') return [];
    return rule.pool.backends.flatMap((backend) => dialled(rule, backend, floatingIp)?.text ?? []);
  };
  const there = new Set(addresses(b));
  return addresses(a).some((address) => there.has(address));
}

/** In the order of their numbers. */
export const AZURE_CHECKS = [
  // HA ports is protocol all, frontend port 0 and backend port 0; Azure refuses any other mix of all and 0. Frontend
  // port 0 with a backend port makes no sense anywhere and is refused where ports are worked out.
  azureOnly('V1', RULES, '', {
    when: (rule, draft) => {
      const { frontendPort, backendPort } = draft.input(rule);
      const { protocols, haPorts } = rule;
      const all = protocols.length === 2;
      if (all === haPorts && haPorts === (backendPort === 0)) return undefined;
      return `${all ? 'all' : protocols.join()}, ${frontendPort?.first ?? 0}, ${backendPort}`;
    },
    say: (_, found) =>
      `Protocol, frontendPort and backendPort are ${found}: Azure has all, 0, 0 or none of them`,
    found: (_, found) => found,
    expected: 'protocol all, frontendPort 0 and backendPort 0 together, or none of them',
    reason: 'Azure takes protocol All and port 0 only together, as an HA-ports rule',
  }),
  // On internal frontends only. That a gateway load balancer has nothing else cannot be seen from here.
  azureOnly('V2', HA_RULES, '', {
    when: ({ frontend }) => isPublic(frontend.address),
    say: ({ frontend }) => `HA-ports rule on the public address ${frontend.address.text}`,
    expected: 'a frontend with a private address',
    reason: 'Azure has HA ports on internal load balancers only',
  }),
  // Two with common ports are refused anyway.
  azureOnly(
    'V3',
    pairs((a, b) => bothHa(a, b) && a.frontend === b.frontend),
    '',
    {
      say: ({ rule, earlier }) =>
        `Frontend "${rule.frontend.name}" already has HA-ports rule "${earlier.name}"`,
      expected: 'one HA-ports rule for each frontend',
      reason: 'Azure allows one HA-ports rule for each internal frontend',
    },
  ),
  // Reported once, on the first such rule. Other load balancers in front of the same backends cannot be seen from here.
  azureOnly('V4', firstWithOthers, '', {
    say: ({ name }) => `HA-ports rule "${name}" without floating IP is not the only rule`,
    expected: 'no other rule, or floatingIp on all of them',
    reason: 'On Azure a non-floating HA-ports rule must be the only rule of its load balancer',
  }),
  azureOnly('V5', FIXED_HA_RULES, '', {
    when: (rule, draft) =>
      FLOATING_HA_RULES(draft)
        .slice(0, 1)
        .find((floating) => !apart(rule, floating)),
    say: ({ name }, floating) => `HA-ports rule "${name}" is not floating but "${floating.name}" is`,
    expected: 'floatingIp true on every HA-ports rule',
    reason: 'Azure refuses a non-floating HA-ports rule on top of a floating one',
  }),
  azureOnly('V6', pairs(onePoolTwice), '', {
    say: ({ rule, earlier }) => `Pool "${rule.pool.name}" already has HA-ports rule "${earlier.name}"`,
    expected: 'a frontend of its own and floatingIp true for each HA-ports rule of a pool',
    reason: 'Without floating IP Azure could not tell at the backend which frontend a packet came by',
  }),
  // A configuration that has both stands for two resources, which Azure allows; whether there are more cannot be seen.
  note('V7', RULES, '', {
    when: ({ frontend, pool }, draft) =>
      isPublic(frontend.address) &&
      HA_RULES(draft).find((other) => other.pool === pool && !isPublic(other.frontend.address)),
    say: ({ name }, internal) => `Rule "${name}" is public and "${internal.name}" internal, for one pool`,
    reason: 'On Azure these are two load balancers, and there may be exactly one of each kind',
  }),
  azureOnly('V8', pairs(mixedOnFrontend), '', {
    say: (pair) => `${bothRules(pair)} mix HA ports and named ports on one frontend and pool`,
    expected: 'floatingIp true on both',
    reason: 'Azure allows the mix only with floating IP on both; haports lets the HA-ports rule yield',
  }),
  // The preview's wording. That an interface with a non-floating HA-ports rule carries nothing else is V4 and V6.
  azureOnly(
    'V9',
    pairs((a, b) => mixed(a, b) && a.pool === b.pool && a.frontend !== b.frontend),
    '',
    {
      say: (pair) => `${bothRules(pair)} mix HA ports and named ports on pool "${pair.rule.pool.name}"`,
      expected: 'a pool of its own for each kind',
      reason: 'Azure does not mix HA-ports and other rules on one backend pool',
    },
  ),
  azureOnly('V10', pairs(meetAtMember), '', {
    say: (pair) => `${bothRules(pair)} meet at the same address and port of a backend`,
    expected: 'another backendPort, or floatingIp',
    reason: 'On Azure every rule must lead to a destination address and port of its own at the backend',
  }),
  warning('V11', MEMBERS, 'adminState', {
    when: ({ pool, backend }, { rules }) =>
      backend.adminState !== 'none' && rules.find((rule) => rule.pool === pool && rule.probe === undefined),
    say: ({ backend }, { name }) =>
      `Admin state ${backend.adminState} on a backend of rule "${name}", which has no probe`,
    expected: 'a probe on the rule',
    reason: 'On Azure admin state has no effect without a probe; haports honours it',
  }),
  warning('V12', RULES, '', {
    when: ({ probe }) => probe === undefined,
    say: ({ name }) => `Rule "${name}" has no probe`,
    expected: 'a probe',
    reason: 'All its backends count as up, dead ones too',
  }),
  warning('V12', HA_RULES, 'probe', {
    when: ({ probe, protocols, ports, portOffset }) =>
      probe && protocols.includes('tcp') && portSetContains(ports, probe.port - portOffset) && probe,
    say: ({ name }, probe) => `Rule "${name}" also forwards port ${probe.port} of its probe "${probe.name}"`,
    expected: 'a probe port outside the rule',
    reason: 'An appliance that forwards the probe port lets something behind it answer for it',
  }),
  azureOnly('V13', PROBES, 'port', {
    when: ({ protocol, port }) => protocol !== 'tcp' && FORBIDDEN_HTTP_PORTS.has(port),
    say: ({ name, port }) => `HTTP probe "${name}" on port ${port}`,
    expected: `a port other than ${[...FORBIDDEN_HTTP_PORTS].join(', ')}`,
    reason: 'Azure does not probe these ports by HTTP',
  }),
  azureOnly('V14', idleTimes('tcp'), '', {
    when: ({ ms }) => (ms < MINIMUM_MS || ms > MAXIMUM_MS) && formatDuration(ms),
    say: (_, idle) => `TCP idle timeout ${idle} is outside 4m to 100m`,
    found: (_, idle) => idle,
    expected: '4m to 100m',
    reason: 'Azure has idle timeouts from 4 to 100 minutes',
  }),
  ...(['azure', 'none'] as const).map((compat) =>
    (compat === 'azure' ? warning : note)('V14', idleTimes('udp'), '', {
      when: ({ ms }, { root }) => root.compat === compat && formatDuration(ms),
      say: (_, idle) => `UDP idle timeout ${idle} is given`,
      found: (_, idle) => idle,
      reason: 'Azure has no idle timeout on UDP rules; haports honours it',
    }),
  ),
  // Azure ignores both there; haports does not.
  note('V15', HA_RULES, '', {
    when: (rule, draft) => {
      const given = ['tcpReset', 'idleTimeout.tcp'].filter((key) => draft.given(rule, ...key.split('.')));
      return given.length > 0 && given.join(' and ');
    },
    say: ({ name }, given) => `HA-ports rule "${name}" has ${given}, and haports honours it`,
    reason: 'Azure supports neither TCP reset nor TCP idle timeout on HA ports in front of an appliance',
  }),
  // Several load balancers, or an appliance between two of them, cannot be seen from here.
  azureOnly('V16', pairs(placedTwice), 'symmetric', {
    say: ({ rule, earlier }) =>
      `Symmetry cannot be guaranteed between rules "${earlier.name}" and "${rule.name}"`,
    expected: 'one frontend and one pool for both directions of a flow',
    reason: 'A flow whose directions cross two frontends or two pools is placed twice, independently',
  }),
  // A load balancer is no member of its own pool. Members that lead into a listener are LB_LOOP.
  azureOnly('V17', MEMBERS, 'address', {
    when: ({ backend }, { frontends }) =>
      frontends.find(({ address }) => address.text === backend.address.text),
    say: ({ backend }, { name }) => `Backend ${backend.address.text} is frontend "${name}"`,
    expected: 'an address that is no frontend',
    reason: 'On Azure a load balancer cannot be a member of a backend pool',
  }),
  // A rule does not span two networks (here: two families).
  azureOnly('V17', RULES, '', {
    when: ({ frontend, pool }) =>
      pool.backends.find(({ address }) => address.family !== frontend.address.family),
    say: ({ name, frontend }, { address }) =>
      `Rule "${name}" goes from IPv${frontend.address.family} to IPv${address.family}`,
    expected: 'a frontend and a pool of one family',
    reason: 'On Azure a rule stays in one network and one address family; haports can cross, as a proxy',
  }),
  // An error: without an entry in floatingAddresses there is nothing to dial. The kernel data plane has a note instead:
  // there it is the frontend's own address. Whether the alias exists on the backend only a probe can tell.
  error('V18', floatingTargets, '', {
    when: ({ rule: { frontend }, backend }) => !Object.hasOwn(backend.floatingAddresses, frontend.name),
    say: ({ rule, backend }) =>
      `Backend ${backend.address.text} has no floating address for frontend "${rule.frontend.name}"`,
    found: 'nothing',
    expected: ({ rule }) => `floatingAddresses with "${rule.frontend.name}"`,
    reason: ({ rule }) => `Rule "${rule.name}" has floating IP on and would have nothing to dial`,
  }),
  warning('V19', POOLS, 'backends', {
    when: ({ backends }) => backends.length === 1,
    say: ({ name }) => `Pool "${name}" has a single backend`,
    found: '1',
    expected: '2 or more',
    reason: 'There is no redundancy, and its established TCP flows end when it goes down',
  }),
  // A member is also a client of its own frontend. A configuration shows that only where it admits backends by name: in
  // an allow list, or among trusted PROXY sources.
  warning('V20', ({ rules }) => rules.map((rule) => ({ ...rule, thing: rule.frontend })), '', {
    when: ({ frontend: { allow, deny, proxyProtocol }, pool }) => {
      const hosts = [...allow, ...(proxyProtocol?.trustedSources ?? [])].filter(
        ({ prefixLength, address }) => prefixLength === address.bytes.length * 8,
      );
      return pool.backends.find(({ address }) => isIn(hosts, address) && !isIn(deny, address));
    },
    say: ({ frontend }, { address }) =>
      `Backend ${address.text} is also a client of frontend "${frontend.name}"`,
    reason:
      'A flow that is hashed back to its own sender fails where client addresses are kept (Azure hairpin)',
  }),
];

function floatingTargets({ plane, rules }: Draft) {
  return TARGETS({ rules: plane === 'userspace' ? rules.filter(({ floatingIp }) => floatingIp) : [] });
}

function firstWithOthers(draft: Draft): readonly Rule[] {
  const { rules } = draft;
  const lonely = FIXED_HA_RULES(draft).find((rule) =>
    rules.some((other) => other !== rule && !apart(rule, other)),
  );
  return lonely === undefined ? [] : [lonely];
}

/** Each HA-ports rule of a pool has its own frontend, and all are floating. */
function onePoolTwice(a: Rule, b: Rule, draft: Draft): boolean {
  return bothHa(a, b) && a.pool === b.pool && (a.frontend === b.frontend || !bothFloat(a, b, draft));
}

/** HA-ports and named ports on one frontend and pool, and not both floating. */
function mixedOnFrontend(a: Rule, b: Rule, draft: Draft): boolean {
  return mixed(a, b) && a.frontend === b.frontend && a.pool === b.pool && !bothFloat(a, b, draft);
}

/** Symmetry holds only while both directions cross one pool and one frontend of a family. */
function placedTwice(a: Rule, b: Rule): boolean {
  const isOneFamily = a.frontend.address.family === b.frontend.address.family;
  return a.symmetric && b.symmetric && isOneFamily && (a.frontend !== b.frontend || a.pool !== b.pool);
}
