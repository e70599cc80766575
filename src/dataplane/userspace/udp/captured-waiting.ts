import type { RemoteInfo } from 'node:dgram';
import type { Clock } from '../../../runtime/clock.js';
import type { HeldMemory } from './held-memory.js';
import { WaitingDatagrams } from './waiting-datagrams.js';

/** An event comes within a millisecond, or some of a busy machine. */
const ASK_AFTER_MS = 50;

/** By then several listings have not had it either. */
const DROP_AFTER_MS = 1000;

const MOST_CLIENTS = 16_384;

interface Waiting {
  readonly from: RemoteInfo;
  readonly sinceMs: number;
  readonly datagrams: WaitingDatagrams;
}

export interface WaitingClientsDeps {
  readonly clock: Clock;
  readonly memory: Pick<HeldMemory, 'take' | 'give'>;
  /** Some wait longer than an event would take: it may be lost. Called again and again while they do. */
  readonly onOverdue: () => void;
  /** It has waited in vain. */
  readonly onDropped: (datagram: Buffer) => void;
}

/** First datagrams of clients that are not known yet: a few of each client, in order, and not for long. */
export class WaitingClients {
  readonly #deps: WaitingClientsDeps;
  /** The longest waiting first. */
  readonly #waiting = new Map<string, Waiting>();
  #cancelTimer: (() => void) | undefined;

  constructor(deps: WaitingClientsDeps) {
    this.#deps = deps;
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** False: there is no room. */
  add(client: string, datagram: Buffer, from: RemoteInfo): boolean {
    const { clock, memory } = this.#deps;
    const present = this.#waiting.get(client);
    if (present === undefined && this.#waiting.size >= MOST_CLIENTS) return false;
    if (!memory.take(datagram)) return false;
    const waiting = present ?? { from, sinceMs: clock.monotonicMs(), datagrams: new WaitingDatagrams() };
    if (!waiting.datagrams.add(datagram)) {
      memory.give(datagram);
      return false;
    }
    if (present === undefined) this.#waiting.set(client, waiting);
    this.#cancelTimer ??= clock.setTimer(ASK_AFTER_MS, () => this.#look());
    return true;
  }

  /** Undefined: nothing of that client waits. */
  take(client: string): { readonly from: RemoteInfo; readonly datagrams: readonly Buffer[] } | undefined {
    const waiting = this.#waiting.get(client);
    if (waiting === undefined) return undefined;
    this.#waiting.delete(client);
    const datagrams = waiting.datagrams.takeAll();
    for (const datagram of datagrams) this.#deps.memory.give(datagram);
    return { from: waiting.from, datagrams };
  }

  clear(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    for (const client of [...this.#waiting.keys()]) this.take(client);
  }

  #look(): void {
    const { clock, onOverdue, onDropped } = this.#deps;
    this.#cancelTimer = undefined;
    const nowMs = clock.monotonicMs();
    let isOverdue = false;
    for (const [client, { sinceMs }] of this.#waiting) {
      const ageMs = nowMs - sinceMs;
      isOverdue ||= ageMs >= ASK_AFTER_MS;
      if (ageMs < DROP_AFTER_MS) break;
      for (const datagram of this.take(client)?.datagrams ?? []) onDropped(datagram);
    }
    if (this.#waiting.size === 0) return;
    if (isOverdue) onOverdue();
    this.#cancelTimer ??= clock.setTimer(ASK_AFTER_MS, () => this.#look());
  }
}
