import type { AdminState } from '../model/configuration.js';
import { BalancerError } from '../model/errors.js';
import type { FlowListQuery, FrontendView, RuleView } from '../model/operator-views.js';
import type { PlanOutcome, ReloadOutcome } from '../model/plan-report.js';
import type { SimulationReport, SimulationRequest } from '../model/simulation.js';
import type { UpgradeOutcome } from '../model/upgrade.js';
import { problemOf } from './admin-problem.js';
import { describeTarget, type AdminTarget } from './admin-target.js';
import { readBody, sendRequest, type AdminRequest } from './admin-transport.js';
import type { DrainJson, ExplanationJson, FlowListJson, PoolJson, StatusJson } from './admin-json.js';
import type { BackendRef } from './option-parsers.js';

/** A read that takes longer than this has met a process that hangs. */
const READ_TIMEOUT_MS = 15_000;

/** Taking over a configuration of all ports may take a while. */
const WRITE_TIMEOUT_MS = 120_000;

export type QueryValue = string | number | undefined;

/** What a drain is asked for over the API: durations are text, as in the configuration. */
export interface DrainWishes {
  readonly deadline: string;
  readonly then: 'reset' | 'leave';
  readonly spread: string;
  readonly force: boolean;
}

/**
 * The admin API of a running process, typed. All methods reject with an AdminProblem where it refuses, and with
 * `LB_NOT_RUNNING` where nobody answers. Answers are trusted to have the shape that the API documents.
 */
export class AdminClient {
  readonly #target: AdminTarget;

  constructor(target: AdminTarget) {
    this.#target = target;
  }

  get target(): AdminTarget {
    return this.#target;
  }

  async status(signal?: AbortSignal): Promise<StatusJson> {
    return (await this.#get('/v1/status', {}, signal)) as StatusJson;
  }

  async frontends(): Promise<readonly FrontendView[]> {
    return (await this.#get('/v1/frontends')) as readonly FrontendView[];
  }

  async rules(): Promise<readonly RuleView[]> {
    return (await this.#get('/v1/rules')) as readonly RuleView[];
  }

  async pools(signal?: AbortSignal): Promise<readonly PoolJson[]> {
    return (await this.#get('/v1/pools', {}, signal)) as readonly PoolJson[];
  }

  async pool(name: string): Promise<PoolJson> {
    return (await this.#get(`/v1/pools/${encodeURIComponent(name)}`)) as PoolJson;
  }

  async flows(query: Partial<FlowListQuery>, signal?: AbortSignal): Promise<FlowListJson> {
    return (await this.#get('/v1/flows', { ...query }, signal)) as FlowListJson;
  }

  async explain(query: {
    readonly protocol: string;
    readonly source: string;
    readonly destination: string;
  }): Promise<ExplanationJson> {
    return (await this.#get('/v1/explain', query)) as ExplanationJson;
  }

  async setAdminState(backend: BackendRef, adminState: AdminState | 'configured'): Promise<void> {
    await this.#write('PUT', `${pathOf(backend)}/admin-state`, JSON.stringify({ adminState }));
  }

  async setWeight(backend: BackendRef, weight: number | 'configured'): Promise<void> {
    await this.#write('PUT', `${pathOf(backend)}/weight`, JSON.stringify({ weight }));
  }

  async drain(backend: BackendRef, wishes: DrainWishes): Promise<DrainJson> {
    return (await this.#write('POST', `${pathOf(backend)}/drain`, JSON.stringify(wishes))) as DrainJson;
  }

  async drainStatus(backend: BackendRef, signal?: AbortSignal): Promise<DrainJson> {
    return (await this.#get(`${pathOf(backend)}/drain`, {}, signal)) as DrainJson;
  }

  async cancelDrain(backend: BackendRef): Promise<void> {
    await this.#write('DELETE', `${pathOf(backend)}/drain`);
  }

  async drains(): Promise<readonly DrainJson[]> {
    return (await this.#get('/v1/drains')) as readonly DrainJson[];
  }

  /** `text` is a whole configuration. */
  async plan(text: string): Promise<PlanOutcome> {
    return (await this.#write('POST', '/v1/plan', text)) as PlanOutcome;
  }

  /** `maxMoved`: 0 to 1. */
  async reload(text: string, options: { readonly maxMoved?: number } = {}): Promise<ReloadOutcome> {
    const query = queryOf({ maxMoved: options.maxMoved });
    return (await this.#write('POST', `/v1/reload${query}`, text)) as ReloadOutcome;
  }

  /** `deadline`: a duration with a unit. */
  async upgrade(options: { readonly deadline?: string } = {}): Promise<UpgradeOutcome> {
    return (await this.#write('POST', '/v1/upgrade', JSON.stringify(options))) as UpgradeOutcome;
  }

  async simulate(request: SimulationRequest): Promise<SimulationReport> {
    return (await this.#write('POST', '/v1/simulate', JSON.stringify(request))) as SimulationReport;
  }

  /** Sends JSON text as it is and gives the answer, for commands that look no closer at it. */
  async post(path: string, text: string): Promise<unknown> {
    return this.#write('POST', path, text);
  }

  async #get(
    path: string,
    query: Readonly<Record<string, QueryValue>> = {},
    signal?: AbortSignal,
  ): Promise<unknown> {
    return this.#exchange({
      method: 'GET',
      path: `${path}${queryOf(query)}`,
      timeoutMs: READ_TIMEOUT_MS,
      ...(signal === undefined ? {} : { signal }),
    });
  }

  async #write(method: 'PUT' | 'POST' | 'DELETE', path: string, body?: string): Promise<unknown> {
    // A write without a body states its type too: what has none could have come from a form of any web page.
    const text = body === undefined ? {} : { body };
    const headers = { 'content-type': 'application/json' };
    return this.#exchange({ method, path, timeoutMs: WRITE_TIMEOUT_MS, headers, ...text });
  }

  async #exchange(request: AdminRequest): Promise<unknown> {
    const response = await sendRequest(this.#target, request);
    const text = await readBody(this.#target, response);
    const status = response.statusCode ?? 0;
    if (status < 200 || status > 299) throw problemOf(status, text);
    if (text === '') return undefined;
    try {
      return JSON.parse(text) as unknown;
    } catch (error) {
      throw new BalancerError(
        `What answers at "${describeTarget(this.#target)}" is not the admin API of haports`,
        {
          code: 'LB_NOT_RUNNING',
          source: 'system',
          cause: error,
        },
      );
    }
  }
}

/** `?a=1&b=2`, or nothing; what is undefined is left out. */
export function queryOf(query: Readonly<Record<string, QueryValue>>): string {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) if (value !== undefined) search.set(key, String(value));
  const text = search.toString();
  return text === '' ? '' : `?${text}`;
}

function pathOf({ pool, backend }: BackendRef): string {
  return `/v1/backends/${encodeURIComponent(pool)}/${encodeURIComponent(backend)}`;
}
