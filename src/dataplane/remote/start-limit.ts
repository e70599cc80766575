import { BalancerError } from '../../model/errors.js';
import type { ForwardingState } from '../../model/forwarding-state.js';
import { portSetSize } from '../../model/port-set.js';

/** A worker that has not started by then is replaced: it must be stuck. */
const START_MS = 60_000;

/** More for each socket that it has to open; a shared one takes some 0.3 ms, on an idle machine. */
const START_SOCKET_MS = 2;

/** How long a worker may take to start with this state. */
export function startLimitMs({ configuration: { rules } }: ForwardingState): number {
  const sockets = rules.reduce((sum, { ports, protocols }) => sum + portSetSize(ports) * protocols.length, 0);
  return START_MS + sockets * START_SOCKET_MS;
}

export function notStartedWithin(limitMs: number): BalancerError {
  return new BalancerError(`The data worker has not started in ${Math.round(limitMs / 1000)} s`, {
    code: 'LB_INTERNAL',
    source: 'internal',
  });
}
