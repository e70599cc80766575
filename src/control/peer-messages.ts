import { BalancerError } from '../model/errors.js';
import type { Clock } from '../runtime/clock.js';
import type { PeerChannel } from '../runtime/peer-process.js';

interface Kinded {
  readonly kind: string;
}

/** Messages of an upgrade, awaited one after another by their kind. */
export class PeerMessages<M extends Kinded> {
  readonly #clock: Clock;
  readonly #arrived: M[] = [];
  #ended: Error | undefined;
  #wake: () => void = () => undefined;

  /** `onHandle` gets messages that bring a handle; they are not awaited. */
  constructor(clock: Clock, channel: PeerChannel, onHandle: (message: M, handle: unknown) => void) {
    this.#clock = clock;
    channel.onMessage((message, handle) => {
      // Both sides speak the same protocol, which the first message says.
      if (handle !== undefined) onHandle(message as M, handle);
      else this.#arrived.push(message as M);
      this.#wake();
    });
  }

  /** Whoever waits, and will wait, is refused with this. The first one counts. */
  end(why: string): void {
    this.#ended ??= failed(why);
    this.#wake();
  }

  /** The next message, which must be of this kind. Rejects when it is another, none comes in time, or none can come. */
  async next<K extends M['kind']>(kind: K, withinMs: number): Promise<Extract<M, { readonly kind: K }>> {
    const untilMs = this.#clock.monotonicMs() + withinMs;
    for (;;) {
      const message = this.#arrived.shift();
      if (message !== undefined) {
        if (message.kind !== kind) throw failed(strange(message, kind));
        return message as Extract<M, { readonly kind: K }>;
      }
      if (this.#ended !== undefined) throw this.#ended;
      const leftMs = untilMs - this.#clock.monotonicMs();
      if (leftMs <= 0) throw failed(`No "${kind}" came within ${withinMs} ms`);
      await this.#something(leftMs);
    }
  }

  #something(leftMs: number): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.#clock.setTimer(leftMs, resolve);
      this.#wake = () => {
        cancel();
        resolve();
      };
    });
  }
}

function strange(message: Kinded & { readonly message?: unknown }, wanted: string): string {
  return message.kind === 'failed' && typeof message.message === 'string'
    ? message.message
    : `The other process said "${message.kind}", must be "${wanted}"`;
}

function failed(message: string): BalancerError {
  return new BalancerError(message, { code: 'LB_UPGRADE_FAILED', source: 'system' });
}
