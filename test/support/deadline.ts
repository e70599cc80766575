import { availableParallelism, loadavg } from 'node:os';

const MOST_PATIENCE = 6;

/**
 * A deadline of a quiet machine, made up to six times as long on a busy one: by how many processes there are for each
 * processor. Promises of how fast something is are so held to in full where they can be.
 */
export function patience(quietMs: number): number {
  const perProcessor = (loadavg()[0] ?? 0) / availableParallelism();
  return Math.round(quietMs * Math.min(Math.max(1, perProcessor), MOST_PATIENCE));
}

/** Rejects with `what`, asked for then, if the promise has not settled after {@link patience} of `timeoutMs`. */
export async function within<T>(
  promise: Promise<T>,
  timeoutMs: number,
  what: string | (() => string),
): Promise<T> {
  const waitMs = patience(timeoutMs);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    const text = (): string => (typeof what === 'string' ? what : what());
    timer = setTimeout(() => reject(new Error(`Not within ${waitMs} ms: ${text()}`)), waitMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Asks again and again until the answer is neither false nor undefined. Rejects with `what` after {@link patience} of `timeoutMs`. */
export async function eventually<T>(
  ask: () => Promise<T | undefined | false> | T | undefined | false,
  timeoutMs: number,
  what: string,
): Promise<T> {
  const waitMs = patience(timeoutMs);
  const untilMs = performance.now() + waitMs;
  let lastError: unknown;
  for (;;) {
    try {
      const answer = await ask();
      if (answer !== undefined && answer !== false) return answer;
    } catch (error) {
      lastError = error;
    }
    if (performance.now() >= untilMs) {
      throw new Error(`Not within ${waitMs} ms: ${what}`, { cause: lastError });
    }
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}
