import type { Clock } from '../../runtime/clock.js';
import type { StopReport } from '../data-plane.js';
import type { FlowKeeper } from './flow-keeper.js';

const CHECK_MS = 50;

/** A UDP flow has no end of its own: while stopping, a second of silence is taken for one. */
const UDP_QUIET_MS = 1000;

/** Lets flows finish until a deadline, then resets the rest. The listeners are closed by then. */
export class Shutdown {
  readonly #clock: Clock;
  readonly #keeper: FlowKeeper;
  readonly #flowsAtStart: number;
  #deadlineMs = Infinity;
  #done: Promise<StopReport> | undefined;
  #wake: (() => void) | undefined;

  constructor(clock: Clock, keeper: FlowKeeper) {
    this.#clock = clock;
    this.#keeper = keeper;
    this.#flowsAtStart = keeper.table.size;
  }

  /** May be called again with a shorter deadline; every call resolves with the one report. */
  within(deadlineMs: number): Promise<StopReport> {
    this.#deadlineMs = Math.min(this.#deadlineMs, this.#clock.monotonicMs() + deadlineMs);
    this.#wake?.();
    this.#done ??= this.#run();
    return this.#done;
  }

  async #run(): Promise<StopReport> {
    for (;;) {
      this.#endUdpQuietSince(this.#clock.monotonicMs() - UDP_QUIET_MS);
      if (this.#keeper.table.size === 0) return { finished: this.#flowsAtStart, reset: 0 };
      if (this.#clock.monotonicMs() >= this.#deadlineMs) break;
      await this.#pause();
    }
    let reset = 0;
    for (const flow of this.#keeper.table.all()) {
      this.#keeper.end(flow, 'shutdown', 'reset');
      reset++;
    }
    return { finished: Math.max(0, this.#flowsAtStart - reset), reset };
  }

  /** Ends all UDP flows now. */
  endUdp(): void {
    this.#endUdpQuietSince(Infinity);
  }

  #endUdpQuietSince(quietSinceMs: number): void {
    for (const flow of this.#keeper.table.all()) {
      if (flow.tuple.protocol === 'udp' && flow.lastActivityMs <= quietSinceMs) {
        this.#keeper.end(flow, 'shutdown', 'close');
      }
    }
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.#clock.setTimer(CHECK_MS, resolve);
      this.#wake = () => {
        cancel();
        resolve();
      };
    });
  }
}
