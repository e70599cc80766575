import type { Protocol } from './five-tuple.js';
import type { FlowEndReason, FlowRecord } from './flow.js';
import type { KernelReport } from './kernel-report.js';

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
