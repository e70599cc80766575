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

/**
 * Which flows are followed. `generated`: random clients, the same for the same seed, spread over all rules. `recorded`:
 * those of a flow log, from where they were last; only where the log is, never over the admin API.
 */
export type Population =
  | {
      readonly kind: 'generated';
      /** 1 - 1,000,000 for each rule. */
      readonly flows: number;
      /** Distinct client addresses. */
      readonly sources: number;
      readonly seed: number;
    }
  | { readonly kind: 'live' }
  | {
      readonly kind: 'recorded';
      /** Of distinct five-tuples, the last so many that started. 1 - 1,000,000. */
      readonly last: number;
    };

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

/** What a flow log gave to follow. */
export interface RecordedPopulation {
  /** Flows that started, those of the same five-tuple and older ones that were left out included. */
  readonly started: number;
  /** Distinct five-tuples, the last ones. */
  readonly distinct: number;
  /** Whether there were older ones. */
  readonly isCut: boolean;
  /** Of `distinct`, those of rules that the configuration does not have: not followed. */
  readonly ofOtherRules: number;
  /** Lines that the log says are missing from it, and lines that cannot be read. */
  readonly lost: number;
  readonly damaged: number;
  /** `epoch`: who served is as in the last epoch of the log. `configuration`: a file was named, and every probe is taken for up. */
  readonly start: 'epoch' | 'configuration';
}

export interface SimulationReport {
  readonly revision: number;
  readonly configDigest: string;
  readonly rules: readonly SimulatedRule[];
  /** Where the population is. */
  readonly recorded?: RecordedPopulation;
}
