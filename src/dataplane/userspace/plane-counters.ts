import { arrivalRow, trafficRow } from '../../flow/traffic.js';
import type { PlaneCounters } from '../data-plane.js';
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
    traffic: traffic.allTraffic().map(trafficRow),
    arrivals: traffic.allArrivals().map(arrivalRow),
    table: { tcp: table.use('tcp'), udp: table.use('udp'), embryonic: table.use('embryonic') },
    sourcePorts: sourcePorts.uses(),
    listeners: listening.census(),
    workersLost: 0,
  };
}
