import { arrivalRow, trafficRow } from '../../../flow/traffic.js';
import type { Limits } from '../../../model/configuration.js';
import { PROTOCOLS, type Protocol } from '../../../model/five-tuple.js';
import type { PlaneCounters, TableUse, TrafficCounters } from '../../data-plane.js';
import type { FlowLedger } from './flow-ledger.js';

/** What the mirror knows of the plane's counters. */
export type FlowCounters = Pick<PlaneCounters, 'traffic' | 'arrivals' | 'table' | 'kernelFlows'>;

export interface CounterParts {
  readonly ledger: Pick<FlowLedger, 'traffic' | 'other' | 'unlisted'>;
  /** Absent: nothing has begun. */
  readonly limits: Limits | undefined;
  readonly conntrack: TableUse | undefined;
  readonly gaps: number;
}

/** Copies of all totals. */
export function flowCounters({ ledger, limits, conntrack, gaps }: CounterParts): FlowCounters {
  const traffic = ledger.traffic.allTraffic().map(trafficRow);
  const [tcp, udp] = PROTOCOLS.map((protocol): TableUse => {
    // What is above these limits is not listed, but forwarded all the same.
    const limit = (protocol === 'tcp' ? limits?.tcpFlows : limits?.udpFlows) ?? 0;
    return { used: activeOf(traffic, protocol), limit };
  });
  const none = { used: 0, limit: 0 };
  return {
    traffic,
    arrivals: ledger.traffic.allArrivals().map(arrivalRow),
    table: { tcp: tcp ?? none, udp: udp ?? none, embryonic: none },
    kernelFlows: {
      ...(conntrack === undefined ? {} : { conntrack }),
      ...{ otherFlows: ledger.other.counts(), unlisted: ledger.unlisted, gaps },
    },
  };
}

function activeOf(traffic: readonly TrafficCounters[], protocol: Protocol): number {
  let active = 0;
  for (const entry of traffic) if (entry.protocol === protocol) active += entry.flowsActive;
  return active;
}
