import type { BoundRule } from '../bind-rules.js';
import { againstEarlier, azureOnly, isPublic, type AzureCheck } from './context.js';

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
