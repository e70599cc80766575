import type { Clock } from '../../runtime/clock.js';
import type { StopReport } from '../data-plane.js';
import { closedInput, endedInput } from './closing.js';
import type { FlowSource } from './flow-source.js';
import type { KernelInput } from './kernel-input.js';

/** How often it is looked whether flows have finished. */
const LOOK_EVERY_MS = 250;
/** UDP flows without datagrams for that long count as finished. */
const QUIET_MS = 1000;
/** So long after the deadline ends that send are told by a reset. */
const RESET_MS = 1000;
const PAGE = 1000;

export interface StoppingDeps {
  readonly clock: Clock;
  readonly flows: FlowSource;
  /** Puts it in the kernel. May reject: then what was there before goes on until the end. */
  readonly put: (input: KernelInput) => Promise<void>;
}

/** Lets flows finish until a deadline, which may be brought forward meanwhile. New ones are refused. */
export class Stopping {
  readonly #deps: StoppingDeps;
  #deadlineMs = Infinity;
  #wake: () => void = () => undefined;

  constructor(deps: StoppingDeps) {
    this.#deps = deps;
  }

  /** From now. Never later than said before. */
  shorten(deadlineMs: number): void {
    this.#deadlineMs = Math.min(this.#deadlineMs, this.#deps.clock.monotonicMs() + deadlineMs);
    this.#wake();
  }

  /** After that nothing is lost by taking the table away. */
  async run(input: KernelInput): Promise<StopReport> {
    const { flows, put } = this.#deps;
    const before = await this.#live();
    await put(closedInput(input)).catch(() => undefined);
    // From now on there are no new ones; the last that began must not be overlooked.
    await flows.freshen();
    let left = await this.#live();
    const first = Math.max(before, left);
    while (left > 0 && this.#leftMs() > 0) {
      await this.#pause(Math.min(LOOK_EVERY_MS, this.#leftMs()));
      left = await this.#live();
    }
    if (left > 0) {
      await put(endedInput(input)).catch(() => undefined);
      await this.#pause(RESET_MS);
    }
    return { finished: Math.max(0, first - left), reset: left };
  }

  #leftMs(): number {
    return this.#deadlineMs - this.#deps.clock.monotonicMs();
  }

  async #live(): Promise<number> {
    let live = 0;
    let after: number | undefined;
    do {
      const page = await this.#deps.flows.page({ limit: PAGE, ...(after === undefined ? {} : { after }) });
      live += page.flows.filter(({ tuple, idleMs }) => tuple.protocol === 'tcp' || idleMs < QUIET_MS).length;
      after = page.next;
    } while (after !== undefined);
    return live;
  }

  async #pause(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const cancel = this.#deps.clock.setTimer(ms, resolve);
      this.#wake = () => {
        cancel();
        resolve();
      };
    });
  }
}
