/** Delays that double from `firstMs` up to `maxMs`. */
export class Backoff {
  readonly #firstMs: number;
  readonly #maxMs: number;
  #nextMs: number;

  constructor(options: { readonly firstMs: number; readonly maxMs: number }) {
    this.#firstMs = options.firstMs;
    this.#maxMs = options.maxMs;
    this.#nextMs = options.firstMs;
  }

  nextMs(): number {
    const delayMs = this.#nextMs;
    this.#nextMs = Math.min(this.#maxMs, delayMs * 2);
    return delayMs;
  }

  reset(): void {
    this.#nextMs = this.#firstMs;
  }
}
