import { UDP_SHARE } from '../../flows/flow-table.js';
import type { Configuration } from '../../model/configuration.js';

/*
 * How a process divides the files and sockets it may have open: listeners first, then what it needs itself, and the rest
 * is for flows. It must not run out: libuv then accepts connections and closes them, and tells no one (uv__emfile_trick).
 */

/** Of Node and of haports itself, and room for connections that are accepted only to be refused. */
const OWN = 64;

/** In a process that also controls: connections to the admin API and the metrics, 64 each, and logs. */
const CONTROL = 144;

/** Of a small limit there is something left for flows. */
const MOST_RESERVED_SHARE = 0.5;

/** What divides the descriptors of a process. */
export interface DescriptorShares {
  /** That a process may have open. */
  readonly limit: number;
  readonly configuration: Configuration;
}

/** Descriptors that a process with flows keeps for accepts, probes, servers and logs. */
export function reservedDescriptors({ limit, configuration }: DescriptorShares): number {
  // Without workers the control process has the flows.
  const reserved = configuration.workers === 0 ? OWN + CONTROL + countProbes(configuration) : OWN;
  return Math.min(reserved, Math.floor(limit * MOST_RESERVED_SHARE));
}

/** Descriptors that the flows of a process may take, beside so many listeners. */
export function descriptorsForFlows(shares: DescriptorShares, listeners: number): number {
  return Math.max(0, shares.limit - reservedDescriptors(shares) - listeners);
}

/** At most one is under way for each backend and probe. */
function countProbes({ rules }: Configuration): number {
  return rules.reduce((sum, { probe, pool }) => sum + (probe === undefined ? 0 : pool.backends.length), 0);
}

/** Flows that the limits allow and the descriptors do not. */
export interface FlowShortage {
  readonly limit: number;
  /** Of all data processes together, if there are no flows of the other protocol. */
  readonly tcpFlows: number;
  readonly udpFlows: number;
  /** Descriptors that would do for each of them. */
  readonly needed: number;
}

/** Undefined: the descriptors suffice for what `limits` allows. `listeners`: of the process that has most. */
export function flowShortage(shares: DescriptorShares, listeners: number): FlowShortage | undefined {
  const { limit, configuration } = shares;
  const { tcpFlows, udpFlows, embryonicFlows } = configuration.limits;
  const processes = Math.max(1, configuration.workers);
  const room = descriptorsForFlows(shares, listeners);
  const wanted = Math.ceil((2 * (tcpFlows + embryonicFlows) + udpFlows) / processes);
  if (wanted <= room) return undefined;
  const reserved = reservedDescriptors({ ...shares, limit: Infinity });
  return {
    limit,
    tcpFlows: Math.floor(room / 2) * processes,
    udpFlows: Math.floor(room * UDP_SHARE) * processes,
    needed: listeners + reserved + wanted,
  };
}

/** What is wrong and what helps, as the end of a message. */
export function flowShortageAdvice({ limit, tcpFlows, udpFlows, needed }: FlowShortage): string {
  return (
    `a process may open ${limit} files and sockets, enough for ${tcpFlows} TCP flows (two each), or ${udpFlows} UDP flows; ` +
    `what "limits" allows needs ${needed}: raise the hard limit (LimitNOFILE=${needed} in the systemd unit, ` +
    `"ulimit -Hn ${needed}", or prlimit), or lower "limits"`
  );
}
