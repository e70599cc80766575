import type { CapShares, CapUses } from '../../flows/caps.js';
import type { Protocol } from '../../model/address.js';
import { BalancerError, errorMessage, type ErrorCode, type ErrorSource } from '../../model/errors.js';
import type { PlaneEvent } from '../../model/events.js';
import type { ForwardingState } from '../../model/forwarding.js';
import { portSetSize } from '../../model/ports.js';
import type { Clock } from '../../runtime/clock.js';
import {
  receivedSocket,
  type ApplyReport,
  type FlowPage,
  type FlowQuery,
  type HandOverPlane,
  type ListeningSocket,
  type PlaneCounters,
  type PlaneOptions,
  type PortGate,
  type StopReport,
  type UdpFlowState,
  type UdpStop,
  type WorkerPlane,
} from '../contract.js';

/** What a data worker is told when it is born. */
export interface WorkerOptions extends PlaneOptions {
  readonly worker: number;
  readonly workers: number;
}

export type Call =
  | {
      readonly method: 'start';
      readonly state: ForwardingState;
      readonly options: WorkerOptions;
      /** With the sockets that came before: see HandOverPlane.inheritFlows. */
      readonly udpFlows?: readonly UdpFlowState[];
    }
  /** Answered with how many sockets have come. */
  | { readonly method: 'inherited' }
  /** Answered when all socket messages are on their way. */
  | { readonly method: 'lend'; readonly only?: Protocol }
  | { readonly method: 'freezeUdp' }
  | { readonly method: 'thawUdp' }
  | { readonly method: 'prepare'; readonly state: ForwardingState }
  | { readonly method: 'apply'; readonly state: ForwardingState }
  | { readonly method: 'flows'; readonly query: FlowQuery }
  | { readonly method: 'counters' }
  | { readonly method: 'stop'; readonly deadlineMs: number; readonly udp: UdpStop };

/** An error as it crosses a process boundary. */
export interface WireError {
  readonly message: string;
  readonly code: ErrorCode;
  readonly source: ErrorSource;
}

/** Control process to data worker: a call of its plane. */
export interface Request {
  readonly kind: 'request';
  readonly id: number;
  readonly call: Call;
}

/** An address and TCP port that several workers listen on. */
export interface TcpEnd {
  readonly address: string;
  readonly port: number;
}

/** What the worker may use of the caps named. Without an answer; the next pulse tells that it has come. */
export interface SharesMessage {
  readonly kind: 'shares';
  /** Grows by one with each. */
  readonly sequence: number;
  readonly shares: CapShares;
}

/** Answer to a claim: for each of its ends an error code, or undefined where the worker may listen. */
export interface VerdictsMessage {
  readonly kind: 'verdicts';
  readonly id: number;
  readonly errorCodes: readonly (string | undefined)[];
}

/** Comes with a raw handle: a listening socket of another process. */
export interface SocketMessage {
  readonly kind: 'socket';
  readonly protocol: Protocol;
  readonly address: string;
  readonly port: number;
}

/** Control process to data worker. */
export type ControlMessage = Request | SharesMessage | VerdictsMessage | SocketMessage;

/** Several times a second: how many flows would be lost if the worker died now. */
export interface Pulse {
  readonly kind: 'pulse';
  readonly flows: number;
  /** Only where several workers share caps. */
  readonly uses?: CapUses;
  /** Sequence of the last shares that had come when `uses` was read; 0: none. */
  readonly sharesSeen: number;
}

/** The worker wants to listen there, together with other workers. */
export interface ClaimMessage {
  readonly kind: 'claim';
  readonly id: number;
  readonly ends: readonly TcpEnd[];
}

/** The worker has stopped listening there. */
export interface ReleaseMessage {
  readonly kind: 'release';
  readonly end: TcpEnd;
}

/** Data worker to control process. */
export type WorkerMessage =
  | { readonly kind: 'reply'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'failure'; readonly id: number; readonly error: WireError }
  | { readonly kind: 'events'; readonly events: readonly PlaneEvent[] }
  | Pulse
  | ClaimMessage
  | ReleaseMessage
  | SocketMessage;

/** What may go along with a message: Node's own object under a socket. */
export interface SentHandle {
  readonly handle: unknown;
  /** Called when it has gone, or cannot. */
  release(): void;
}

/**
 * Two-way, ordered, structured-clone messages to another process. `send` on a closed channel is a silent no-op: the
 * close is told by `onClose`.
 */
export interface Channel {
  send(message: unknown, sent?: SentHandle): void;
  /** A handle that comes along is the listener's, to be closed. */
  onMessage(listener: (message: unknown, handle?: unknown) => void): void;
  onClose(listener: () => void): void;
}

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

/** Also how often workers get new shares of caps. */
const PULSE_MS = 250;

export interface PlaneHostDeps {
  readonly channel: Channel;
  readonly clock: Clock;
  readonly createPlane: (options: WorkerOptions) => WorkerPlane;
  /** Called once when the plane has stopped and the process has nothing left to do. */
  readonly onStopped: () => void;
}

/**
 * The data worker's end: answers a RemotePlane's calls with a plane in this process. If the control process dies, the
 * worker lets its TCP flows finish, up to the configured shutdown deadline, and ends; UDP flows end at once, so that
 * a new process can bind their ports.
 */
