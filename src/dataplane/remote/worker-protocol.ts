import type { ErrorCode, ErrorSource } from '../../model/errors.js';
import type { PlaneEvent } from '../../model/events.js';
import type { ForwardingState } from '../../model/forwarding-state.js';
import type { FlowQuery, PlaneOptions, UdpStop } from '../data-plane.js';

/** What a data worker is told when it is born. */
export interface WorkerOptions extends PlaneOptions {
  readonly worker: number;
  readonly workers: number;
}

export type Call =
  | { readonly method: 'start'; readonly state: ForwardingState; readonly options: WorkerOptions }
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

/** Control process to data worker. */
export interface Request {
  readonly kind: 'request';
  readonly id: number;
  readonly call: Call;
}

/** Data worker to control process. */
export type WorkerMessage =
  | { readonly kind: 'reply'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'failure'; readonly id: number; readonly error: WireError }
  | { readonly kind: 'events'; readonly events: readonly PlaneEvent[] }
  /** Once a second: how many flows would be lost if the worker died now. */
  | { readonly kind: 'pulse'; readonly flows: number };
