/** Keeps the best `limit` of the items it is shown, in order: memory for those and no more. */
export class BestList<T> {
  readonly #compare: (a: T, b: T) => number;
  readonly #limit: number;
  readonly #items: T[] = [];

  /** `compare` as for Array.sort: the better one first. Of equals, who came first. */
  constructor(compare: (a: T, b: T) => number, limit: number) {
    this.#compare = compare;
    this.#limit = limit;
  }

  offer(item: T): void {
    const worst = this.#items.at(-1);
    if (this.#items.length >= this.#limit && worst !== undefined && this.#compare(item, worst) >= 0) return;
    this.#items.splice(this.#placeOf(item), 0, item);
    if (this.#items.length > this.#limit) this.#items.pop();
  }

  /** The best first. */
  get items(): readonly T[] {
    return this.#items;
  }

  /** Behind everybody who is as good or better. */
  #placeOf(item: T): number {
    let low = 0;
    let high = this.#items.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const other = this.#items[middle];
      if (other !== undefined && this.#compare(other, item) <= 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
