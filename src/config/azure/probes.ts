import { portSetContains } from '../../model/port-set.js';
import { warning } from '../finding.js';
import { azureOnly, type AzureCheck } from './context.js';

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
