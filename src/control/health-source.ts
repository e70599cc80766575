import type { Backend, Configuration } from '../model/configuration.js';
import type { HealthState, HealthTransition } from '../model/probe.js';

/** A probe's result changed what is known of a backend. */
export interface HealthChange {
  readonly pool: string;
  readonly backend: Backend;
  readonly probe: string;
  /** Absent if only the weight changed. */
  readonly transition?: HealthTransition;
}

/** Where the control loop learns how backends are. */
export interface HealthSource {
  /** Probes what these configurations name, and nothing else. What is known already goes on undisturbed. */
  watch(configurations: readonly Configuration[]): void;
  healthOf(backend: Backend, probe: string): { readonly state: HealthState; readonly weight?: number };
  onChange(listener: (change: HealthChange) => void): void;
  /** Resolves once every backend watched by now has had a verdict from each of its probes. */
  firstVerdicts(): Promise<void>;
  /** Traffic failed: probe this backend now. */
  hasten(backendId: string): void;
  stop(): void;
}
