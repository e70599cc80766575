import type { Socket } from 'node:dgram';
import type { Rule } from '../../../model/rule.js';
import type { UdpFlowState } from '../../hand-over.js';
import type { ListenerBinding } from '../listener.js';
import type { BoundListener } from './bound-listener.js';
import { bindNow, createDatagramSocket } from './datagram-socket.js';
import type { AnswerHost } from './related-ends.js';

/** Each takes a descriptor, and clients make backends open them. */
const MOST_SOCKETS = 1024;

/**
 * Sockets on ports of captured frontends, for flows that backends begin. Nobody listens there: the kernel steers what
 * clients send to the one captured socket. What leaves from such a socket makes an entry in conntrack, by which the
 * client's datagrams are answers and come back to it. It is a listener that is closing from its first flow on: it takes
 * no other clients and goes with its last flow. An upgrade does not hand it over.
 */
export class AnswerSockets {
  readonly #listen: (binding: ListenerBinding, socket: Socket) => BoundListener;
  readonly #open = new Set<BoundListener>();

  /** `listen`: makes a listener of a bound socket, known by its address and port, that tells when it has closed. */
  constructor(listen: (binding: ListenerBinding, socket: Socket) => BoundListener) {
    this.#listen = listen;
  }

  get size(): number {
    return this.#open.size;
  }

  /** Whether it was one of these. */
  left(listener: BoundListener): boolean {
    return this.#open.delete(listener);
  }

  /** Undefined: there are too many, or the port cannot be had, since another process listens there for one. */
  open(binding: ListenerBinding): AnswerHost | undefined {
    if (this.#open.size >= MOST_SOCKETS) return undefined;
    const socket = createDatagramSocket(binding.address.family, 'exclusive');
    if (bindNow(socket, binding.address, binding.port) !== undefined) {
      socket.close();
      return undefined;
    }
    const listener = this.#listen(binding, socket);
    this.#open.add(listener);
    return new AnswerSocket(listener);
  }
}

class AnswerSocket implements AnswerHost {
  readonly #listener: BoundListener;

  constructor(listener: BoundListener) {
    this.#listener = listener;
  }

  get rule(): Rule {
    return this.#listener.rule;
  }

  begin(record: UdpFlowState, datagram: Buffer): void {
    this.#listener.begin(record, datagram);
    this.#listener.close();
  }
}
