/** Per flow. More than a burst of a request, far less than a flood. */
const MAX_DATAGRAMS = 16;
const MAX_BYTES = 131_072;

/** A few datagrams, in order, until they can be sent. */
export class WaitingDatagrams {
  #datagrams: Buffer[] = [];
  #bytes = 0;

  /** False: there is no room, and the datagram was not taken. */
  add(datagram: Buffer): boolean {
    if (this.#datagrams.length >= MAX_DATAGRAMS || this.#bytes + datagram.length > MAX_BYTES) return false;
    this.#datagrams.push(datagram);
    this.#bytes += datagram.length;
    return true;
  }

  takeAll(): readonly Buffer[] {
    const datagrams = this.#datagrams;
    this.#datagrams = [];
    this.#bytes = 0;
    return datagrams;
  }
}
