import type { Server } from 'node:net';
import type { CapturePlan } from '../../../model/capture.js';
import type { ListenerBinding } from '../listener.js';

/**
 * The transparent listening sockets that were handed in, for as long as the plane takes flows. A descriptor can be used
 * once only: with the server on it the descriptor is closed. So a server that nobody wants for now is kept.
 */
export class TransparentSockets {
  readonly #descriptors: NonNullable<CapturePlan['descriptors']>;
  readonly #kept = new Map<4 | 6, Server>();
  #retired = false;

  constructor({ descriptors = {} }: Pick<CapturePlan, 'descriptors'>) {
    this.#descriptors = descriptors;
  }

  /** Whether the binding's socket was handed in, so that nobody needs to bind one. */
  has({ captured, address }: ListenerBinding): boolean {
    return captured?.protocol === 'tcp' && this.#descriptors[address.family] !== undefined;
  }

  /** What to listen on: a server that listens already, or a descriptor; undefined: there is none. */
  take(family: 4 | 6): Server | number | undefined {
    const kept = this.#kept.get(family);
    this.#kept.delete(family);
    return kept ?? this.#descriptors[family];
  }

  /** A server that is no longer wanted. Nothing is steered to it then; what still comes is for the caller to refuse. */
  keep(family: 4 | 6, server: Server): void {
    if (this.#retired) server.close();
    else this.#kept.set(family, server);
  }

  /** No flows are taken any more: from now on servers are closed. Other processes go on with the same sockets. */
  retire(): void {
    this.#retired = true;
    for (const server of this.#kept.values()) server.close();
    this.#kept.clear();
  }
}
