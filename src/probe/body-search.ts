/** A probe looks at no more of a body than this. */
export const BODY_LIMIT_BYTES = 64 * 1024;

/** Looks for a text (as UTF-8) in the first 64 KiB of a body that comes in pieces of any size. */
export class BodySearch {
  readonly #expected: Buffer;
  readonly #seen = Buffer.allocUnsafe(BODY_LIMIT_BYTES);
  #length = 0;
  #found: boolean;

  constructor(expected: string) {
    this.#expected = Buffer.from(expected, 'utf8');
    this.#found = this.#expected.length === 0;
  }

  get found(): boolean {
    return this.#found;
  }

  /** Takes the next piece. `absent`: the limit is reached without a match. */
  add(chunk: Uint8Array): 'found' | 'absent' | 'more' {
    if (this.#found) return 'found';
    const taken = chunk.subarray(0, BODY_LIMIT_BYTES - this.#length);
    // A match that ends in this piece may begin before it; all earlier starts have been ruled out.
    const from = Math.max(0, this.#length - this.#expected.length + 1);
    this.#seen.set(taken, this.#length);
    this.#length += taken.length;
    this.#found = this.#seen.subarray(from, this.#length).includes(this.#expected);
    if (this.#found) return 'found';
    return this.#length === BODY_LIMIT_BYTES ? 'absent' : 'more';
  }
}
