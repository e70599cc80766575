const NEWLINE = 0x0a;

/** Cuts a stream of bytes into lines. What follows the last newline waits for more. */
export class LineSplitter {
  #rest: Buffer | undefined;

  /** The whole lines that the chunk completes, without newlines. */
  push(chunk: Buffer): string[] {
    const end = chunk.lastIndexOf(NEWLINE);
    if (end < 0) {
      this.#rest = this.#rest === undefined ? chunk : Buffer.concat([this.#rest, chunk]);
      return [];
    }
    const whole = chunk.subarray(0, end);
    const text = (this.#rest === undefined ? whole : Buffer.concat([this.#rest, whole])).toString();
    this.#rest = end + 1 < chunk.length ? chunk.subarray(end + 1) : undefined;
    return text.split('\n');
  }
}
