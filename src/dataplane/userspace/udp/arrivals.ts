import type { RemoteInfo } from 'node:dgram';
import type { IpAddress } from '../../../model/address.js';
import type { DropReason } from '../../../model/events.js';
import type { UdpFlowState } from '../../hand-over.js';
import type { Listener, ListenerBinding } from '../listener.js';

/** Whose a first datagram is, and who serves where it was sent. */
export interface Arrival extends Pick<ListenerBinding, 'rule' | 'ruleIndex' | 'frontend'> {
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: IpAddress;
  readonly destinationPort: number;
}

/** How a listener learns that. */
export interface Arrivals {
  /** `held`: that is not known yet; the datagram is received again when it is. */
  of(datagram: Buffer, from: RemoteInfo, binding: ListenerBinding): Arrival | 'held' | DropReason;
  /** A flow of that client has come from another process. */
  resumed(key: number, record: UdpFlowState): void;
  /** A flow of that client has ended. */
  ended(key: number): void;
  /** What another process needs to know of that client's flow, besides the flow. */
  record(key: number): Pick<UdpFlowState, 'clientPort'>;
  /** The socket is closed. */
  close(): void;
}

/** Of a socket that is bound to the very address and port that clients send to. */
export const ownEndpoint: Arrivals = {
  of(
    _datagram,
    { address, port },
    { rule, ruleIndex, frontend, address: destination, port: destinationPort },
  ) {
    return {
      ...{ rule, ruleIndex, frontend },
      ...{ source: address, sourcePort: port, destination, destinationPort },
    };
  },
  resumed: () => undefined,
  ended: () => undefined,
  record: () => ({}),
  close: () => undefined,
};

/** The rule that serves a port of a listener at present. */
export class ServedPort {
  readonly #listener: Pick<Listener, 'binding'>;
  readonly #port: number;

  constructor(listener: Pick<Listener, 'binding'>, port: number) {
    this.#listener = listener;
    this.#port = port;
  }

  get rule(): ListenerBinding['rule'] {
    const { captured, rule } = this.#listener.binding;
    return (captured?.protocol === 'udp' ? captured.ports.at(this.#port)?.rule : undefined) ?? rule;
  }
}
