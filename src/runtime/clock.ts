import { BalancerError } from '../model/errors.js';

/** Time as the code sees it, so that tests can bring their own. */
export interface Clock {
  /** Milliseconds since the epoch; may jump. Only for what people read. */
  wallMs(): number;
  /** Milliseconds since some fixed point; never jumps back. For every interval. */
  monotonicMs(): number;
  /** Calls once after delayMs; the returned function cancels. Does not keep the process alive if `unref`. */
  setTimer(delayMs: number, callback: () => void, options?: { readonly unref?: boolean }): () => void;
}

export const systemClock: Clock = {
  wallMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  setTimer(delayMs, callback, options) {
    const timer = setTimeout(callback, delayMs);
    if (options?.unref === true) timer.unref();
    return () => clearTimeout(timer);
  },
};

/** The promise's own outcome, or a BalancerError (`LB_INTERNAL`) that begins with `late` where it has none in time. */
export async function inTime<T>(
  promise: Promise<T>,
  timeoutMs: number,
  clock: Clock,
  late = 'No answer',
): Promise<T> {
  let cancel: (() => void) | undefined;
  const timeout = new Promise<never>((_, reject) => {
    cancel = clock.setTimer(timeoutMs, () =>
      reject(new BalancerError(`${late} in ${timeoutMs} ms`, { code: 'LB_INTERNAL', source: 'internal' })),
    );
  });
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    cancel?.();
  }
}
