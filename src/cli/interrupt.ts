import type { CliDeps } from './cli-deps.js';

/** An end that comes from outside, for commands that go on until told otherwise. */
export interface Interrupt {
  /** Aborts at the first signal, and when nobody reads the output any more. */
  readonly signal: AbortSignal;
  /** Resolves after the time, or at once when interrupted. Never rejects. */
  pause(ms: number): Promise<void>;
  /** Stops listening. */
  release(): void;
}

/** Listens from now on, until released. */
export function interruptible(deps: Pick<CliDeps, 'onSignal' | 'onOutputClosed' | 'clock'>): Interrupt {
  const controller = new AbortController();
  const abort = (): void => controller.abort();
  const releases = [deps.onSignal(abort), deps.onOutputClosed(abort)];
  return {
    signal: controller.signal,
    pause: (ms) => pause(deps.clock, ms, controller.signal),
    release: () => releases.forEach((release) => release()),
  };
}

/** Resolves after the time, or at once when aborted. Never rejects. */
export function pause(clock: CliDeps['clock'], ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      cancel();
      signal.removeEventListener('abort', done);
      resolve();
    };
    const cancel = clock.setTimer(ms, done);
    signal.addEventListener('abort', done);
  });
}
