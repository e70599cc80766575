import type {
  BackendPoolView,
  FlowList,
  FlowListQuery,
  FrontendView,
  RuleView,
  SimulationReport,
  SimulationRequest,
  StatusView,
} from '../api/views.js';
import type { FiveTuple } from '../model/address.js';
import type { AdminState } from '../model/configuration.js';
import { BalancerError, type ErrorCode } from '../model/errors.js';
import type { FeedEvent, UpgradeOutcome } from '../model/events.js';
import type { DrainRequest, DrainStatus } from '../model/forwarding.js';
import type { PlanOutcome, ReloadOutcome } from '../model/plan-report.js';

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

/** An error answer as RFC 9457 has it (application/problem+json). */
export function problem(
  status: number,
  title: string,
  extra: {
    /** What is there and what must be. */
    readonly detail?: string;
    /** Stable: `LB_...`. */
    readonly code?: string;
    readonly reasons?: readonly string[];
    /** Of the validator. */
    readonly findings?: readonly unknown[];
    readonly headers?: Readonly<Record<string, string>>;
  } = {},
): Response {
  const { headers, ...members } = extra;
  return new Response(`${JSON.stringify({ type: 'about:blank', status, title, ...members })}\n`, {
    status,
    headers: { ...headers, 'content-type': 'application/problem+json' },
  });
}

interface Kind {
  readonly status: number;
  readonly title: string;
}

const USAGE: Kind = { status: 400, title: 'Bad request' };
const NOT_FOUND: Kind = { status: 404, title: 'Not found' };
const CONFLICT: Kind = { status: 409, title: 'Conflict' };
const UNUSABLE: Kind = { status: 422, title: 'Unusable configuration' };

/** Codes that say something to whoever asked. Every other one is an internal error without details. */
const KINDS: Readonly<Partial<Record<ErrorCode, Kind>>> = {
  LB_USAGE: USAGE,
  LB_UNAUTHORIZED: { status: 401, title: 'Unauthorized' },
  LB_FORBIDDEN: { status: 403, title: 'Forbidden' },
  LB_UNKNOWN_BACKEND: NOT_FOUND,
  LB_NOT_FOUND: NOT_FOUND,
  LB_CONFLICT: CONFLICT,
  LB_GATE_EXCEEDED: CONFLICT,
  LB_RESTART_NEEDED: CONFLICT,
  LB_TOO_LARGE: { status: 413, title: 'Too large' },
  LB_CONFIG_SYNTAX: UNUSABLE,
  LB_CONFIG_INVALID: UNUSABLE,
  LB_UPGRADE_FAILED: { status: 500, title: 'The new version does not start' },
  LB_APPLY_FAILED: { status: 500, title: 'The change could not be applied' },
};

/** Whether `errorProblem` tells what the error says. */
export function isTellable(error: unknown): error is BalancerError {
  return error instanceof BalancerError && KINDS[error.code] !== undefined;
}

/** The answer that stands for anything thrown. `findings` of an error go along. */
export function errorProblem(error: unknown): Response {
  const kind = isTellable(error) ? KINDS[error.code] : undefined;
  if (kind === undefined || !isTellable(error)) {
    return problem(500, 'Internal error', { code: 'LB_INTERNAL' });
  }
  const findings = 'findings' in error && Array.isArray(error.findings) ? { findings: error.findings } : {};
  const headers = kind.status === 401 ? { headers: { 'www-authenticate': 'Bearer realm="haports"' } } : {};
  return problem(kind.status, kind.title, {
    detail: error.message,
    code: error.code,
    ...findings,
    ...headers,
  });
}

/** What whoever asked has done wrong: what is there and what must be. */
export function usageError(message: string): BalancerError {
  return new BalancerError(message, { code: 'LB_USAGE', source: 'usage' });
}
