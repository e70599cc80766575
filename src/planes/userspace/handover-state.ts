import type { ListeningSocket, UdpFlowState } from '../contract.js';
import { EndpointMap, type ListenerBinding } from './listen-plan.js';

/** A flow that came in by a captured socket is filed under the frontend's address, whatever its port. */
const ALL_PORTS = 0;

/** What a listener gets of the process before this one. */
export interface Inherited {
  /** The raw handle of a socket, which is the listener's now. */
  readonly handle: unknown;
  /** UDP flows to continue. */
  readonly flows: readonly UdpFlowState[];
}

/** What a plane got from its predecessor, until its listeners have taken it. */
export class HandoverState {
  readonly #sockets = new EndpointMap<ListeningSocket>();
  readonly #flows = new EndpointMap<UdpFlowState[]>();

  addSockets(sockets: readonly ListeningSocket[]): void {
    for (const socket of sockets) {
      this.#sockets.get(socket)?.release();
      this.#sockets.set(socket, socket);
    }
  }

  setFlows(flows: readonly UdpFlowState[]): void {
    this.#flows.clear();
    for (const flow of flows) {
      const { destination, destinationPort } = flow.tuple;
      const port = flow.clientPort === undefined ? destinationPort : ALL_PORTS;
      const end = { protocol: 'udp', address: destination, port } as const;
      const group = this.#flows.get(end);
      if (group === undefined) this.#flows.set(end, [flow]);
      else group.push(flow);
    }
  }

  /** A socket is given once; undefined: there is none, so open one. */
  take(binding: ListenerBinding): Inherited {
    const { captured } = binding;
    const socket = this.#sockets.get(binding);
    this.#sockets.delete(binding);
    const flows = this.#flows.get(
      captured?.protocol === 'udp'
        ? { protocol: 'udp', address: captured.ports.frontend.address, port: ALL_PORTS }
        : binding,
    );
    return { handle: socket?.handle, flows: flows ?? [] };
  }

  /** Closes what no listener has taken: connections would wait there forever. */
  discard(): void {
    for (const socket of this.#sockets.values()) socket.release();
    this.#sockets.clear();
    this.#flows.clear();
  }
}
