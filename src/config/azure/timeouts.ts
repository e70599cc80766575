import { formatDuration } from '../../model/duration.js';
import type { Draft } from '../draft.js';
import { note, warning, type Path } from '../finding.js';
import { azureOnly, type AzureCheck } from './context.js';

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
