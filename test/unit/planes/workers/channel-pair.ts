import type { Channel, SentHandle } from '../../../../src/runtime/peer.js';

/** One end of a pair. */
export class PairEnd implements Channel {
  peer: PairEnd | undefined;
  closed = false;
  readonly #messageListeners: ((message: unknown, handle?: unknown) => void)[] = [];
  readonly #closeListeners: (() => void)[] = [];

  /** A handle arrives as it is, not as a copy. */
  send(message: unknown, sent?: SentHandle): void {
    if (!this.closed) {
      const copy: unknown = structuredClone(message);
      queueMicrotask(() => this.peer?.receive(copy, sent?.handle));
    }
    sent?.release();
  }

  onMessage(listener: (message: unknown, handle?: unknown) => void): void {
    this.#messageListeners.push(listener);
  }

  onClose(listener: () => void): void {
    this.#closeListeners.push(listener);
  }

  /** As if a message came from the peer. */
  receive(message: unknown, handle?: unknown): void {
    if (this.closed) return;
    for (const listener of this.#messageListeners) listener(message, handle);
  }

  /** Tells only this end's listeners; what was sent before and has not come yet is lost. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    for (const listener of this.#closeListeners) listener();
  }
}

/** Two ends that hand each other structured clones, in order, before the next turn of the event loop. */
export function channelPair(): { readonly control: PairEnd; readonly worker: PairEnd } {
  const [control, worker] = [new PairEnd(), new PairEnd()];
  control.peer = worker;
  worker.peer = control;
  return { control, worker };
}

/** Lets all messages and promises under way arrive. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
