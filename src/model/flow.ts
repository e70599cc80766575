import type { FiveTuple, Protocol } from './address.js';

/**
 * Why a flow is where it is. `hash`: its slot's backend. `retry`: another, since the first could not be reached or
 * was at its cap. `rebalanced`: moved by flow policy. `fail-open`: no backend was eligible. `pinned`: its hash would now
 * choose another, but existing flows stay; or the backend began it, by an answer from another port.
 */
export type PlacementReason = 'hash' | 'retry' | 'rebalanced' | 'fail-open' | 'pinned';

export type FlowState = 'embryonic' | 'established' | 'half-closed' | 'blackholed';

export type FlowEndReason =
  | 'closed'
  | 'client-reset'
  | 'backend-reset'
  | 'reset'
  | 'idle'
  | 'probe-down'
  | 'admin-down'
  | 'removed'
  | 'drain-deadline'
  | 'rule-removed'
  | 'no-backend'
  | 'connect-failed'
  /** The backend refuses this port, one of many that are forwarded to it: its own answer. */
  | 'refused'
  | 'embryonic-timeout'
  | 'responses-complete'
  | 'evicted'
  | 'bad-proxy-header'
  | 'shutdown'
  | 'error';

/** What a flow has carried. */
export interface CarriedBytes {
  /** Client to backend. */
  readonly bytesToBackend: number;
  readonly packetsToBackend: number;
  /** Backend to client. */
  readonly bytesToClient: number;
  readonly packetsToClient: number;
}

/** One flow as it is shown and logged; both directions in one entry. Times are milliseconds since the epoch. */
export interface FlowRecord extends CarriedBytes {
  /** Unique in the process, worker number included. */
  readonly id: number;
  readonly tuple: FiveTuple;
  readonly rule: string;
  readonly backendId: string;
  readonly backendEndpoint: string;
  readonly reason: PlacementReason;
  readonly state: FlowState;
  /** Revision of the forwarding state that placed it. */
  readonly epoch: number;
  /** Backends that were excluded when it was placed: their connect failed, or they were at their cap. */
  readonly excluded: readonly string[];
  readonly openedAtMs: number;
  readonly idleMs: number;
}

/** Which flows are asked for; undefined: any. */
export interface FlowFilter {
  readonly rule?: string;
  readonly backendId?: string;
  readonly protocol?: Protocol;
  /** The client's address, in its canonical text. */
  readonly source?: string;
  readonly sourcePort?: number;
}

/**
 * An entry of the kernel's connection tracking, of a datagram that was redirected to a socket of this process: where
 * the socket sees it come from, who truly sent it and where to.
 */
export interface FlowOrigin {
  /** Another entry has another. */
  readonly id: number;
  /** The address that the redirected datagrams are delivered to. */
  readonly receiver: string;
  /** The client as the receiver sees it: no two entries of a receiver have the same. */
  readonly seenAddress: string;
  readonly seenPort: number;
  /** The client as it is. */
  readonly source: string;
  readonly sourcePort: number;
  /** Where it sent to. */
  readonly destination: string;
  readonly destinationPort: number;
  /** After so long without a datagram the entry goes; 0 where that was not told. */
  readonly remainingMs: number;
}

export interface OriginFollower {
  onNew(origin: FlowOrigin): void;
  onGone(origin: FlowOrigin): void;
  /** What is known may be wrong: events were lost. Also once at the start, when events have begun to come. */
  onGap(): void;
}

/** Tells of the kernel's entries whose receivers have one port. */
export interface OriginFeed {
  /** Until the returned function is called. */
  follow(port: number, follower: OriginFollower): () => void;
  /** All there are now; undefined: it could not be found out. Never rejects. */
  list(port: number): Promise<readonly FlowOrigin[] | undefined>;
}
