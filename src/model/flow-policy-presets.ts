import type { FlowAction, FlowPolicy } from './rule.js';

export type FlowPolicyPreset = 'azure' | 'aws-gwlb' | 'gcp' | 'firewall';

const PERSIST_TCP_MOVE_UDP: Readonly<Record<'tcp' | 'udp', FlowAction>> = {
  tcp: 'persist',
  udp: 'rebalance',
};
const RESET_TCP_MOVE_UDP: Readonly<Record<'tcp' | 'udp', FlowAction>> = { tcp: 'reset', udp: 'rebalance' };
const PERSIST_BOTH: Readonly<Record<'tcp' | 'udp', FlowAction>> = { tcp: 'persist', udp: 'persist' };
const END_BOTH: Readonly<Record<'tcp' | 'udp', FlowAction>> = { tcp: 'reset', udp: 'reset' };

/**
 * What happens to flows when their backend goes, by the habits of the balancers people know. Drain deadlines and
 * idleness are haports' own everywhere but where a line says otherwise: at a deadline TCP is reset and UDP moves,
 * and an idle flow ends (TCP by RST to both ends, UDP without a word).
 */
export const FLOW_POLICY_PRESETS: Readonly<Record<FlowPolicyPreset, FlowPolicy>> = {
  /**
   * The default. One member down, switched down or removed: established TCP stays on it, UDP moves to a healthy one.
   * Source: Azure Load Balancer health probes ("Probe down behavior") and "Administrative state".
   */
  azure: {
    'probe-down': PERSIST_TCP_MOVE_UDP,
    'admin-down': PERSIST_TCP_MOVE_UDP,
    removed: PERSIST_TCP_MOVE_UDP,
    'drain-deadline': RESET_TCP_MOVE_UDP,
    idle: END_BOTH,
  },
  /**
   * Flows of both protocols stay, dead target or not, deregistered or not, until they end by themselves. Source: AWS
   * Gateway Load Balancer target group attribute `target_failover`, its default `no_rebalance`.
   */
  'aws-gwlb': {
    'probe-down': PERSIST_BOTH,
    'admin-down': PERSIST_BOTH,
    removed: PERSIST_BOTH,
    'drain-deadline': RESET_TCP_MOVE_UDP,
    idle: END_BOTH,
  },
  /**
   * Connection-oriented protocols stay, others move. Source: Google Cloud internal passthrough Network Load Balancer,
   * `connectionPersistenceOnUnhealthyBackends: DEFAULT_FOR_PROTOCOL`.
   */
  gcp: {
    'probe-down': PERSIST_TCP_MOVE_UDP,
    'admin-down': PERSIST_TCP_MOVE_UDP,
    removed: PERSIST_TCP_MOVE_UDP,
    'drain-deadline': RESET_TCP_MOVE_UDP,
    idle: END_BOTH,
  },
  /**
   * For stateful appliances: a flow on a dead one is of no use, so TCP clients hear of it at once and can reconnect.
   * Source: what users of gateway balancers asked for (aws/aws-networking-best-practices#165), and the TCP reset
   * attributes AWS Gateway Load Balancer got for it.
   */
  firewall: {
    'probe-down': RESET_TCP_MOVE_UDP,
    'admin-down': RESET_TCP_MOVE_UDP,
    removed: RESET_TCP_MOVE_UDP,
    'drain-deadline': RESET_TCP_MOVE_UDP,
    idle: END_BOTH,
  },
};
