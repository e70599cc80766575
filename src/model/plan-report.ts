import type { Protocol } from './address.js';

/** What becomes of live flows. `reset`, `drop` and `end` are the flow policy's; `move`: UDP, with its next datagram. */
export interface FlowFates {
  readonly stay: number;
  readonly move: number;
  readonly reset: number;
  readonly drop: number;
}

/** One rule, before and after. */
export interface PlannedRule {
  readonly name: string;
  /** The name it had, where it is the same rule renamed. */
  readonly renamedFrom?: string;
  readonly change: 'same' | 'changed' | 'added' | 'removed';
  /** Keys that differ, as in the configuration: `distribution`, `backendPool`. Empty unless changed. */
  readonly changes: readonly string[];
  /** Share of the hash space whose backend is another one, 0 to 1; 1 where all of it is (added, removed). */
  readonly movedShare: number;
  readonly flows: Readonly<Record<Protocol, FlowFates>>;
}

export interface PlannedBackend {
  readonly pool: string;
  readonly backendId: string;
  readonly name: string;
}

/** What a new configuration would do to the running one. Plain data; see control/plan.ts. */
export interface PlanReport {
  readonly fromDigest: string;
  readonly toDigest: string;
  /** Revision of the state that was compared with. */
  readonly revision: number;
  readonly rules: readonly PlannedRule[];
  /** The largest share of any rule that is there before and after: what `--max-moved` is held against. */
  readonly movedShare: number;
  readonly flows: FlowFates;
  readonly backends: {
    readonly added: readonly PlannedBackend[];
    readonly removed: readonly PlannedBackend[];
    /** Same identity, other weight, priority, name, admin state ... with the keys that differ. */
    readonly changed: readonly (PlannedBackend & { readonly changes: readonly string[] })[];
  };
  /** Backends that a new or changed probe knows nothing of yet: they wait for its first verdict. */
  readonly probeStateLost: readonly { readonly backendId: string; readonly probe: string }[];
  readonly listeners: { readonly kept: number; readonly opened: number; readonly closed: number };
  /** Keys that only a new process takes over (`dataPlane.workers`, `admin` ...). Not empty: a reload is refused. */
  readonly restartNeeded: readonly string[];
  /** What will happen, in order: what is added comes before what is removed. */
  readonly steps: readonly string[];
}

/** What a reload did. */
export interface ReloadReport {
  readonly revision: number;
  readonly digest: string;
  readonly plan: PlanReport;
  readonly kept: {
    readonly flows: number;
    /** Probe targets that went on with what was known of them. */
    readonly probeTargets: number;
    readonly adminStates: number;
    readonly drains: number;
    readonly listeners: number;
  };
  readonly lost: {
    readonly flows: number;
    readonly probeTargets: number;
    /** Backends whose admin state, weight or drain went with them. */
    readonly overrides: readonly string[];
    readonly listeners: number;
  };
  readonly durationMs: number;
}

/** A finding of the validator, as `haports check --json` prints it. */
export interface ReportedFinding {
  readonly severity: 'error' | 'warning' | 'note';
  readonly code: string;
  readonly path: string;
  readonly message: string;
  readonly line?: number;
  readonly column?: number;
}

/** `report` is absent where the configuration cannot be used: the findings say why. */
export interface PlanOutcome {
  readonly findings: readonly ReportedFinding[];
  readonly report?: PlanReport;
}

export interface ReloadOutcome {
  readonly findings: readonly ReportedFinding[];
  readonly report: ReloadReport;
}
