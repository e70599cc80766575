/**
 * Numbers the turns of the event loop, as far as anybody asks: what happens in one poll of libuv gets one number. Costs
 * one setImmediate for all who ask within a turn.
 */
export class LoopTurn {
  #number = 0;
  #scheduled = false;
  readonly #next = (): void => {
    this.#scheduled = false;
    this.#number++;
  };

  /** The number of this turn. */
  now(): number {
    if (!this.#scheduled) {
      this.#scheduled = true;
      setImmediate(this.#next);
    }
    return this.#number;
  }
}
