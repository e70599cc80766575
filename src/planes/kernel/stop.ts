import type { Clock } from '../../runtime/clock.js';
import { allFlows, type StopReport } from '../contract.js';
import type { ConntrackFlows } from './nat/kernel-flows.js';
import type { KernelProgram } from './program.js';

/** How often it is looked whether flows have finished. */
const LOOK_EVERY_MS = 250;
/** UDP flows without datagrams for that long count as finished. */
const QUIET_MS = 1000;
/** So long after the deadline ends that send are answered by a reset. */
const RESET_MS = 1000;

export interface StoppingDeps {
  readonly clock: Clock;
  readonly flows: Pick<ConntrackFlows, 'freshen' | 'page'>;
  /** Brings it into the kernel. May reject: then what was there before stays until the end. */
  readonly put: (program: KernelProgram) => Promise<void>;
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
  async run(program: KernelProgram): Promise<StopReport> {
    const { flows, put } = this.#deps;
    // What has begun just now may not be known yet, and may finish before the kernel takes no more.
    await flows.freshen();
    const before = await this.#live();
    await put(closedProgram(program)).catch(() => undefined);
    // From now on there are no new ones; the last that began must not be overlooked.
    await flows.freshen();
    let left = await this.#live();
    const first = Math.max(before, left);
    while (left > 0 && this.#leftMs() > 0) {
      await this.#pause(Math.min(LOOK_EVERY_MS, this.#leftMs()));
      left = await this.#live();
    }
    if (left > 0) {
      await put(endedProgram(program)).catch(() => undefined);
      await this.#pause(RESET_MS);
    }
    return { finished: Math.max(0, first - left), reset: left };
  }

  #leftMs(): number {
    return this.#deadlineMs - this.#deps.clock.monotonicMs();
  }

  async #live(): Promise<number> {
    let live = 0;
    const { flows } = this.#deps;
    for await (const { tuple, idleMs } of allFlows({ flows: (query) => flows.page(query) })) {
      if (tuple.protocol === 'tcp' || idleMs < QUIET_MS) live++;
    }
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

/** The program of a plane that takes no new flows: those that there are stay. */
function closedProgram(program: KernelProgram): KernelProgram {
  const rules = program.rules.map((one) => ({ ...one, table: { ...one.table, marks: [] } }));
  return { ...program, rules, tables: program.tables.map((table) => ({ ...table, marks: [] })) };
}

/** As closed, and all flows of TCP are reset when either end sends. */
function endedProgram(program: KernelProgram): KernelProgram {
  const closed = closedProgram(program);
  const all = program.backends.map(({ mark }) => mark);
  const rules = closed.rules.map((one) => ({
    ...one,
    actions: { ...one.actions, tcp: { rebalance: [], reset: all, drop: [] } },
  }));
  return { ...closed, rules };
}
