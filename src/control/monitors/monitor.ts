import type { PlaneCounters } from '../../dataplane/data-plane.js';
import type { ForwardingState } from '../../model/forwarding-state.js';
import type { HealthEventName } from '../../model/health-event.js';
import type { Finding } from './alarm-book.js';

/** The data plane's counters at one moment; about one a second. */
export interface MonitorSample {
  /** Monotonic. */
  readonly atMs: number;
  /** Undefined: the data plane did not answer. */
  readonly counters: PlaneCounters | undefined;
}

/** Compares the numbers of the data plane with what the control plane believes. Changes nothing. */
export interface Monitor {
  /** What it can find. */
  readonly names: readonly HealthEventName[];
  /** All that it finds now; undefined: it cannot tell from this sample. */
  observe(sample: MonitorSample, state: ForwardingState): readonly Finding[] | undefined;
}
