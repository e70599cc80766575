import type { ArrivalTotals, TrafficTotals } from '../../flow/traffic.js';
import type { ArrivalCounters, PlaneCounters, TrafficCounters } from '../data-plane.js';
import type { Running } from './running.js';

/** Copies of all totals of a worker as they are now, but for what others measure. */
export function planeCounters({
  keeper,
  listening,
  sourcePorts,
}: Running): Omit<PlaneCounters, 'connectSeconds' | 'eventLoopDelaySeconds'> {
  keeper.settleAll();
  const { table, traffic } = keeper;
  return {
    traffic: traffic.allTraffic().map(trafficCounters),
    arrivals: traffic.allArrivals().map(arrivalCounters),
    table: { tcp: table.use('tcp'), udp: table.use('udp'), embryonic: table.use('embryonic') },
    sourcePorts: sourcePorts.uses(),
    listeners: listening.census(),
    workersLost: 0,
  };
}

function trafficCounters({ lastFlowAtMs, ...totals }: TrafficTotals): TrafficCounters {
  const copy = { ...totals, flowsEnded: { ...totals.flowsEnded } };
  return lastFlowAtMs === 0 ? copy : { ...copy, lastFlowAtMs };
}

function arrivalCounters({ sources, ...totals }: ArrivalTotals): ArrivalCounters {
  const copy = { ...totals, drops: { ...totals.drops } };
  return sources === undefined ? copy : { ...copy, sourceSketch: sources.registers.slice() };
}
