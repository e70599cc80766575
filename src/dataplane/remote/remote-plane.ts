import { BalancerError } from '../../model/errors.js';
import type { PlaneEvent } from '../../model/events.js';
import type { Protocol } from '../../model/five-tuple.js';
import type { ForwardingState } from '../../model/forwarding-state.js';
import type { ApplyReport, FlowPage, FlowQuery, PlaneCounters, StopReport, UdpStop } from '../data-plane.js';
import { receivedSocket, type HandOverPlane, type ListeningSocket, type UdpFlowState } from '../hand-over.js';
import type { Channel } from './channel.js';
import type { Call, Request, WorkerMessage, WorkerOptions } from './worker-protocol.js';

interface Pending {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: BalancerError) => void;
}

/** A data plane in another process, for as long as that process lives. Calls reject with `LB_WORKER_LOST` after. */
export class RemotePlane implements HandOverPlane {
  readonly #channel: Channel;
  readonly #options: WorkerOptions;
  readonly #pending = new Map<number, Pending>();
  readonly #listeners = new Set<(events: readonly PlaneEvent[]) => void>();
  #udpFlows: readonly UdpFlowState[] = [];
  #onSocket: (socket: ListeningSocket) => void = (socket) => socket.release();
  #nextId = 1;
  #closed = false;
  #flows = 0;

  constructor(channel: Channel, options: WorkerOptions) {
    this.#channel = channel;
    this.#options = options;
    channel.onMessage((message, handle) => this.#receive(message as WorkerMessage, handle));
    channel.onClose(() => this.#close());
  }

  flowCount(): number {
    return this.#flows;
  }

  start(state: ForwardingState): Promise<ApplyReport> {
    const udpFlows = this.#udpFlows;
    this.#udpFlows = [];
    return this.#call<ApplyReport>({ method: 'start', state, options: this.#options, udpFlows });
  }

  /** See WorkerPlane.prepare. */
  async prepare(state: ForwardingState): Promise<void> {
    await this.#call({ method: 'prepare', state });
  }

  apply(state: ForwardingState): Promise<ApplyReport> {
    return this.#call<ApplyReport>({ method: 'apply', state });
  }

  flows(query: FlowQuery): Promise<FlowPage> {
    return this.#call<FlowPage>({ method: 'flows', query });
  }

  counters(): Promise<PlaneCounters> {
    return this.#call<PlaneCounters>({ method: 'counters' });
  }

  async answer(): Promise<void> {
    await this.flows({ limit: 1 });
  }

  stop(deadlineMs: number, udp: UdpStop = 'lame-duck'): Promise<StopReport> {
    return this.#call<StopReport>({ method: 'stop', deadlineMs, udp });
  }

  subscribe(listener: (events: readonly PlaneEvent[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async inherit(sockets: readonly ListeningSocket[]): Promise<void> {
    for (const socket of sockets) {
      const { protocol, address, port } = socket;
      this.#channel.send({ kind: 'socket', protocol, address, port }, socket);
    }
    await this.#call({ method: 'inherited' });
  }

  inheritFlows(flows: readonly UdpFlowState[]): void {
    this.#udpFlows = flows;
  }

  async lend(onSocket: (socket: ListeningSocket) => void, only?: Protocol): Promise<void> {
    this.#onSocket = onSocket;
    await this.#call(only === undefined ? { method: 'lend' } : { method: 'lend', only });
  }

  freezeUdp(): Promise<readonly UdpFlowState[]> {
    return this.#call<readonly UdpFlowState[]>({ method: 'freezeUdp' });
  }

  async thawUdp(): Promise<void> {
    await this.#call({ method: 'thawUdp' });
  }

  #call<T>(call: Call): Promise<T> {
    if (this.#closed) return Promise.reject(workerLost());
    return new Promise<T>((resolve, reject) => {
      const id = this.#nextId++;
      // The worker answers each method with what that method promises; see PlaneHost.
      this.#pending.set(id, { resolve: (value) => resolve(value as T), reject });
      const request: Request = { kind: 'request', id, call };
      this.#channel.send(request);
    });
  }

  #receive(message: WorkerMessage, handle: unknown): void {
    switch (message.kind) {
      case 'reply':
        this.#settle(message.id)?.resolve(message.value);
        return;
      case 'failure': {
        const { message: text, code, source } = message.error;
        this.#settle(message.id)?.reject(new BalancerError(text, { code, source }));
        return;
      }
      case 'events':
        for (const listener of this.#listeners) listener(message.events);
        return;
      case 'pulse':
        this.#flows = message.flows;
        return;
      case 'socket':
        this.#onSocket(receivedSocket(message, handle));
        return;
      case 'claim':
      case 'release':
        // Answered by port-claims.ts on the same channel.
        return;
    }
  }

  #settle(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    return pending;
  }

  #close(): void {
    this.#closed = true;
    for (const { reject } of this.#pending.values()) reject(workerLost());
    this.#pending.clear();
  }
}

/** The error of every call that a worker did not live to answer. */
export function workerLost(): BalancerError {
  return new BalancerError('The data worker is gone', { code: 'LB_WORKER_LOST', source: 'system' });
}
