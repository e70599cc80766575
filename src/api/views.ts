import type { Protocol } from '../model/address.js';
import type { AdminState, HealthState, HealthTransition } from '../model/configuration.js';
import type { FlowRecord, FlowState, PlacementReason } from '../model/flow.js';
import type { DrainStatus, Exclusion } from '../model/forwarding.js';
import type { KernelReport } from '../model/kernel-report.js';
import type { FlowFates } from '../model/plan-report.js';

/*
 * What the admin API answers and the commands and the dashboard show. Plain data; rates are over the last seconds,
 * totals since the start of the process. Times are milliseconds since the epoch.
 */

/** Traffic of one thing: totals, and rates over the last two samples, a second apart. */
export interface TrafficView {
  readonly flowsActive: number;
  readonly flowsOpened: number;
  readonly newFlowsPerSecond: number;
  readonly bytesToBackend: number;
  readonly bytesToClient: number;
  readonly bitsToBackendPerSecond: number;
  readonly bitsToClientPerSecond: number;
  readonly connectFailures: number;
  readonly resets: number;
}

export interface StatusView {
  readonly version: string;
  readonly pid: number;
  readonly startedAtMs: number;
  readonly workers: number;
  readonly workersLost: number;
  readonly configuration: {
    readonly source: string;
    readonly digest: string;
    readonly loadedAtMs: number;
    /** The last reload; absent: none yet. */
    readonly lastReload?: { readonly atMs: number; readonly ok: boolean; readonly message: string };
  };
  readonly revision: number;
  /** Why not ready or not healthy; empty: all is well. */
  readonly problems: readonly string[];
  readonly listeners: Readonly<Record<Protocol, number>>;
  readonly table: Readonly<
    Record<'tcp' | 'udp' | 'embryonic', { readonly used: number; readonly limit: number }>
  >;
  readonly traffic: TrafficView;
  readonly backends: { readonly total: number; readonly serving: number };
  readonly drains: readonly DrainStatus[];
  /** What it keeps in the kernel besides sockets; absent: nothing. */
  readonly kernel?: KernelReport;
}

export interface FrontendView {
  readonly name: string;
  readonly address: string;
  readonly rules: readonly string[];
  readonly listeners: { readonly open: number; readonly wanted: number };
  readonly traffic: TrafficView;
}

export interface RuleView {
  readonly name: string;
  readonly frontend: string;
  readonly backendPool: string;
  readonly probe?: string;
  readonly protocols: readonly Protocol[];
  readonly haPorts: boolean;
  /** As in formatPortSet. */
  readonly ports: string;
  readonly distribution: string;
  readonly symmetric: boolean;
  readonly floatingIp: boolean;
  readonly allDown: string;
  /** Backends that get new flows. */
  readonly serving: number;
  readonly arrivals: number;
  readonly drops: Readonly<Partial<Record<string, number>>>;
  /** Estimate of distinct client addresses since the start. */
  readonly distinctSources: number;
  readonly traffic: TrafficView;
}

export interface ProbeView {
  readonly probe: string;
  readonly state: HealthState;
  readonly consecutiveSuccesses: number;
  readonly consecutiveFailures: number;
  readonly transitions: number;
  /** Milliseconds that flap damping still holds back an up; absent: nothing is held. */
  readonly heldForMs?: number;
  readonly last?: { readonly verdict: string; readonly evidence: string; readonly durationMs: number };
  /** Oldest first. */
  readonly history: readonly HealthTransition[];
}

export interface BackendView {
  readonly id: string;
  readonly name: string;
  readonly pool: string;
  readonly address: string;
  readonly priority: number;
  readonly adminState: AdminState;
  /** Whether `adminState` and `weight` are as configured or an operator's. */
  readonly adminStateOrigin: 'configured' | 'operator';
  readonly configuredWeight: number;
  /** What the table is built with: after operator, probe header and slow start. */
  readonly weight: number;
  readonly weightOrigin: 'configured' | 'operator' | 'probe-header' | 'slow-start';
  /** Best over the views that see it. */
  readonly serving: boolean;
  readonly valid: boolean;
  /** Set whenever it does not serve. */
  readonly exclusion?: Exclusion;
  readonly health: HealthState;
  readonly probes: readonly ProbeView[];
  /** Share of the hash space, 0 to 1, in the pool's first view. */
  readonly hashShare: number;
  /** Share of the pool's flows opened since the start, 0 to 1. */
  readonly realShare: number;
  readonly lastNewFlowAtMs?: number;
  readonly traffic: TrafficView;
  readonly drain?: DrainStatus;
}

export interface BackendPoolView {
  readonly name: string;
  readonly minimumHealthy: number;
  readonly servingPriority?: number;
  readonly serving: number;
  readonly rules: readonly string[];
  readonly backends: readonly BackendView[];
}

/** What flows are shown, in which order. */
export interface FlowListQuery {
  readonly rule?: string;
  /** Id or `pool/name`. */
  readonly backend?: string;
  readonly protocol?: Protocol;
  /** Client address. */
  readonly source?: string;
  readonly state?: FlowState;
  readonly reason?: PlacementReason;
  readonly sort: 'age' | 'idle' | 'bytes' | 'rate' | 'none';
  /** 1-1000. */
  readonly limit: number;
  /** Only with sort `none`: `next` of the page before. */
  readonly after?: number;
}

export interface ListedFlow extends FlowRecord {
  /** Both directions, since the flow was last listed with sort `rate`; absent: not known yet. */
  readonly bitsPerSecond?: number;
}

export interface FlowList {
  readonly flows: readonly ListedFlow[];
  /** Flows that match, listed or not; with sort `none` of this page only. */
  readonly matched: number;
  /** Only with sort `none`; absent: the last page. */
  readonly next?: number;
}

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
