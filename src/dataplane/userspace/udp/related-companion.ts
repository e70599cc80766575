import type { RemoteInfo, Socket } from 'node:dgram';
import type { Rule } from '../../../model/rule.js';
import type { FlowKeeper } from '../flow-keeper.js';
import { bindNow, createDatagramSocket } from './datagram-socket.js';
import type { LocalEnd } from './upstream-dialer.js';

/** What waits for datagrams of one backend. */
export interface CompanionEnd {
  /** Of one of its flows: what is thrown away is counted there. Undefined without any. */
  readonly rule: Rule | undefined;
  /** From any port of the backend. */
  receive(datagram: Buffer, port: number): void;
}

/**
 * An unconnected socket beside connected ones on the same local address and port. It takes datagrams of the backends
 * that those lead to, whatever port they come from, and nothing else (RFC 4787, section 5: address-dependent
 * filtering). It closes when the last end has left.
 */
export class Companion {
  readonly #socket: Socket;
  readonly #keeper: Pick<FlowKeeper, 'dropped'>;
  /** By the backend's address as the system writes it. */
  readonly #ends = new Map<string, CompanionEnd>();

  private constructor(socket: Socket, keeper: Pick<FlowKeeper, 'dropped'>) {
    this.#socket = socket;
    this.#keeper = keeper;
    socket.on('message', (datagram, from) => this.#received(datagram, from));
    // A failed receive concerns one datagram; the socket goes on.
    socket.on('error', () => undefined);
  }

  /** Undefined where the system has no socket for it. */
  static open({ source, sourcePort }: LocalEnd, keeper: Pick<FlowKeeper, 'dropped'>): Companion | undefined {
    const socket = createDatagramSocket(source.family, 'shared');
    if (bindNow(socket, source, sourcePort) === undefined) return new Companion(socket, keeper);
    socket.close();
    return undefined;
  }

  enter(peer: string, end: CompanionEnd): void {
    this.#ends.set(peer, end);
  }

  /** True: it was the last one, and the socket is closed. */
  leave(peer: string): boolean {
    this.#ends.delete(peer);
    if (this.#ends.size > 0) return false;
    this.#socket.close();
    return true;
  }

  #received(datagram: Buffer, from: RemoteInfo): void {
    const end = this.#ends.get(from.address);
    if (end !== undefined) {
      end.receive(datagram, from.port);
      return;
    }
    const [anyEnd] = this.#ends.values();
    if (anyEnd?.rule !== undefined) this.#keeper.dropped(anyEnd.rule, 'udp', 'unexpected-reply');
  }
}
