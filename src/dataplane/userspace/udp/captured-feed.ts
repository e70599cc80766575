import type { FlowOrigin, OriginFeed, OriginFollower } from '../../../model/flow-origin.js';
import { Backoff } from '../../../runtime/backoff.js';
import type { Clock } from '../../../runtime/clock.js';

/** From one listing's start to the next one's: each reads the kernel's whole table. */
const LIST_EVERY_MS = 300;
const MOST_LIST_DELAY_MS = 10_000;

/** Who wants to know the origins of one receiver. */
export interface OriginReader {
  onNew(origin: FlowOrigin): void;
  onGone(origin: FlowOrigin): void;
  /** All are being listed. What events tell until `listed` is newer than the list, or will be told again. */
  listing(): void;
  /** All there are; undefined: that could not be found out. */
  listed(origins: readonly FlowOrigin[] | undefined): void;
}

/** The origins of all captured sockets of one port, each told its own. It follows the feed while it has readers. */
export class CapturedFeed implements OriginFollower {
  readonly #feed: OriginFeed;
  readonly #clock: Clock;
  readonly #port: number;
  readonly #readers = new Map<string, OriginReader>();
  readonly #backoff = new Backoff({ firstMs: LIST_EVERY_MS, maxMs: MOST_LIST_DELAY_MS });
  #stop: () => void = () => undefined;
  #cancelTimer: (() => void) | undefined;
  #notBeforeMs = 0;
  #isListing = false;
  #isWanted = false;

  constructor({ feed, clock }: { readonly feed: OriginFeed; readonly clock: Clock }, port: number) {
    this.#feed = feed;
    this.#clock = clock;
    this.#port = port;
  }

  /** `receiver`: the socket's address. */
  join(receiver: string, reader: OriginReader): void {
    const isFirst = this.#readers.size === 0;
    this.#readers.set(receiver, reader);
    if (isFirst) this.#stop = this.#feed.follow(this.#port, this);
    else this.ask();
  }

  leave(receiver: string): void {
    if (!this.#readers.delete(receiver) || this.#readers.size > 0) return;
    this.#stop();
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#isWanted = false;
  }

  /** Has all origins listed, soon. */
  ask(): void {
    if (this.#isListing) {
      this.#isWanted = true;
      return;
    }
    if (this.#cancelTimer !== undefined) return;
    const delayMs = this.#notBeforeMs - this.#clock.monotonicMs();
    if (delayMs <= 0) {
      void this.#list();
      return;
    }
    this.#cancelTimer = this.#clock.setTimer(
      delayMs,
      () => {
        this.#cancelTimer = undefined;
        void this.#list();
      },
      { unref: true },
    );
  }

  onNew(origin: FlowOrigin): void {
    this.#readers.get(origin.receiver)?.onNew(origin);
  }

  onGone(origin: FlowOrigin): void {
    this.#readers.get(origin.receiver)?.onGone(origin);
  }

  onGap(): void {
    this.ask();
  }

  async #list(): Promise<void> {
    this.#isListing = true;
    this.#isWanted = false;
    this.#notBeforeMs = this.#clock.monotonicMs() + LIST_EVERY_MS;
    const readers = new Map(this.#readers);
    for (const reader of readers.values()) reader.listing();
    const origins = await this.#feed.list(this.#port);
    this.#isListing = false;
    const byReceiver = new Map<string, FlowOrigin[]>();
    for (const origin of origins ?? []) {
      const own = byReceiver.get(origin.receiver);
      if (own === undefined) byReceiver.set(origin.receiver, [origin]);
      else own.push(origin);
    }
    for (const [receiver, reader] of readers) {
      if (this.#readers.get(receiver) !== reader) continue;
      reader.listed(origins && (byReceiver.get(receiver) ?? []));
    }
    if (this.#readers.size === 0) return;
    if (origins !== undefined) this.#backoff.reset();
    else this.#notBeforeMs = this.#clock.monotonicMs() + this.#backoff.nextMs();
    if (origins === undefined) this.ask();
    else this.#askIfWanted();
  }

  #askIfWanted(): void {
    if (this.#isWanted) this.ask();
  }
}
