import { cidrContains } from '../../model/cidr.js';
import { portSetsMeet } from '../../model/port-set.js';
import { shiftPorts, type BoundRule } from '../bind-rules.js';
import { dialTargets } from '../check-loops.js';
import { error, note, warning } from '../finding.js';
import { againstEarlier, azureOnly, isPublic, type AzureCheck } from './context.js';

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
