import type { ErrorCode, ErrorSource } from '../../model/errors.js';
import type { PlaneEvent } from '../../model/events.js';
import type { Protocol } from '../../model/five-tuple.js';
import type { ForwardingState } from '../../model/forwarding-state.js';
import type { FlowQuery, PlaneOptions, UdpStop } from '../data-plane.js';
import type { UdpFlowState } from '../hand-over.js';
import type { CapShares, CapUses } from '../worker-plane.js';

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
