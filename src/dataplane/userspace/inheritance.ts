import type { Protocol } from '../../model/five-tuple.js';
import type { ListeningSocket, UdpFlowState } from '../hand-over.js';

/** No flow has that port. */
const ALL_PORTS = 0;

/** What a plane got from its predecessor, until its listeners have taken it. */
export class Inheritance {
  readonly #sockets = new Map<string, ListeningSocket>();
  #flows = new Map<string, UdpFlowState[]>();

  addSockets(sockets: readonly ListeningSocket[]): void {
    for (const socket of sockets) {
      const key = keyOf(socket.protocol, socket.address, socket.port);
      this.#sockets.get(key)?.release();
      this.#sockets.set(key, socket);
    }
  }

  setFlows(flows: readonly UdpFlowState[]): void {
    this.#flows = new Map();
    for (const flow of flows) {
      const { destination, destinationPort } = flow.tuple;
      const port = flow.clientPort === undefined ? destinationPort : ALL_PORTS;
      const key = keyOf('udp', destination.text, port);
      const group = this.#flows.get(key) ?? [];
      this.#flows.set(key, group);
      group.push(flow);
    }
  }

  /** The raw handle of a socket that is now the caller's; undefined: there is none, so open one. */
  takeSocket(protocol: Protocol, address: string, port: number): unknown {
    const key = keyOf(protocol, address, port);
    const socket = this.#sockets.get(key);
    this.#sockets.delete(key);
    return socket?.handle;
  }

  /** Flows that came in there. */
  flowsAt(address: string, port: number): readonly UdpFlowState[] {
    return this.#flows.get(keyOf('udp', address, port)) ?? [];
  }

  /** Flows to all ports of a captured frontend. */
  capturedFlowsAt(address: string): readonly UdpFlowState[] {
    return this.flowsAt(address, ALL_PORTS);
  }

  /** Closes what nobody has taken: connections would wait there for ever. */
  discard(): void {
    for (const socket of this.#sockets.values()) socket.release();
    this.#sockets.clear();
    this.#flows.clear();
  }
}

function keyOf(protocol: Protocol, address: string, port: number): string {
  return `${protocol} ${address} ${port}`;
}
