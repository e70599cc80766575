import type { Protocol } from './five-tuple.js';
import type { FlowRecord } from './flow.js';

/** What an operator asks of a drain. */
export interface DrainRequest {
  /** From the start until flows that are left meet `then`. */
  readonly deadlineMs: number;
  /** `reset`: the flow policy for `drain-deadline` of each flow's rule. `leave`: they stay; only new flows go elsewhere. */
  readonly then: 'reset' | 'leave';
  /** After the deadline, ends are spread evenly over this time, so that clients do not come back all at once. */
  readonly spreadMs: number;
}

/** `draining`: before the deadline. `ending`: flows are being ended. `done`: no flow is left, or they are left alone. */
export type DrainPhase = 'draining' | 'ending' | 'done';

/** A drain as it stands. Times are milliseconds since the epoch. Plain data. */
export interface DrainStatus extends DrainRequest {
  readonly pool: string;
  readonly backendId: string;
  readonly backendName: string;
  readonly phase: DrainPhase;
  readonly startedAtMs: number;
  readonly deadlineAtMs: number;
  readonly flowsAtStart: number;
  /** Live flows now. */
  readonly flows: Readonly<Record<Protocol, number>>;
  /** When the last flow is likely to finish by itself, from how fast they have been finishing; absent: nothing to go by. */
  readonly predictedFinishAtMs?: number;
  /** When the backend got its last new flow; absent: none since the start of the process. */
  readonly lastNewFlowAtMs?: number;
  /** The oldest flows that are left, at most 5. */
  readonly longest: readonly FlowRecord[];
}
