import type { LatencyHistogram, PlaneCounters } from '../dataplane/data-plane.js';
import type { ForwardingState } from '../model/forwarding-state.js';
import type { HealthEvent } from '../model/health-event.js';
import type { KernelReport } from '../model/kernel-report.js';
import type { LineWriterStats } from './line-writer.js';
import type { ProbeStatus } from './metrics-source.js';
import type { ReloadStats } from './reload-tally.js';

/** Label values come from the configuration, or from closed unions: never from a client. */
export type Labels = Readonly<Record<string, string>>;

export interface Sample {
  readonly labels: Labels;
  readonly value: number;
}

export interface HistogramSample {
  readonly labels: Labels;
  readonly histogram: LatencyHistogram;
}

/** Everything that one scrape is made of, read once so that its numbers belong together. */
export interface MetricsSnapshot {
  readonly version: string;
  readonly state: ForwardingState | undefined;
  readonly probes: readonly ProbeStatus[];
  /** Absent: no data worker answered in time. */
  readonly counters: PlaneCounters | undefined;
  readonly flowLog: LineWriterStats | undefined;
  readonly healthEvents: readonly Pick<HealthEvent, 'name' | 'subject'>[];
  readonly reloads: ReloadStats | undefined;
  readonly kernel: KernelReport | undefined;
  /** `pool` and `backend` labels of a backend id. */
  readonly backendLabels: (backendId: string) => Labels;
}

interface FamilyBase {
  readonly name: string;
  readonly help: string;
}

/** One metric: its name, what it says, and how a snapshot gives its samples. Equal label sets are added up. */
export type MetricFamily =
  | (FamilyBase & {
      readonly type: 'counter' | 'gauge';
      readonly collect: (snapshot: MetricsSnapshot) => readonly Sample[];
    })
  | (FamilyBase & {
      readonly type: 'histogram';
      readonly collect: (snapshot: MetricsSnapshot) => readonly HistogramSample[];
    });
