import type { FiveTuple } from './five-tuple.js';

/**
 * Why a flow is where it is. `hash`: its slot's backend. `retry`: another, since the first could not be reached or
 * was at its cap. `rebalanced`: moved by flow policy. `fail-open`: nobody was eligible. `pinned`: its hash would now
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
  | 'embryonic-timeout'
  | 'responses-complete'
  | 'bad-proxy-header'
  | 'shutdown'
  | 'error';

/** One flow as it is shown and logged; both directions in one entry. Times are milliseconds since the epoch. */
export interface FlowRecord {
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
  /** Backends that were left out when it was placed: tried in vain, or at their cap. */
  readonly excluded: readonly string[];
  readonly openedAtMs: number;
  readonly idleMs: number;
  /** Client to backend. */
  readonly bytesToBackend: number;
  readonly packetsToBackend: number;
  /** Backend to client. */
  readonly bytesToClient: number;
  readonly packetsToClient: number;
}
