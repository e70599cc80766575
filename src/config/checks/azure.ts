import { cidrContains, isWildcard, parseCidr, type Cidr, type IpAddress } from '../../model/address.js';
import { formatDuration } from '../../model/configuration.js';
import { portSetContains, portSetsMeet } from '../../model/ports.js';
import { shiftPorts, type BoundRule } from '../bind-rules.js';
import type { Draft } from '../draft.js';
import { error, note, warning, type Issue, type IssueDetails, type Path } from '../findings.js';
import { dialTargets } from './listeners.js';

/** Independent under dual stack: another family on another pool (Azure: separate frontends and pools). */
function apart(a: BoundRule, b: BoundRule): boolean {
  return a.frontend.value.address.family !== b.frontend.value.address.family && a.pool !== b.pool;
}

/**
 * V1: HA ports is protocol all, frontend port 0 and backend port 0; Azure refuses any other mix of all and 0. Frontend
 * port 0 with a backend port makes no sense anywhere and is refused where rules are bound.
 */
export const checkV1: AzureCheck = (context) =>
  context.rules.flatMap((rule) => {
    const { path, input, protocols, haPorts } = rule;
    const all = protocols.length === 2;
    const backendZero = input.backendPort === 0;
    if (all === haPorts && haPorts === backendZero) return [];
    const found = `${all ? 'all' : protocols.join()}, ${input.frontendPort?.first ?? 0}, ${input.backendPort}`;
    const message = `Protocol, frontendPort and backendPort are ${found}: Azure has all, 0, 0 or none of them`;
    return [
      azureOnly(context, 'V1', path, message, {
        found,
        expected: 'protocol all, frontendPort 0 and backendPort 0 together, or none of them',
        reason: 'Azure takes protocol All and port 0 only together, as an HA-ports rule',
      }),
    ];
  });

/** V2: on internal frontends only. That a gateway load balancer has nothing else cannot be seen from here. */
export const checkV2: AzureCheck = (context) =>
  context.rules
    .filter((rule) => rule.haPorts && isPublic(rule.frontend.value.address))
    .map((rule) =>
      azureOnly(
        context,
        'V2',
        rule.path,
        `HA-ports rule on the public address ${rule.frontend.value.address.text}`,
        {
          expected: 'a frontend with a private address',
          reason: 'Azure has HA ports on internal load balancers only',
        },
      ),
    );

/** V3: one HA-ports rule for a frontend. Two with common ports are refused anyway. */
export const checkV3: AzureCheck = (context) =>
  againstEarlier(
    context.rules.filter((rule) => rule.haPorts),
    (rule, earlier) => rule.frontend === earlier.frontend,
    (rule, earlier) =>
      azureOnly(
        context,
        'V3',
        rule.path,
        `Frontend "${rule.input.frontend}" already has HA-ports rule "${earlier.input.name}"`,
        {
          expected: 'one HA-ports rule for each frontend',
          reason: 'Azure allows one HA-ports rule for each internal frontend',
        },
      ),
  );

/**
 * V4: beside a non-floating HA-ports rule there is no other rule. Told once, on the first such rule. Other load
 * balancers in front of the same backends cannot be seen from here.
 */
export const checkV4: AzureCheck = (context) => {
  const { rules } = context;
  const lonely = rules.find(
    (rule) =>
      rule.haPorts && !rule.input.floatingIp && rules.some((other) => other !== rule && !apart(rule, other)),
  );
  if (lonely === undefined) return [];
  const message = `HA-ports rule "${lonely.input.name}" without floating IP is not the only rule`;
  return [
    azureOnly(context, 'V4', lonely.path, message, {
      expected: 'no other rule, or floatingIp on all of them',
      reason: 'On Azure a non-floating HA-ports rule must be the only rule of its load balancer',
    }),
  ];
};

/** V5: on top of a floating HA-ports rule there is no non-floating one. */
export const checkV5: AzureCheck = (context) => {
  const floating = context.rules.find((rule) => rule.haPorts && rule.input.floatingIp);
  if (floating === undefined) return [];
  return context.rules
    .filter((rule) => rule.haPorts && !rule.input.floatingIp && !apart(rule, floating))
    .map((rule) =>
      azureOnly(
        context,
        'V5',
        rule.path,
        `HA-ports rule "${rule.input.name}" is not floating but "${floating.input.name}" is`,
        {
          expected: 'floatingIp true on every HA-ports rule',
          reason: 'Azure refuses a non-floating HA-ports rule on top of a floating one',
        },
      ),
    );
};

