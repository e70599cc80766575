/** What keeping a datagram costs beyond its bytes, roughly. */
const OVERHEAD_BYTES = 256;

/** Memory for datagrams that may have to be sent again, of all UDP flows together. */
export class HeldMemory {
  readonly #limitBytes: number;
  #usedBytes = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Whether there is room to keep this datagram; if so, `give` it back later. */
  take(datagram: Buffer): boolean {
    const bytes = datagram.length + OVERHEAD_BYTES;
    if (this.#usedBytes + bytes > this.#limitBytes) return false;
    this.#usedBytes += bytes;
    return true;
  }

  give(datagram: Buffer): void {
    this.#usedBytes -= datagram.length + OVERHEAD_BYTES;
  }
}
