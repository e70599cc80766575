import { mix32 } from '../../flow/mix32.js';
import type { Clock } from '../../runtime/clock.js';
import type { Eviction } from './evictions.js';

/** Flows end in batches this far apart. */
const STEP_MS = 250;
/** conntrack is asked so often in one step, each of which takes it some milliseconds; what is left waits for the next. */
const MOST_PER_STEP = 10;

/** Ends flows of drained backends: flow-evictor.ts, or a test's. */
export interface ClientEvictor {
  clientsOf(eviction: Eviction): Promise<ReadonlySet<string>>;
  evictClient(eviction: Eviction, source: string): Promise<void>;
}

export interface DrainSpreadDeps {
  readonly clock: Clock;
  readonly evictor: ClientEvictor;
  /** The time is over: what is left is to end now. */
  readonly onOver: (backendId: string) => void;
}

/** A drained backend, and the flows of it that are to end over a time. */
export interface Spreading {
  readonly spreadMs: number;
  readonly evictions: readonly Eviction[];
}

interface Due {
  readonly eviction: Eviction;
  readonly source: string;
  readonly dueMs: number;
}

interface Schedule {
  readonly untilMs: number;
  /** The next is the last. */
  queue: Due[];
  cancel: () => void;
}

/**
 * Ends the flows of drained backends one client after another, evenly over the time asked for, so that they do not all
 * come back at once. A client's flows on one backend end together: conntrack forgets them by one command.
 */
export class DrainSpread {
  readonly #deps: DrainSpreadDeps;
  readonly #schedules = new Map<string, Schedule>();

  constructor(deps: DrainSpreadDeps) {
    this.#deps = deps;
  }

  /** By backend id. One that was there before goes on as it began; one that is missing is called off. */
  replace(spreading: ReadonlyMap<string, Spreading>): void {
    for (const [id, { cancel }] of this.#schedules) {
      if (spreading.has(id)) continue;
      cancel();
      this.#schedules.delete(id);
    }
    for (const [id, one] of spreading) if (!this.#schedules.has(id)) this.#begin(id, one);
  }

  stop(): void {
    this.replace(new Map());
  }

  #begin(id: string, { spreadMs, evictions }: Spreading): void {
    const { clock, evictor } = this.#deps;
    const schedule: Schedule = { untilMs: clock.monotonicMs() + spreadMs, queue: [], cancel: nothing };
    this.#schedules.set(id, schedule);
    this.#later(id, schedule);
    void Promise.all(
      evictions.map(async (eviction) =>
        Array.from(await evictor.clientsOf(eviction), (source) => ({ eviction, source })),
      ),
    ).then((found) => {
      const all = found.flat().sort((a, b) => orderOf(a.source) - orderOf(b.source));
      const nowMs = clock.monotonicMs();
      const leftMs = Math.max(0, schedule.untilMs - nowMs);
      const dues = all.map((one, index) => ({
        ...one,
        dueMs: nowMs + (leftMs * (index + 0.5)) / all.length,
      }));
      schedule.queue = dues.reverse();
    });
  }

  #later(id: string, schedule: Schedule): void {
    const leftMs = schedule.untilMs - this.#deps.clock.monotonicMs();
    const delayMs = Math.max(1, Math.min(STEP_MS, leftMs));
    schedule.cancel = this.#deps.clock.setTimer(delayMs, () => void this.#step(id, schedule), {
      unref: true,
    });
  }

  async #step(id: string, schedule: Schedule): Promise<void> {
    const { clock, evictor, onOver } = this.#deps;
    for (let done = 0; done < MOST_PER_STEP; done++) {
      const next = schedule.queue.at(-1);
      if (next === undefined || next.dueMs > clock.monotonicMs()) break;
      schedule.queue.pop();
      await evictor.evictClient(next.eviction, next.source);
    }
    if (this.#schedules.get(id) !== schedule) return;
    if (clock.monotonicMs() < schedule.untilMs) this.#later(id, schedule);
    else onOver(id);
  }
}

/** As good as random, and the same for the same client. */
function orderOf(source: string): number {
  let hash = 0;
  for (let index = 0; index < source.length; index++) hash = mix32(hash ^ source.charCodeAt(index));
  return hash;
}

function nothing(): void {
  // Nothing is scheduled.
}
