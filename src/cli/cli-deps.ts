import type { ParseResult } from '../config/load.js';
import type { Configuration } from '../model/configuration.js';
import type { Finding } from '../config/finding.js';

/** What the commands print to and what they start; made in main. */
export interface CliDeps {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
  readonly load: (path: string) => Promise<ParseResult>;
  readonly startBalancer: StartBalancer;
  /** Calls the listener with each signal until the returned function is called. */
  readonly onSignal: (listener: (signal: ProcessSignal) => void) => () => void;
}

export type ProcessSignal = 'SIGINT' | 'SIGTERM' | 'SIGHUP';

/** A balancer as the commands drive it. */
export interface StartedBalancer {
  readonly metricsPort?: number;
  stop(cause: string, deadlineMs: number): Promise<{ readonly finished: number; readonly reset: number }>;
  reopenLogs(): Promise<void>;
}

export type StartBalancer = (
  configuration: Configuration,
  origin: { readonly source: string; readonly findings: number },
) => Promise<StartedBalancer>;

/** A configuration that may be used, with what there is to say about it. */
export interface UsableConfiguration {
  readonly configuration: Configuration;
  readonly findings: readonly Finding[];
}
