import type { PlaneCounters } from '../dataplane/data-plane.js';
import type { ForwardingState } from '../model/forwarding-state.js';
import type { HealthEvent } from '../model/health-event.js';
import type { KernelReport } from '../model/kernel-report.js';
import type { HealthState } from '../model/probe.js';
import type { LineWriterStats } from './line-writer.js';
import type { ReloadStats } from './reload-tally.js';

/** One probe of one backend as it stands. */
export interface ProbeStatus {
  readonly pool: string;
  readonly backendId: string;
  readonly probe: string;
  readonly health: HealthState;
  /** Changes of state since the start, by what it changed to. */
  readonly transitions: Readonly<Record<'up' | 'down', number>>;
  /** Probes done since the start, by verdict; absent: not counted. */
  readonly results?: Readonly<Record<'success' | 'failure', number>>;
  /** How long the last probe took; absent: none has ended yet. */
  readonly lastDurationMs?: number;
}

/** Where the numbers come from. Nothing here may throw, save that `counters` may reject. */
export interface MetricsSource {
  /** Asked once a scrape; given up after a second. */
  counters(): Promise<PlaneCounters>;
  /** Undefined before the first revision. */
  state(): ForwardingState | undefined;
  probes(): readonly ProbeStatus[];
  /** Absent: no flow log is written. */
  flowLog?(): LineWriterStats;
  /** The health events that are raised now; absent: nobody watches. */
  healthEvents?(): readonly Pick<HealthEvent, 'name' | 'subject'>[];
  /** Absent: not counted. */
  reloads?(): ReloadStats;
  /** Absent or undefined: the plane keeps nothing in the kernel. */
  kernel?(): KernelReport | undefined;
}