/** V6: several HA-ports rules on one pool each have their own frontend, and all are floating. */
export const checkV6: AzureCheck = (context) =>
  againstEarlier(
    context.rules.filter((rule) => rule.haPorts),
    (rule, earlier) =>
      rule.pool === earlier.pool &&
      (rule.frontend === earlier.frontend || !rule.input.floatingIp || !earlier.input.floatingIp),
    (rule, earlier) =>
      azureOnly(
        context,
        'V6',
        rule.path,
        `Pool "${rule.input.backendPool}" already has HA-ports rule "${earlier.input.name}"`,
        {
          expected: 'a frontend of its own and floatingIp true for each HA-ports rule of a pool',
          reason: 'Without floating IP Azure could not tell at the backend which frontend a packet came by',
        },
      ),
  );

/** V8: an HA-ports rule and another rule share frontend and pool only if both are floating. */
export const checkV8: AzureCheck = (context) =>
  againstEarlier(
    context.rules,
    (rule, earlier) =>
      rule.haPorts !== earlier.haPorts &&
      rule.frontend === earlier.frontend &&
      rule.pool === earlier.pool &&
      !(rule.input.floatingIp && earlier.input.floatingIp),
    (rule, earlier) =>
      azureOnly(
        context,
        'V8',
        rule.path,
        `Rules "${earlier.input.name}" and "${rule.input.name}" mix HA ports and named ports on one frontend and pool`,
        {
          expected: 'floatingIp true on both',
          reason: 'Azure allows the mix only with floating IP on both; haports lets the HA-ports rule yield',
        },
      ),
  );

/**
 * V9: HA-ports and other rules are not mixed on one pool (the preview's wording). That an interface with a non-floating
 * HA-ports rule carries nothing else is V4 and V6.
 */
export const checkV9: AzureCheck = (context) =>
  againstEarlier(
    context.rules,
    (rule, earlier) =>
      rule.haPorts !== earlier.haPorts && rule.pool === earlier.pool && rule.frontend !== earlier.frontend,
    (rule, earlier) =>
      azureOnly(
        context,
        'V9',
        rule.path,
        `Rules "${earlier.input.name}" and "${rule.input.name}" mix HA ports and named ports on pool "${rule.input.backendPool}"`,
        {
          expected: 'a pool of its own for each kind',
          reason: 'Azure does not mix HA-ports and other rules on one backend pool',
        },
      ),
  );

/**
 * V7: with an internal HA-ports and a public load balancer on the same members, there is exactly one of each. A
 * configuration that has both stands for two resources, which Azure allows; whether there are more cannot be seen.
 */
export const checkV7: AzureCheck = ({ rules }) =>
  rules
    .filter((rule) => isPublic(rule.frontend.value.address))
    .flatMap((rule) => {
      const internal = rules.find(
        (other) => other.haPorts && other.pool === rule.pool && !isPublic(other.frontend.value.address),
      );
      if (internal === undefined) return [];
      const message = `Rule "${rule.input.name}" is public and "${internal.input.name}" internal, for one pool`;
      const reason = 'On Azure these are two load balancers, and there may be exactly one of each kind';
      return [note('V7', rule.path, message, { reason })];
    });

/** V10: a destination address and port on a member belongs to one rule. HA-ports rules are left to V4, V6, V8, V9. */
export const checkV10: AzureCheck = (context) =>
  againstEarlier(
    context.rules.filter((rule) => !rule.haPorts),
    meetAtMember,
    (rule, earlier) =>
      azureOnly(
        context,
        'V10',
        rule.path,
        `Rules "${earlier.input.name}" and "${rule.input.name}" meet at the same address and port of a backend`,
        {
          expected: 'another backendPort, or floatingIp',
          reason: 'On Azure every rule must lead to a destination address and port of its own at the backend',
        },
      ),
  );

function meetAtMember(a: BoundRule, b: BoundRule): boolean {
  if (!a.protocols.some((protocol) => b.protocols.includes(protocol))) return false;
  if (!portSetsMeet(shiftPorts(a.ports, a.portOffset), shiftPorts(b.ports, b.portOffset))) return false;
  const targets = new Set(dialTargets(b).map(({ address }) => address.text));
  return dialTargets(a).some(({ address }) => targets.has(address.text));
}

