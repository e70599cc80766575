import type { PortGate } from '../worker-plane.js';
import type { Channel } from './channel.js';
import type {
  ClaimMessage,
  ControlMessage,
  ReleaseMessage,
  TcpEnd,
  VerdictsMessage,
} from './worker-protocol.js';

interface Waiting {
  readonly end: TcpEnd;
  readonly resolve: (errorCode: string | undefined) => void;
}

/** The data worker's end of PortClaims: puts the claims of one turn together in one message. */
export class RemotePortGate implements PortGate {
  readonly #channel: Channel;
  readonly #asked = new Map<number, readonly Waiting[]>();
  #collected: Waiting[] = [];
  #nextId = 1;

  constructor(channel: Channel) {
    this.#channel = channel;
    channel.onMessage((message) => {
      if ((message as ControlMessage).kind === 'verdicts') this.#answered(message as VerdictsMessage);
    });
    // Who cannot ask any more listens to nobody: an orphan takes no new flows.
    channel.onClose(() => {
      for (const id of [...this.#asked.keys()])
        this.#answered({ kind: 'verdicts', id, errorCodes: [] }, 'EPIPE');
    });
  }

  claim(address: string, port: number): Promise<string | undefined> {
    return new Promise((resolve) => {
      if (this.#collected.length === 0) queueMicrotask(() => this.#ask());
      this.#collected.push({ end: { address, port }, resolve });
    });
  }

  release(address: string, port: number): void {
    const message: ReleaseMessage = { kind: 'release', end: { address, port } };
    this.#channel.send(message);
  }

  #ask(): void {
    const id = this.#nextId++;
    const waiting = this.#collected;
    this.#collected = [];
    this.#asked.set(id, waiting);
    const message: ClaimMessage = { kind: 'claim', id, ends: waiting.map(({ end }) => end) };
    this.#channel.send(message);
  }

  #answered({ id, errorCodes }: VerdictsMessage, otherwise?: string): void {
    const waiting = this.#asked.get(id) ?? [];
    this.#asked.delete(id);
    for (const [index, { resolve }] of waiting.entries()) resolve(errorCodes[index] ?? otherwise);
  }
}
