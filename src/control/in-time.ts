import { BalancerError } from '../model/errors.js';
import type { Clock } from '../runtime/clock.js';

/** The promise's own outcome, or a BalancerError (`LB_INTERNAL`) where it has none after `timeoutMs`. */
export async function inTime<T>(promise: Promise<T>, timeoutMs: number, clock: Clock): Promise<T> {
  let cancel: () => void = () => undefined;
  const timeout = new Promise<never>((_, reject) => {
    cancel = clock.setTimer(timeoutMs, () =>
      reject(new BalancerError(`No answer in ${timeoutMs} ms`, { code: 'LB_INTERNAL', source: 'internal' })),
    );
  });
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    cancel();
  }
}
