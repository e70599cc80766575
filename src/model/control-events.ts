import type { AdminState, Configuration } from './configuration.js';
import type { DrainStatus } from './drain.js';
import type { Protocol } from './five-tuple.js';
import type { HealthEvent } from './health-event.js';
import type { ReloadReport } from './plan-report.js';
import type { HealthTransition } from './probe.js';
import type { UpgradeOutcome } from './upgrade.js';

/** A configuration was read and is about to be used. */
export interface ConfigLoaded {
  readonly type: 'config-loaded';
  readonly configuration: Configuration;
  /** Where it came from: a path. */
  readonly source: string;
  /** How many warnings and notes it gave rise to. */
  readonly findings: number;
}

export interface HealthChanged {
  readonly type: 'health-changed';
  readonly pool: string;
  readonly backendId: string;
  readonly backendName: string;
  readonly probe: string;
  readonly transition: HealthTransition;
}

export interface AdminChanged {
  readonly type: 'admin-changed';
  readonly pool: string;
  readonly backendId: string;
  readonly backendName: string;
  readonly from: AdminState;
  readonly to: AdminState;
}

/** The set of backends that serve a pool view changed. `eligible` 0: nobody gets new flows. */
export interface PoolServingChanged {
  readonly type: 'pool-serving-changed';
  readonly pool: string;
  /** Absent: the view of rules without a probe. */
  readonly probe?: string;
  /** Absent while nobody serves. */
  readonly servingPriority?: number;
  readonly eligible: number;
  readonly total: number;
}

/** What a data plane said to an apply; a plane's ApplyReport is one. */
export interface AppliedReport {
  readonly revision: number;
  /** Open after the apply. */
  readonly listeners: Readonly<Record<Protocol, number>>;
  readonly failures: readonly {
    readonly rule: string;
    readonly protocol: Protocol;
    readonly address: string;
    readonly port: number;
    readonly errorCode: string;
  }[];
}

export interface Applied {
  readonly type: 'applied';
  readonly digest: string;
  readonly report: AppliedReport;
}

/** A revision was refused; the one before it is still served. */
export interface ApplyFailed {
  readonly type: 'apply-failed';
  readonly revision: number;
  readonly error: unknown;
}

export interface Starting {
  readonly type: 'starting';
  readonly version: string;
  /** Data workers; 0: all in one process. */
  readonly workers: number;
}

export interface Stopping {
  readonly type: 'stopping';
  /** `SIGTERM`, `SIGINT`, or what else asked. */
  readonly cause: string;
  readonly deadlineMs: number;
  /** The kernel goes on forwarding, by what it has. */
  readonly keptInKernel?: true;
}

/** A plane's StopReport is one. */
export interface StoppedReport {
  readonly finished: number;
  readonly reset: number;
}

export interface Stopped {
  readonly type: 'stopped';
  readonly report: StoppedReport;
  /** As when it was stopping: the flows are none of the report's. */
  readonly keptInKernel?: true;
}

export interface WeightChanged {
  readonly type: 'weight-changed';
  readonly pool: string;
  readonly backendId: string;
  readonly backendName: string;
  /** `configured`: what the configuration or the probe's header says. */
  readonly from: number | 'configured';
  readonly to: number | 'configured';
}

/** `started` by an operator; `deadline` passed with flows left; `finished`, since no flow is left; or `cancelled`. */
export interface DrainChanged {
  readonly type: 'drain-changed';
  readonly phase: 'started' | 'deadline' | 'finished' | 'cancelled';
  readonly drain: DrainStatus;
}

export interface Reloaded {
  readonly type: 'reloaded';
  /** `admin API`, `SIGHUP`, `file watch`. */
  readonly cause: string;
  readonly report: ReloadReport;
}

/** What was served before is served on. */
export interface ReloadFailed {
  readonly type: 'reload-failed';
  readonly cause: string;
  readonly error: unknown;
}

/** Another process was started, to take this one's place. */
export interface UpgradeStarted {
  readonly type: 'upgrade-started';
  /** Of the new process; 0: it could not be started. */
  readonly pid: number;
}

/** The new process serves; this one only lets its TCP flows finish. */
export interface UpgradeReady {
  readonly type: 'upgrade-ready';
  readonly outcome: UpgradeOutcome;
}

/** This process goes on as before. */
export interface UpgradeFailed {
  readonly type: 'upgrade-failed';
  readonly error: unknown;
}

/** Every fact of the control plane that an operator may want to read later. Plain data. */
export type ControlEvent =
  | ConfigLoaded
  | HealthChanged
  | AdminChanged
  | PoolServingChanged
  | Applied
  | ApplyFailed
  | WeightChanged
  | DrainChanged
  | Reloaded
  | ReloadFailed
  | UpgradeStarted
  | UpgradeReady
  | UpgradeFailed
  | HealthEvent
  | Starting
  | Stopping
  | Stopped;
