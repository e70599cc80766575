import type { Socket } from 'node:dgram';

/** Bytes that may wait in the process for a socket's send buffer. */
const MAX_QUEUED_BYTES = 1_048_576;

/** Sends under way below which the queue cannot be long: most finish within the call. */
const UNSUSPICIOUS_SENDS = 16;

/** Bounds what waits for a socket that does not take datagrams as fast as they come. */
export class SendQueueGuard {
  readonly #socket: Pick<Socket, 'getSendQueueSize'>;
  #underWay = 0;

  constructor(socket: Pick<Socket, 'getSendQueueSize'>) {
    this.#socket = socket;
  }

  /** Whether one more would be too many. Asks the socket only when sends have piled up. */
  isFull(): boolean {
    return this.#underWay >= UNSUSPICIOUS_SENDS && this.#socket.getSendQueueSize() >= MAX_QUEUED_BYTES;
  }

  started(): void {
    this.#underWay++;
  }

  finished(): void {
    this.#underWay--;
  }
}