/**
 * V16: symmetry holds only while both directions cross one pool and one frontend of a family. Several load balancers,
 * or an appliance between two of them, cannot be seen from here.
 */
export const checkV16: AzureCheck = (context) =>
  againstEarlier(
    context.rules.filter((rule) => rule.input.symmetric),
    (rule, earlier) =>
      rule.frontend.value.address.family === earlier.frontend.value.address.family &&
      (rule.frontend !== earlier.frontend || rule.pool !== earlier.pool),
    (rule, earlier) =>
      azureOnly(
        context,
        'V16',
        [...rule.path, 'symmetric'],
        `Symmetry cannot be guaranteed between rules "${earlier.input.name}" and "${rule.input.name}"`,
        {
          expected: 'one frontend and one pool for both directions of a flow',
          reason: 'A flow whose directions cross two frontends or two pools is placed twice, independently',
        },
      ),
  );

/**
 * V17: a load balancer is no member of its own pool, and a rule does not span two networks (here: two families). Members
 * by interface and by address mixed: haports has addresses only. Members that lead into a listener are LB_LOOP.
 */
export const checkV17: AzureCheck = (context) => {
  const { draft, rules } = context;
  const members = draft.pools.flatMap(({ path, value: pool }) =>
    pool.backends.flatMap(({ address }, index) => {
      const frontend = draft.frontends.find(({ value }) => value.address.text === address.text);
      if (frontend === undefined) return [];
      return [
        azureOnly(
          context,
          'V17',
          [...path, 'backends', index, 'address'],
          `Backend ${address.text} is frontend "${frontend.value.name}"`,
          {
            found: `"${address.text}"`,
            expected: 'an address that is no frontend',
            reason: 'On Azure a load balancer cannot be a member of a backend pool',
          },
        ),
      ];
    }),
  );
  const families = rules.flatMap((rule) => {
    const { address } = rule.frontend.value;
    const other = rule.pool.value.backends.find((backend) => backend.address.family !== address.family);
    if (other === undefined) return [];
    const message = `Rule "${rule.input.name}" goes from IPv${address.family} to IPv${other.address.family}`;
    return [
      azureOnly(context, 'V17', rule.path, message, {
        expected: 'a frontend and a pool of one family',
        reason: 'On Azure a rule stays in one network and one address family; haports can cross, as a proxy',
      }),
    ];
  });
  return [...members, ...families];
};

/**
 * V18: floating IP needs the frontend's address on a loopback interface of each backend. Here an error: without an entry
 * in floatingAddresses there is nothing to dial. (The kernel data plane has a note instead: there
 * it is the frontend's very address.) Whether the alias exists on the backend only a probe can tell.
 */
export const checkV18: AzureCheck = ({ draft, rules }) =>
  rules
    .filter(() => draft.plane.kind === 'userspace')
    .filter((rule) => rule.input.floatingIp)
    .flatMap((rule) =>
      rule.pool.value.backends.flatMap(({ address, floatingAddresses }, index) =>
        Object.hasOwn(floatingAddresses, rule.input.frontend)
          ? []
          : [
              error(
                'V18',
                [...rule.pool.path, 'backends', index],
                `Backend ${address.text} has no floating address for frontend "${rule.input.frontend}"`,
                {
                  found: 'nothing',
                  expected: `floatingAddresses with "${rule.input.frontend}"`,
                  reason: `Rule "${rule.input.name}" has floating IP on and would have nothing to dial`,
                },
              ),
            ],
      ),
    );

/** V19: a pool of one has no redundancy, and when all are down its established TCP flows end too. */
export const checkV19: AzureCheck = ({ draft }) =>
  draft.pools
    .filter(({ value: pool }) => pool.backends.length === 1)
    .map(({ path, value: pool }) =>
      warning('V19', [...path, 'backends'], `Pool "${pool.name}" has a single backend`, {
        found: '1',
        expected: '2 or more',
        reason: 'There is no redundancy, and its established TCP flows end when it goes down',
      }),
    );

/**
 * V20: a member is also a client of its own frontend. A configuration shows that only where it admits backends by
 * name: in an allow list that is not everybody, or among trusted PROXY sources.
 */
