import type { AdminState } from './configuration.js';
import type { Protocol } from './five-tuple.js';
import type { FlowFates } from './plan-report.js';
import type { HealthState } from './probe.js';

/** What is supposed about a backend; what is absent stays as it is. */
export interface Supposition {
  /** Id or `pool/name`. */
  readonly backend: string;
  readonly health?: HealthState;
  readonly adminState?: AdminState;
  readonly weight?: number;
  readonly draining?: boolean;
}

/** Which flows are followed. `generated`: random clients, the same for the same seed, spread over all rules. */
export type Population =
  | {
      readonly kind: 'generated';
      /** 1 - 1,000,000 for each rule. */
      readonly flows: number;
      /** Distinct client addresses. */
      readonly sources: number;
      readonly seed: number;
    }
  | { readonly kind: 'live' };

/** A what-if question. */
export interface SimulationRequest {
  readonly suppose: readonly Supposition[];
  readonly population: Population;
}

export interface SimulatedBackend {
  readonly backendId: string;
  readonly name: string;
  /** Share of the rule's flows, 0 to 1. */
  readonly shareBefore: number;
  readonly shareAfter: number;
}

export interface SimulatedRule {
  readonly name: string;
  readonly followed: number;
  readonly flows: Readonly<Record<Protocol, FlowFates>>;
  /** Followed flows for which nobody was there, before and after. */
  readonly unplacedBefore: number;
  readonly unplacedAfter: number;
  readonly backends: readonly SimulatedBackend[];
}

export interface SimulationReport {
  readonly revision: number;
  readonly configDigest: string;
  readonly rules: readonly SimulatedRule[];
}