export class PlaneHost {
  readonly #deps: PlaneHostDeps;
  #plane: WorkerPlane | undefined;
  #isShared = false;
  /** Came before the plane, which takes them over. */
  #inherited: ListeningSocket[] = [];
  /** The last ones; they may come before the plane is there. */
  #shares: SharesMessage | undefined;
  #orphanDeadlineMs = 0;
  #finished = false;
  #cancelPulse: () => void = () => undefined;

  constructor(deps: PlaneHostDeps) {
    this.#deps = deps;
    deps.channel.onMessage((message, handle) => this.#receive(message as ControlMessage, handle));
    deps.channel.onClose(() => void this.#orphaned());
  }

  #receive(message: ControlMessage, handle: unknown): void {
    switch (message.kind) {
      case 'request':
        void this.#serve(message);
        return;
      case 'shares':
        this.#shares = message;
        this.#plane?.allow(message.shares);
        return;
      case 'socket':
        this.#inherited.push(receivedSocket(message, handle));
        // Later ones come just before the verdict on a claim, which has them taken.
        if (this.#plane !== undefined) void this.#plane.inherit(this.#inherited.splice(0));
        return;
      case 'verdicts':
        // For remote-port-gate.ts on the same channel.
        return;
    }
  }

  async #serve({ id, call }: Request): Promise<void> {
    try {
      this.#send({ kind: 'reply', id, value: await this.#perform(call) });
    } catch (error) {
      this.#send({ kind: 'failure', id, error: wireError(error) });
    }
    if (call.method === 'stop') this.#finish();
  }

  #perform(call: Call): Promise<unknown> {
    if (call.method === 'inherited') return Promise.resolve(this.#inherited.length);
    if (call.method === 'start') {
      const plane = this.#deps.createPlane(call.options);
      this.#plane = plane;
      void plane.inherit(this.#inherited);
      this.#inherited = [];
      plane.inheritFlows(call.udpFlows ?? []);
      this.#orphanDeadlineMs = call.state.configuration.shutdownDeadlineMs;
      plane.subscribe((events) => this.#send({ kind: 'events', events }));
      this.#isShared = call.options.workers > 1;
      this.#pulse(plane);
      const starting = plane.start(call.state);
      if (this.#shares !== undefined) plane.allow(this.#shares.shares);
      return starting;
    }
    const plane = this.#plane;
    if (plane === undefined) throw new TypeError(`Call "${call.method}" came before "start"`);
    switch (call.method) {
      case 'prepare':
        return plane.prepare(call.state);
      case 'apply':
        return this.#apply(plane, call.state);
      case 'lend':
        return plane.lend((socket) => {
          if (call.only !== undefined && socket.protocol !== call.only) return;
          const { protocol, address, port } = socket;
          this.#deps.channel.send({ kind: 'socket', protocol, address, port }, socket);
        });
      case 'freezeUdp':
        return plane.freezeUdp();
      case 'thawUdp':
        return plane.thawUdp();
      case 'flows':
        return plane.flows(call.query);
      case 'counters':
        return plane.counters();
      case 'stop':
        return plane.stop(call.deadlineMs, call.udp);
    }
  }

  async #apply(plane: WorkerPlane, state: ForwardingState): Promise<ApplyReport> {
    const report = await plane.apply(state);
    this.#orphanDeadlineMs = state.configuration.shutdownDeadlineMs;
    return report;
  }

  #pulse(plane: WorkerPlane): void {
    this.#cancelPulse = this.#deps.clock.setTimer(PULSE_MS, () => {
      const pulse = {
        kind: 'pulse',
        flows: plane.flowCount(),
        sharesSeen: this.#shares?.sequence ?? 0,
      } as const;
      this.#send(this.#isShared ? { ...pulse, uses: plane.capUses() } : pulse);
      this.#pulse(plane);
    });
  }

  async #orphaned(): Promise<void> {
    // A failed stop must still end the process: nobody is left to tell.
    await this.#plane?.stop(this.#orphanDeadlineMs, 'at-once').catch(() => undefined);
    this.#finish();
  }

  #finish(): void {
    // A second stop, or the loss of the channel after a stop, ends nothing more.
    if (this.#finished) return;
    this.#finished = true;
    this.#cancelPulse();
    this.#deps.onStopped();
  }

  #send(message: WorkerMessage): void {
    this.#deps.channel.send(message);
  }
}

function wireError(error: unknown): WireError {
  if (error instanceof BalancerError) {
    return { message: error.message, code: error.code, source: error.source };
  }
  return { message: errorMessage(error), code: 'LB_INTERNAL', source: 'internal' };
}

/** A worker that has not started by then is replaced: it must be stuck. */
const START_MS = 60_000;

/** More for each socket that it has to open; a shared one takes some 0.3 ms, on an idle machine. */
const START_SOCKET_MS = 2;

/** How long a worker may take to start with this state. */
export function startLimitMs({ configuration: { rules } }: ForwardingState): number {
  const sockets = rules.reduce((sum, { ports, protocols }) => sum + portSetSize(ports) * protocols.length, 0);
  return START_MS + sockets * START_SOCKET_MS;
}

export function notStartedWithin(limitMs: number): BalancerError {
  return new BalancerError(`The data worker has not started in ${Math.round(limitMs / 1000)} s`, {
    code: 'LB_INTERNAL',
    source: 'internal',
  });
}

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
