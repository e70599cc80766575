import type { KernelFlowCounters } from '../dataplane/data-plane.js';
import type { Labels, MetricFamily, MetricsSnapshot, Sample } from './metric-family.js';

/** IANA numbers of protocols that are balanced without ports; others are shown by number. */
const NAMES: ReadonlyMap<number, string> = new Map([
  [1, 'icmp'],
  [4, 'ipip'],
  [41, 'ipv6'],
  [47, 'gre'],
  [50, 'esp'],
  [51, 'ah'],
  [58, 'icmpv6'],
  [132, 'sctp'],
]);

/** What there is only where the flows are the kernel's. */
export const KERNEL_FLOW_METRICS: readonly MetricFamily[] = [
  {
    name: 'haports_conntrack_entries',
    type: 'gauge',
    help: "Flows in the kernel's connection tracking, everybody's",
    collect: (snapshot) => ofFlows(snapshot, ({ conntrack }) => conntrack?.used),
  },
  {
    name: 'haports_conntrack_limit',
    type: 'gauge',
    help: "Flows that the kernel's connection tracking may hold (nf_conntrack_max)",
    collect: (snapshot) => ofFlows(snapshot, ({ conntrack }) => conntrack?.limit),
  },
  {
    name: 'haports_unlisted_flows',
    type: 'gauge',
    help: 'Live flows that are counted but not listed, since there are more than limits say',
    collect: (snapshot) => ofFlows(snapshot, ({ unlisted }) => unlisted),
  },
  {
    name: 'haports_flow_event_gaps_total',
    type: 'counter',
    help: "Times that events of the kernel's flows were lost, and all flows were listed anew",
    collect: (snapshot) => ofFlows(snapshot, ({ gaps }) => gaps),
  },
  {
    name: 'haports_other_flows_active',
    type: 'gauge',
    help: 'Live flows of protocols without ports',
    collect: (snapshot) => otherFlows(snapshot, 'active'),
  },
  {
    name: 'haports_other_flows_opened_total',
    type: 'counter',
    help: 'Flows of protocols without ports placed on the backend',
    collect: (snapshot) => otherFlows(snapshot, 'opened'),
  },
];

function ofFlows(
  { counters }: MetricsSnapshot,
  value: (flows: KernelFlowCounters) => number | undefined,
): readonly Sample[] {
  const found = counters?.kernelFlows === undefined ? undefined : value(counters.kernelFlows);
  return found === undefined ? [] : [{ labels: {}, value: found }];
}

function otherFlows(
  { counters, backendLabels }: MetricsSnapshot,
  key: 'active' | 'opened',
): readonly Sample[] {
  return (counters?.kernelFlows?.otherFlows ?? []).map((flows) => {
    const protocol = NAMES.get(flows.protocol) ?? String(flows.protocol);
    const labels: Labels = { ...backendLabels(flows.backendId), protocol };
    return { labels, value: flows[key] };
  });
}
