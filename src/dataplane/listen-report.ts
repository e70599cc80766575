import { BalancerError } from '../model/errors.js';
import type { ApplyReport, ListenFailure } from './data-plane.js';

/** Whether a start has failed: sockets were wanted, and there is not one. */
export function isDeaf({ listeners, failures }: ApplyReport): boolean {
  return listeners.tcp + listeners.udp === 0 && failures.length > 0;
}

/** The error of such a start. */
export function listenFailed(failures: readonly ListenFailure[]): BalancerError {
  return listenError(`Cannot listen on any of ${failures.length} ports`, failures);
}

/** The error of an apply whose configuration adds what cannot be opened. `advice`: what helps. */
export function cannotAdd(failures: readonly ListenFailure[], advice?: string): BalancerError {
  const ports = failures.length === 1 ? 'a port' : `${failures.length} ports`;
  return listenError(`Cannot listen on ${ports} that the new configuration adds`, failures, advice);
}

function listenError(what: string, failures: readonly ListenFailure[], advice?: string): BalancerError {
  const [first] = failures;
  const example =
    first === undefined
      ? ''
      : `, first ${first.protocol} ${first.address} port ${first.port}: ${first.errorCode}`;
  const help = advice === undefined ? '' : `; ${advice}`;
  return new BalancerError(`${what}${example}${help}`, { code: 'LB_LISTEN_FAILED', source: 'system' });
}
