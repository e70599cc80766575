import {
  cidrContains,
  ipAddress,
  isWildcard,
  type FiveTuple,
  type IpAddress,
} from '../../../model/address.js';
import { capturedPort, type CapturePlan } from '../../../model/capture.js';
import type { Frontend } from '../../../model/configuration.js';
import type { RuleSlot } from '../../../flows/flow.js';
import { isAdmitted, judgeAccess } from '../../../selection/access.js';
import type { Inherited } from '../handover-state.js';
import type { ListenerBinding } from '../listen-plan.js';
import type { Listener, ListenerFactory } from '../listeners.js';
import type { AcceptHandler, ByteStream, StreamListener } from '../sockets/byte-stream.js';
import { TcpConnection, type TcpDeps } from './connection.js';

/** Connections accepted before the listener serves; more are refused. */
const MOST_HELD = 1024;

/** Which rule serves a connection, and where its client connected to. */
interface ServedEnd {
  readonly slot: RuleSlot;
  readonly address: IpAddress;
  readonly port: number;
}

/**
 * Opens TCP listeners whose connections become flows. An inherited socket is served with the connections that wait in
 * its queue. A captured listener serves many ports: connections to none of them are refused; `capture` says how they
 * tell.
 */
export function createTcpListenerFactory(deps: TcpDeps, capture?: CapturePlan): ListenerFactory {
  return {
    async open(binding, inherited) {
      if (binding.captured !== undefined && capture === undefined) {
        throw new TypeError('A captured listener needs the capture plan');
      }
      const listener = new TcpListener(deps, binding, binding.captured && capture);
      await listener.listen(inherited);
      return listener;
    },
  };
}

class TcpListener implements Listener, AcceptHandler {
  readonly binding: ListenerBinding;
  readonly #deps: TcpDeps;
  readonly #capture: CapturePlan | undefined;
  readonly #isWildcard: boolean;
  #socket: StreamListener | undefined;
  /** Accepted, until it serves. */
  #held: ByteStream[] | undefined = [];
  #closed = false;

  constructor(deps: TcpDeps, binding: ListenerBinding, capture: CapturePlan | undefined) {
    this.#deps = deps;
    this.binding = binding;
    this.#capture = capture;
    this.#isWildcard = capture === undefined && isWildcard(binding.address);
  }

  async listen({ handle }: Inherited): Promise<void> {
    const { address, port } = this.binding;
    this.#socket = await this.#deps.sockets.listen({ address, port, inherited: handle }, this);
  }

  serve(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const stream of held) this.#accept(stream);
  }

  close(): void {
    this.#closed = true;
    this.#socket?.close();
    for (const stream of this.#held?.splice(0) ?? []) stream.reset();
  }

  destroy(): void {
    // Accepted connections need nothing of the listening socket.
    this.close();
  }

  rawHandle(): object | undefined {
    return this.#socket?.rawHandle();
  }

  /** What is held is paused and not read, so it cannot end before it is accepted. */
  onStream(stream: ByteStream): void {
    if (this.#held === undefined) this.#accept(stream);
    else if (!this.#closed && this.#held.length < MOST_HELD) this.#held.push(stream);
    else stream.reset();
  }

  onAcceptError(): void {
    this.#deps.manager.dropped(this.binding.slot.rule, 'tcp', 'descriptors-exhausted');
  }

  #accept(stream: ByteStream): void {
    const { manager } = this.#deps;
    const end = this.#capture === undefined ? this.binding : this.#capturedEnd(stream, this.#capture);
    if (end === undefined) {
      manager.dropped(this.binding.slot.rule, 'tcp', 'unknown-origin');
      stream.reset();
      return;
    }
    const { slot, port } = end;
    const { rule } = slot;
    manager.arrived(rule, 'tcp');
    const tuple = this.#tupleOf(stream, end);
    if (tuple === undefined) {
      stream.destroy();
      return;
    }
    const expectsProxyHeader = isTrusted(rule.frontend, tuple.source);
    if (!mayConnect(rule.frontend, tuple.source, expectsProxyHeader)) {
      manager.dropped(rule, 'tcp', 'denied');
      stream.reset();
      return;
    }
    const connection = new TcpConnection(this.#deps, stream, port);
    const flow = manager.open(tuple, slot, connection);
    if (typeof flow === 'string') stream.reset();
    else connection.serve(flow, expectsProxyHeader);
  }

  /** Undefined if the client has gone already: the kernel then no longer knows who it was. */
  #tupleOf(stream: ByteStream, { address, port }: ServedEnd): FiveTuple | undefined {
    const remote = stream.remoteEndpoint();
    if (remote === undefined) return undefined;
    // Asked only where it is not known: each question is a system call.
    const local = this.#isWildcard ? stream.localEndpoint() : undefined;
    const destination = local === undefined ? address : ipAddress(local.address);
    const source = ipAddress(remote.address);
    return { protocol: 'tcp', source, sourcePort: remote.port, destination, destinationPort: port };
  }

  /** Undefined if no rule serves the port that the connection was made to. One system call. */
  #capturedEnd(stream: ByteStream, { block }: CapturePlan): ServedEnd | undefined {
    const { captured, address } = this.binding;
    const local = stream.localEndpoint();
    if (captured?.protocol !== 'tcp' || local === undefined) return undefined;
    const numbered = capturedPort(local.address, block);
    if (numbered < 0) return undefined;
    const port = numbered & 0xffff;
    const ports = captured.frontends.numbered(numbered >>> 16);
    const slot = ports?.at(port);
    if (ports?.frontend.address.family !== address.family || slot === undefined) return undefined;
    return { slot, address: ports.frontend.address, port };
  }
}

/** Whether this peer must send a PROXY header. */
function isTrusted({ proxyProtocol }: Frontend, peer: IpAddress): boolean {
  return proxyProtocol?.trustedSources.some((block) => cidrContains(block, peer)) === true;
}

/** A trusted peer need not be on the allow list, which is for the clients it speaks for; a denied one stays denied. */
function mayConnect(frontend: Frontend, peer: IpAddress, expectsProxyHeader: boolean): boolean {
  if (!expectsProxyHeader) return isAdmitted(frontend, peer);
  const verdict = judgeAccess(frontend, peer);
  return verdict.admitted || verdict.because !== 'deny';
}