export const checkV20: AzureCheck = ({ rules }) =>
  rules.flatMap((rule) => {
    const { allow, deny, proxyProtocol } = rule.frontend.value;
    const admitted = [...allow, ...(proxyProtocol?.trustedSources ?? [])].filter(
      (block) => block.prefixLength === block.address.bytes.length * 8,
    );
    const client = rule.pool.value.backends.find(
      ({ address }) =>
        admitted.some((block) => cidrContains(block, address)) &&
        !deny.some((block) => cidrContains(block, address)),
    );
    if (client === undefined) return [];
    const message = `Backend ${client.address.text} is also a client of frontend "${rule.input.frontend}"`;
    const reason =
      'A flow that is hashed back to its own sender fails where client addresses are kept (Azure hairpin)';
    return [warning('V20', rule.frontend.path, message, { reason })];
  });

/** Ports that Azure does not probe by HTTP. */
const FORBIDDEN_HTTP_PORTS: ReadonlySet<number> = new Set([19, 21, 25, 70, 110, 119, 143, 220, 993]);

/** V11: admin state on a backend whose rule has no probe. Azure ignores it there; haports does not. */
export const checkV11: AzureCheck = ({ draft, rules }) =>
  draft.pools.flatMap((pool) => {
    const rule = rules.find((candidate) => candidate.pool === pool && candidate.probe === undefined);
    if (rule === undefined) return [];
    return pool.value.backends.flatMap(({ adminState }, index) => {
      if (adminState === 'none') return [];
      const path = [...pool.path, 'backends', index, 'adminState'];
      const message = `Admin state ${adminState} on a backend of rule "${rule.input.name}", which has no probe`;
      return [
        warning('V11', path, message, {
          found: `"${adminState}"`,
          expected: 'a probe on the rule',
          reason: 'On Azure admin state has no effect without a probe; haports honours it',
        }),
      ];
    });
  });

/** V12: a rule without probe, or a probe on a port that the rule forwards through the appliance. */
export const checkV12: AzureCheck = ({ rules }) =>
  rules.flatMap(({ path, input, probe, protocols, ports, portOffset, haPorts }) => {
    if (probe === undefined) {
      return [
        warning('V12', path, `Rule "${input.name}" has no probe`, {
          expected: 'a probe',
          reason: 'All its backends count as up, dead ones too',
        }),
      ];
    }
    const forwarded = protocols.includes('tcp') && portSetContains(ports, probe.value.port - portOffset);
    if (!haPorts || !forwarded) return [];
    const message = `Rule "${input.name}" also forwards port ${probe.value.port} of its probe "${probe.value.name}"`;
    return [
      warning('V12', [...path, 'probe'], message, {
        expected: 'a probe port outside the rule',
        reason: 'An appliance that forwards the probe port lets something behind it answer for it',
      }),
    ];
  });

/** V13: an HTTP probe on a port that Azure refuses. */
export const checkV13: AzureCheck = (context) =>
  context.draft.probes
    .filter(({ value: probe }) => probe.protocol !== 'tcp' && FORBIDDEN_HTTP_PORTS.has(probe.port))
    .map(({ path, value: probe }) =>
      azureOnly(context, 'V13', [...path, 'port'], `HTTP probe "${probe.name}" on port ${probe.port}`, {
        found: String(probe.port),
        expected: `a port other than ${[...FORBIDDEN_HTTP_PORTS].join(', ')}`,
        reason: 'Azure does not probe these ports by HTTP',
      }),
    );

/** Of load-balancing rules. Outbound rules have 4 to 120 minutes, but haports has no outbound rules. */
const MINIMUM_MS = 4 * 60_000;
const MAXIMUM_MS = 100 * 60_000;

type Timeouts = readonly { readonly path: Path; readonly tcp?: number; readonly udp?: number }[];

function givenTimeouts({ frontends, rules }: Draft): Timeouts {
  return [...frontends, ...rules].flatMap(({ path, value }) =>
    value.idleTimeout === undefined ? [] : [{ path: [...path, 'idleTimeout'], ...value.idleTimeout }],
  );
}

