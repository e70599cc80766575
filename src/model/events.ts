import type { Protocol } from './address.js';
import type { AdminState, Configuration, HealthTransition } from './configuration.js';
import type { FlowEndReason, FlowRecord } from './flow.js';
import type { DrainStatus } from './forwarding.js';
import type { KernelReport } from './kernel-report.js';
import type { ReloadReport } from './plan-report.js';

/** Why a connection or datagram got no flow or was thrown away. Label values of one metric: keep them few. */
export type DropReason =
  | 'denied'
  | 'no-backend'
  | 'backends-full'
  | 'table-full'
  | 'embryonic-full'
  | 'source-cap'
  | 'own-listener'
  | 'bad-proxy-header'
  | 'descriptors-exhausted'
  | 'ports-exhausted'
  | 'send-failed'
  | 'blackholed'
  | 'unexpected-reply'
  | 'unknown-origin'
  | 'stopping';

export const DROP_REASONS: readonly DropReason[] = [
  'denied',
  'no-backend',
  'backends-full',
  'table-full',
  'embryonic-full',
  'source-cap',
  'own-listener',
  'bad-proxy-header',
  'descriptors-exhausted',
  'ports-exhausted',
  'send-failed',
  'blackholed',
  'unexpected-reply',
  'unknown-origin',
  'stopping',
];

export interface FlowStarted {
  readonly type: 'flow-started';
  readonly atMs: number;
  readonly flow: FlowRecord;
}

export interface FlowEnded {
  readonly type: 'flow-ended';
  readonly atMs: number;
  readonly flow: FlowRecord;
  readonly end: FlowEndReason;
}

/** A flow that moved to another backend; `flow` is how it stands after the move. */
export interface FlowMoved {
  readonly type: 'flow-moved';
  readonly atMs: number;
  readonly flow: FlowRecord;
  readonly fromBackendId: string;
}

/** Traffic found a backend unreachable. Speeds up its next probe; never ejects by itself. */
export interface PassiveFailure {
  readonly type: 'passive-failure';
  readonly atMs: number;
  readonly backendId: string;
  /** `ECONNREFUSED`, `connect timeout`, `ICMP unreachable`. */
  readonly evidence: string;
}

/** A budget was hit (`started`) or has had room again for a second (`ended`). */
export interface Overload {
  readonly type: 'overload';
  readonly atMs: number;
  readonly phase: 'started' | 'ended';
  readonly reason: DropReason;
}

/** Local ports of a (source address, backend) pair: 75 % in use, or none left. */
export interface SourcePortPressure {
  readonly type: 'source-port-pressure';
  readonly atMs: number;
  readonly backendId: string;
  readonly sourceAddress: string;
  readonly level: 'high' | 'exhausted' | 'normal';
  readonly used: number;
  readonly available: number;
}

/**
 * The kernel's table of flows, everybody's: 75 % in use, or full, when new flows fail; `normal`: less than 70 % again.
 */
export interface TablePressure {
  readonly type: 'table-pressure';
  readonly atMs: number;
  readonly level: 'high' | 'exhausted' | 'normal';
  readonly used: number;
  readonly limit: number;
}

/** A data worker died; its flows are gone. It is being replaced. */
export interface WorkerLost {
  readonly type: 'worker-lost';
  readonly atMs: number;
  readonly worker: number;
  readonly evidence: string;
  readonly flowsLost: number;
}

/** Ports that could not be bound at first were tried again, and their number changed. */
export interface ListeningChanged {
  readonly type: 'listening-changed';
  readonly atMs: number;
  readonly worker: number;
  /** Sockets open now. */
  readonly listeners: Readonly<Record<Protocol, number>>;
  /** Sockets that still cannot be opened. */
  readonly failures: number;
}

/** What the plane keeps in the kernel was put in place, found lost or altered and put right, or could not be. */
export interface KernelChanged {
  readonly type: 'kernel-changed';
  readonly atMs: number;
  readonly change: 'installed' | 'repaired' | 'failed' | 'removed';
  /** What was wrong, or why it failed. */
  readonly evidence?: string;
  readonly report: KernelReport;
}

/** What a data plane tells, in batches, apart from its counters. Flow events only if asked for. */
export type PlaneEvent =
  | FlowStarted
  | FlowEnded
  | FlowMoved
  | PassiveFailure
  | Overload
  | SourcePortPressure
  | TablePressure
  | ListeningChanged
  | KernelChanged
  | WorkerLost;

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

/** One event as the admin API tells it: what the log has, with an id to go on from. Plain data. */
export interface FeedEvent {
  /** Grows by one with each event of the process. */
  readonly id: number;
  readonly atMs: number;
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  /** `health-changed`, `drain-started` ... */
  readonly type: string;
  /** For people. */
  readonly message: string;
  /** What is in it besides, as in the log. */
  readonly fields: Readonly<Record<string, unknown>>;
}

/** Azure's names (LoadBalancerHealthEvent), and those of the probe-truth monitor and the skew advisor. */
export type HealthEventName =
  | 'DataPathAvailabilityWarning'
  | 'DataPathAvailabilityCritical'
  | 'NoHealthyBackends'
  | 'HighSnatPortUsage'
  | 'SnatPortExhaustion'
  | 'ProbeUpTrafficFailing'
  | 'ProbeDownTrafficFine'
  | 'SourceAffinitySkew';

/** Something about the health of the balancer or a backend that an operator should know of. Plain data. */
export interface HealthEvent {
  readonly type: 'health-event';
  readonly name: HealthEventName;
  readonly severity: 'warning' | 'critical';
  /** `resolved`: what was told before is over. */
  readonly phase: 'raised' | 'again' | 'resolved';
  /** What it is about: a frontend, pool, rule or backend id. */
  readonly subject: string;
  /** For people: what was measured, and against what. */
  readonly evidence: string;
  readonly atMs: number;
}

/** What came of an upgrade. Plain data. */
export interface UpgradeOutcome {
  /** Of the new control process. */
  readonly pid: number;
  /** Of haports, in the new process. */
  readonly version: string;
  /** Listening sockets handed over, TCP and UDP. */
  readonly sockets: number;
  /** UDP flows handed over. */
  readonly udpFlows: number;
  /** From the start of the new process until it served. */
  readonly durationMs: number;
  /** How long datagrams of clients waited in the sockets meanwhile. */
  readonly udpPauseMs: number;
}
