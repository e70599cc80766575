import type { DropReason, ListeningChanged, Overload, PlaneEvent } from '../../model/events.js';
import type { ApplyReport } from '../data-plane.js';

/** What one worker listens on, and on how many ports it cannot. */
export interface ListeningShare {
  readonly listeners: ApplyReport['listeners'];
  readonly failures: number;
}

/** Makes the events of several workers those of one plane. It keeps what each worker last said. */
export class GroupEvents {
  readonly #listening: ListeningShare[];
  /** Workers that are overloaded, by reason. */
  readonly #overloaded = new Map<DropReason, Set<number>>();

  constructor(workers: number) {
    this.#listening = Array.from({ length: workers }, () => ({ listeners: { tcp: 0, udp: 0 }, failures: 0 }));
  }

  /** What a worker answered to a start or apply. */
  reported(worker: number, { listeners, failures }: ApplyReport): void {
    this.#listening[worker] = { listeners, failures: failures.length };
  }

  /** Of all workers. */
  get listening(): ListeningShare {
    return this.#listening.reduce((a, b) => ({
      listeners: {
        tcp: a.listeners.tcp + b.listeners.tcp,
        udp: a.listeners.udp + b.listeners.udp,
      },
      failures: a.failures + b.failures,
    }));
  }

  merge(worker: number, events: readonly PlaneEvent[]): readonly PlaneEvent[] {
    return events.flatMap((event): readonly PlaneEvent[] => {
      if (event.type === 'overload') return this.#isNews(worker, event) ? [event] : [];
      if (event.type === 'worker-lost') return [event, ...this.#relieved(worker, event.atMs)];
      if (event.type === 'listening-changed') return [this.#changed(worker, event)];
      return [event];
    });
  }

  #changed(worker: number, event: ListeningChanged): ListeningChanged {
    this.#listening[worker] = event;
    return { ...event, ...this.listening };
  }

  /** An overload starts with its first worker and ends with its last. */
  #isNews(worker: number, { phase, reason }: Overload): boolean {
    const workers = this.#overloaded.get(reason) ?? new Set();
    this.#overloaded.set(reason, workers);
    if (phase === 'started') return workers.size < workers.add(worker).size && workers.size === 1;
    return workers.delete(worker) && workers.size === 0;
  }

  /** The dead refuse nobody. */
  #relieved(worker: number, atMs: number): readonly Overload[] {
    const ended: Overload[] = [];
    for (const [reason, workers] of this.#overloaded) {
      if (workers.delete(worker) && workers.size === 0)
        ended.push({ type: 'overload', atMs, phase: 'ended', reason });
    }
    return ended;
  }
}