/** V14: TCP idle time outside 4 to 100 minutes; UDP idle time given at all. */
export const checkV14: AzureCheck = (context) =>
  givenTimeouts(context.draft).flatMap(({ path, tcp, udp }) => [
    ...(tcp === undefined || (tcp >= MINIMUM_MS && tcp <= MAXIMUM_MS)
      ? []
      : [
          azureOnly(
            context,
            'V14',
            [...path, 'tcp'],
            `TCP idle timeout ${formatDuration(tcp)} is outside 4m to 100m`,
            {
              found: formatDuration(tcp),
              expected: '4m to 100m',
              reason: 'Azure has idle timeouts from 4 to 100 minutes',
            },
          ),
        ]),
    ...(udp === undefined ? [] : [udpTimeout(context.compat, [...path, 'udp'], udp)]),
  ]);

function udpTimeout(compat: 'none' | 'azure', path: Path, udp: number) {
  const tell = compat === 'azure' ? warning : note;
  return tell('V14', path, `UDP idle timeout ${formatDuration(udp)} is given`, {
    found: formatDuration(udp),
    reason: 'Azure has no idle timeout on UDP rules; haports honours it',
  });
}

/** V15: TCP reset or idle timeout given for an HA-ports rule. Azure ignores them there; haports does not. */
export const checkV15: AzureCheck = ({ rules }) =>
  rules
    .filter(({ haPorts }) => haPorts)
    .flatMap(({ path, input }) => {
      const given = [
        ...(input.tcpReset === undefined ? [] : ['tcpReset']),
        ...(input.idleTimeout?.tcp === undefined ? [] : ['idleTimeout.tcp']),
      ];
      if (given.length === 0) return [];
      const message = `HA-ports rule "${input.name}" has ${given.join(' and ')}, and haports honours it`;
      const reason =
        'Azure supports neither TCP reset nor TCP idle timeout on HA ports in front of an appliance';
      return [note('V15', path, message, { reason })];
    });

/** Azure's HA-ports rules, in the order of their numbers. */
export const AZURE_CHECKS: readonly AzureCheck[] = [
  checkV1,
  checkV2,
  checkV3,
  checkV4,
  checkV5,
  checkV6,
  checkV7,
  checkV8,
  checkV9,
  checkV10,
  checkV11,
  checkV12,
  checkV13,
  checkV14,
  checkV15,
  checkV16,
  checkV17,
  checkV18,
  checkV19,
  checkV20,
];

/**
 * What the checks of Azure's HA-ports rules look at. The whole configuration stands for one load balancer resource;
 * where a rule of Azure's speaks of things that no configuration holds (other resources, networks, interfaces), its
 * check does what can be decided and says so.
 */
export interface AzureContext {
  readonly compat: 'none' | 'azure';
  readonly draft: Draft;
  readonly rules: readonly BoundRule[];
}

export type AzureCheck = (context: AzureContext) => readonly Issue[];

/** What only Azure forbids: an error under `"compat": "azure"`, else a note. */
export function azureOnly(
  { compat }: AzureContext,
  code: string,
  path: Path,
  message: string,
  details: IssueDetails & { readonly reason: string },
): Issue {
  return { severity: compat === 'azure' ? 'error' : 'note', code, path, message, ...details };
}

/** Not on the public Internet: RFC 1918, RFC 6598, RFC 3927, RFC 4193, RFC 4291 and loopback. */
const PRIVATE_BLOCKS: readonly Cidr[] = [
  '10.0.0.0/8',
  '172.16.0.0/12',
  '192.168.0.0/16',
  '100.64.0.0/10',
  '169.254.0.0/16',
  '127.0.0.0/8',
  'fc00::/7',
  'fe80::/10',
  '::1',
].flatMap((text) => parseCidr(text) ?? []);

/** Whether an address could only belong to a public load balancer. */
export function isPublic(address: IpAddress): boolean {
  return !isWildcard(address) && !PRIVATE_BLOCKS.some((block) => cidrContains(block, address));
}

/** Calls `make` for each rule with the first earlier rule that `conflicts` with it. */
export function againstEarlier(
  rules: readonly BoundRule[],
  conflicts: (rule: BoundRule, earlier: BoundRule) => boolean,
  make: (rule: BoundRule, earlier: BoundRule) => Issue,
): readonly Issue[] {
  return rules.flatMap((rule, index) => {
    const earlier = rules.slice(0, index).find((candidate) => conflicts(rule, candidate));
    return earlier === undefined ? [] : [make(rule, earlier)];
  });
}
