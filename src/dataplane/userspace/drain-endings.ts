import type { Flow } from '../../flow/flow.js';
import { mix32 } from '../../flow/mix32.js';
import type { Clock } from '../../runtime/clock.js';

/** Flows end in batches this far apart. */
const STEP_MS = 100;

/** What is to end on a backend that was drained. */
export interface Drained {
  /** 0: at once. */
  readonly spreadMs: number;
  readonly flows: Flow[];
}

interface Due {
  readonly flow: Flow;
  readonly dueMs: number;
}

/** The endings of one backend. */
interface Schedule {
  readonly spreadMs: number;
  readonly untilMs: number;
  /** The next is the last. */
  queue: Due[];
  /** Every flow that was ever in the queue: what stays in spite of its end, as UDP that is to move, has had its turn. */
  readonly known: WeakSet<Flow>;
  cancel: () => void;
}

/**
 * Ends the flows of drained backends one after another, evenly over the time asked for, so that their clients do not
 * all come back at once. The order follows from the flows' ids alone and is as good as random.
 */
export class DrainEndings {
  readonly #clock: Clock;
  readonly #end: (flow: Flow) => void;
  readonly #schedules = new Map<string, Schedule>();
  #stopped = false;

  /** `end` is called once for each flow when its turn comes; the flow may be gone by then. */
  constructor(clock: Clock, end: (flow: Flow) => void) {
    this.#clock = clock;
    this.#end = end;
  }

  /**
   * What is to end now, by backend id. A backend that was there before goes on as it began, with the flows that have
   * come since; one that is missing has its endings called off.
   */
  replace(drained: ReadonlyMap<string, Drained>): void {
    for (const [id, schedule] of this.#schedules) {
      if (drained.get(id)?.spreadMs === schedule.spreadMs) continue;
      schedule.cancel();
      this.#schedules.delete(id);
    }
    if (this.#stopped) return;
    for (const [id, { spreadMs, flows }] of drained) this.#add(this.#scheduleOf(id, spreadMs), flows);
  }

  /** For good. */
  stop(): void {
    this.#stopped = true;
    this.replace(new Map());
  }

  #scheduleOf(backendId: string, spreadMs: number): Schedule {
    let schedule = this.#schedules.get(backendId);
    if (schedule === undefined) {
      const untilMs = this.#clock.monotonicMs() + spreadMs;
      schedule = { spreadMs, untilMs, queue: [], known: new WeakSet(), cancel: nothing };
      this.#schedules.set(backendId, schedule);
    }
    return schedule;
  }

  #add(schedule: Schedule, flows: readonly Flow[]): void {
    const added = flows.filter((flow) => !schedule.known.has(flow));
    if (added.length === 0) return;
    for (const flow of added) schedule.known.add(flow);
    const nowMs = this.#clock.monotonicMs();
    const leftMs = Math.max(0, schedule.untilMs - nowMs);
    added.sort((a, b) => mix32(a.id) - mix32(b.id));
    const dues = added.map((flow, index) => ({
      flow,
      dueMs: nowMs + (leftMs * (index + 0.5)) / added.length,
    }));
    schedule.queue = [...schedule.queue, ...dues].sort((a, b) => b.dueMs - a.dueMs);
    this.#advance(schedule);
  }

  #advance(schedule: Schedule): void {
    schedule.cancel();
    schedule.cancel = nothing;
    const nowMs = this.#clock.monotonicMs();
    const { queue } = schedule;
    for (let next = queue.at(-1); next !== undefined && next.dueMs <= nowMs; next = queue.at(-1)) {
      queue.pop();
      this.#end(next.flow);
    }
    const next = queue.at(-1);
    if (next === undefined) return;
    const delayMs = Math.max(next.dueMs - nowMs, Math.min(STEP_MS, schedule.untilMs - nowMs));
    schedule.cancel = this.#clock.setTimer(delayMs, () => this.#advance(schedule));
  }
}

function nothing(): void {
  // Nothing is scheduled.
}
