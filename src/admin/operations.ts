import type { AdminState } from '../model/configuration.js';
import type { DrainRequest, DrainStatus } from '../model/drain.js';
import type { FeedEvent } from '../model/feed-event.js';
import type { FiveTuple } from '../model/five-tuple.js';
import type {
  BackendPoolView,
  FlowList,
  FlowListQuery,
  FrontendView,
  RuleView,
  StatusView,
} from '../model/operator-views.js';
import type { PlanOutcome, ReloadOutcome } from '../model/plan-report.js';
import type { SimulationReport, SimulationRequest } from '../model/simulation.js';
import type { UpgradeOutcome } from '../model/upgrade.js';

/** Events as they happen, with a short memory. */
export interface EventFeedSource {
  /** Remembered events with an id above this one, oldest first. */
  since(id: number): readonly FeedEvent[];
  /** Calls the listener with each event until the returned function is called. */
  subscribe(listener: (event: FeedEvent) => void): () => void;
}

/**
 * Everything that the admin API can show and do. Backends are named by id (`pool/address`) or `pool/name`. All reject
 * with a BalancerError: `LB_UNKNOWN_BACKEND`, `LB_CONFLICT`, `LB_CONFIG_INVALID`, `LB_GATE_EXCEEDED`,
 * `LB_RESTART_NEEDED`, `LB_APPLY_FAILED`, `LB_UPGRADE_FAILED`.
 */
export interface Operations {
  status(): Promise<StatusView>;
  frontends(): Promise<readonly FrontendView[]>;
  rules(): Promise<readonly RuleView[]>;
  pools(): Promise<readonly BackendPoolView[]>;
  flows(query: FlowListQuery): Promise<FlowList>;
  /** The Explanation of selection/, with the live flow if there is one. Plain data. */
  explain(tuple: FiveTuple): Promise<object>;

  /** `configured`: what the configuration says again. Resolves when the data plane has it. */
  setAdminState(backend: string, state: AdminState | 'configured'): Promise<void>;
  /** 0-256. `configured`: what the configuration or the probe's header says again. */
  setWeight(backend: string, weight: number | 'configured'): Promise<void>;
  /** Rejects with `LB_CONFLICT` where the pool would fall below its minimumHealthy, unless `force`. */
  drain(backend: string, request: DrainRequest & { readonly force: boolean }): Promise<DrainStatus>;
  /** The backend gets new flows again. */
  cancelDrain(backend: string): Promise<void>;
  drains(): Promise<readonly DrainStatus[]>;

  /** `text` is a whole configuration. Changes nothing. */
  plan(text: string): Promise<PlanOutcome>;
  /** Takes a configuration over whole or not at all. `maxMoved`, 0 to 1: refuses with `LB_GATE_EXCEEDED` above it. */
  reload(text: string, options: { readonly maxMoved?: number }): Promise<ReloadOutcome>;
  /** Has the new version take this process's place. `deadlineMs`: how long TCP flows here may take to finish. */
  upgrade(request: { readonly deadlineMs?: number }): Promise<UpgradeOutcome>;
  simulate(request: SimulationRequest): Promise<SimulationReport>;

  readonly events: EventFeedSource;
}
