import { portSetSize, type PortRange, type PortSet } from '../../model/port-set.js';

/**
 * Gives each port set's part of this worker. Two workers must never choose the same port for the same backend: for UDP
 * the kernel would let them, and one would get the other's replies. The same set has the same part, as an object too.
 */
export function portShares(worker: number, workers: number): (ports: PortSet) => PortSet {
  if (workers === 1) return (ports) => ports;
  const known = new WeakMap<PortSet, PortSet>();
  return (ports) => {
    let share = known.get(ports);
    if (share === undefined) known.set(ports, (share = sharePorts(ports, worker, workers)));
    return share;
  };
}

/**
 * The worker's own part of a port set: as large as the others' to within one port, in few ranges. The parts of all
 * workers are disjoint and make up the set.
 */
export function sharePorts(ports: PortSet, worker: number, workers: number): PortSet {
  const size = portSetSize(ports);
  const from = Math.floor((size * worker) / workers);
  const to = Math.floor((size * (worker + 1)) / workers);
  const share: PortRange[] = [];
  let offset = 0;
  for (const { first, last } of ports) {
    const length = last - first + 1;
    const low = Math.max(from - offset, 0);
    const high = Math.min(to - offset, length);
    if (low < high) share.push({ first: first + low, last: first + high - 1 });
    offset += length;
  }
  return share;
}
