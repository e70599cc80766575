import { firstShare, type CapShare, type CapShares } from '../worker-plane.js';

/** A worker's shares of the caps that hold over all workers; one worker alone has them whole. */
export class WorkerCaps {
  readonly #worker: number;
  readonly #workers: number;
  readonly #shares = new Map<string, CapShare>();

  constructor({ worker, workers }: { readonly worker: number; readonly workers: number }) {
    this.#worker = worker;
    this.#workers = workers;
  }

  allow(shares: CapShares): void {
    for (const [name, share] of shares) this.#shares.set(name, share);
  }

  /** What this worker may use of a cap. After a change of the cap never more than before, until a new share comes. */
  shareOf(name: string, cap: number): number {
    if (this.#workers === 1) return cap;
    const first = firstShare(cap, this.#worker, this.#workers);
    const given = this.#shares.get(name);
    if (given === undefined) return first;
    return given.cap === cap ? given.share : Math.min(given.share, first);
  }
}
