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
