import { BalancerError } from '../model/errors.js';
import type { ApplyReport, ListenFailure } from './data-plane.js';

/** Whether a start has failed: sockets were wanted, and there is not one. */
export function isDeaf({ listeners, failures }: ApplyReport): boolean {
  return listeners.tcp + listeners.udp === 0 && failures.length > 0;
}

/** The error of such a start. */
export function listenFailed(failures: readonly ListenFailure[]): BalancerError {
  const [first] = failures;
  const example =
    first === undefined
      ? ''
      : `, first ${first.protocol} ${first.address} port ${first.port}: ${first.errorCode}`;
  return new BalancerError(`Cannot listen on any of ${failures.length} ports${example}`, {
    code: 'LB_LISTEN_FAILED',
    source: 'system',
  });
}
