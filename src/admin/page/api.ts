// The admin API, as the page calls it, and what the page knows of the process, kept fresh.

import { createApiClient, type ApiClient, type ApiRequest, type RoutePlaces } from '../../api/client.js';
import type { OperationName } from '../../api/contract.js';
import type { BackendPoolView, FrontendView, RuleView, StatusView, TrafficView } from '../../api/views.js';
import type { OpenStream } from './event-stream.js';

const TOKEN_KEY = 'haports-token';
const TIMEOUT_MS = 10_000;
/** A difference below this may come from the Date header's whole seconds and the time of the answer. */
const CLOCK_TOLERANCE_MS = 2500;

/** The routes that the page uses. */
const PLACES = {
  status: { method: 'GET', path: '/v1/status' },
  frontends: { method: 'GET', path: '/v1/frontends' },
  rules: { method: 'GET', path: '/v1/rules' },
  pools: { method: 'GET', path: '/v1/pools' },
  flows: { method: 'GET', path: '/v1/flows' },
  explain: { method: 'GET', path: '/v1/explain' },
  setAdminState: { method: 'PUT', path: '/v1/backends/{pool}/{backend}/admin-state' },
  drain: { method: 'POST', path: '/v1/backends/{pool}/{backend}/drain' },
  cancelDrain: { method: 'DELETE', path: '/v1/backends/{pool}/{backend}/drain' },
} as const satisfies Partial<RoutePlaces<OperationName>>;

/** A refusal, or no answer. `code` is the stable one (`LB_CONFLICT`), or `NETWORK` without an answer. */
export class ApiError extends Error {
  readonly code: string;

  constructor(message: string, code = 'NETWORK') {
    super(message);
    this.name = 'ApiError';
    this.code = code;
  }

  /** For people. */
  get text(): string {
    return `${this.message} (${this.code})`;
  }
}

/** The routes that the page uses, as methods that reject with an ApiError. */
export interface PageApi extends ApiClient<keyof typeof PLACES> {
  /** The server asks for a token: until `unlock`, calls fail at once. */
  readonly locked: boolean;
  unlock(token: string): void;
  /** EventSource could not send the token. */
  readonly stream: OpenStream;
  /** Milliseconds since the epoch by the server's clock: ages and deadlines are right where this machine's is not. */
  now(): number;
}

/** `onLocked` is called when the server asks for a token; `refused`: it had been given a wrong one. */
export function createApi(onLocked: (refused: boolean) => void): PageApi {
  let locked = false;
  let aheadMs = 0;
  const isLocked = (): boolean => locked;

  async function request(path: string, init: RequestInit): Promise<Response> {
    if (isLocked()) throw new ApiError('The admin API wants a token', 'LB_UNAUTHORIZED');
    const token = sessionStorage.getItem(TOKEN_KEY);
    const headers = new Headers(init.headers);
    if (token !== null) headers.set('authorization', `Bearer ${token}`);
    if (init.method !== 'GET') headers.set('content-type', 'application/json');
    const response = await fetch(path, { ...init, headers, cache: 'no-store' }).catch((error: unknown) => {
      throw new ApiError(failureText(error));
    });
    noteServerTime(response.headers.get('date'));
    if (response.ok) return response;
    const refusal = await refusalOf(response);
    // A refusal may come late, after a better token was given.
    if (response.status === 401 && token === sessionStorage.getItem(TOKEN_KEY) && !isLocked()) {
      locked = true;
      sessionStorage.removeItem(TOKEN_KEY);
      onLocked(token !== null);
    }
    throw refusal;
  }

  async function send({ method, path, body }: ApiRequest): Promise<unknown> {
    const response = await request(relative(path), {
      method,
      body,
      headers: { accept: 'application/json' },
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    try {
      const text = await response.text();
      return text === '' ? undefined : JSON.parse(text);
    } catch (error) {
      throw new ApiError(`The answer to ${method} ${path} cannot be read: ${failureText(error)}`);
    }
  }

  function noteServerTime(header: string | null): void {
    const difference = Date.parse(header ?? '') - Date.now();
    if (Math.abs(difference) < CLOCK_TOLERANCE_MS) aheadMs = 0;
    // Within the tolerance of what is known it stays, so that times do not jump back and forth.
    else if (Math.abs(difference - aheadMs) >= CLOCK_TOLERANCE_MS) aheadMs = difference;
  }

  return {
    ...createApiClient(PLACES, send),
    get locked() {
      return isLocked();
    },
    unlock(token) {
      sessionStorage.setItem(TOKEN_KEY, token);
      locked = false;
    },
    stream: (path, headers, signal) =>
      request(path, { method: 'GET', headers: { accept: 'text/event-stream', ...headers }, signal }),
    now: () => Date.now() + aheadMs,
  };
}

/** So that the page also works below a path of a proxy. */
function relative(path: string): string {
  return path.slice(1);
}

function failureText(error: unknown): string {
  if (error instanceof TypeError) return 'The admin API cannot be reached';
  if (!(error instanceof Error)) return String(error);
  if (error.name === 'TimeoutError') return `The admin API does not answer within ${TIMEOUT_MS / 1000} s`;
  return error.name === 'AbortError' ? 'The request was cancelled' : error.message;
}

/** RFC 9457 where it is one. */
async function refusalOf(response: Response): Promise<ApiError> {
  const { status, statusText } = response;
  const problem = (await response.json().catch(() => ({}))) as Partial<Record<string, string>> | null;
  const fallback = `The admin API answers ${status} ${statusText}`.trim();
  return new ApiError(
    problem?.['detail'] ?? problem?.['title'] ?? fallback,
    problem?.['code'] ?? `HTTP ${status}`,
  );
}

/** Runs `task` again and again, never twice at a time. `now()` runs it at once; `stop()` ends it. */
export function repeat(task: () => Promise<void>, everyMs: number): { now(): void; stop(): void } {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let stopped = false;
  const isStopped = (): boolean => stopped;
  let running = false;
  async function turn(): Promise<void> {
    clearTimeout(timer);
    if (isStopped() || running) return;
    running = true;
    await task();
    running = false;
    if (!isStopped()) timer = setTimeout(now, everyMs);
  }
  const now = (): void => void turn();
  now();
  return {
    now,
    stop() {
      stopped = true;
      clearTimeout(timer);
    },
  };
}

const STATUS_EVERY_MS = 1000;
const TOPOLOGY_EVERY_MS = 2000;
/** The charts show this much. */
export const WINDOW_S = 300;

/** Columns for the charts: seconds since the epoch, then values; null is a gap. */
export interface Series {
  readonly at: number[];
  readonly toBackend: (number | null)[];
  readonly toClient: (number | null)[];
  readonly newFlows: (number | null)[];
}

export interface Live {
  readonly status?: StatusView;
  /** When the status came, by this machine's clock. */
  readonly freshAtMs?: number;
  readonly topology?: {
    readonly frontends: readonly FrontendView[];
    readonly rules: readonly RuleView[];
    readonly pools: readonly BackendPoolView[];
  };
  readonly series: Series;
  /** Why the last poll of the status, or of the topology, failed. */
  readonly statusError?: ApiError;
  readonly topologyError?: ApiError;
}

export const NOTHING_KNOWN: Live = { series: { at: [], toBackend: [], toClient: [], newFlows: [] } };

/** Polls the status each second, and frontends, rules and pools every other second. The result polls at once. */
export function followProcess(api: PageApi, onChange: (live: Live) => void): () => void {
  let known = NOTHING_KNOWN;
  const set = (part: Partial<Live>): void => {
    known = { ...known, ...part };
    onChange(known);
  };

  async function pollStatus(): Promise<void> {
    if (api.locked) return;
    try {
      const status = await api.status();
      const series = grown(known.series, status.traffic);
      set({ status, series, freshAtMs: Date.now(), statusError: undefined });
    } catch (error) {
      set({ series: grown(known.series), statusError: error as ApiError });
    }
  }

  async function pollTopology(): Promise<void> {
    if (api.locked || (document.hidden && known.topology !== undefined)) return;
    try {
      const [frontends, rules, pools] = await Promise.all([api.frontends(), api.rules(), api.pools()]);
      set({ topology: { frontends, rules, pools }, topologyError: undefined });
    } catch (error) {
      set({ topologyError: error as ApiError });
    }
  }

  const polls = [repeat(pollStatus, STATUS_EVERY_MS), repeat(pollTopology, TOPOLOGY_EVERY_MS)];
  return () => polls.forEach((poll) => poll.now());
}

function grown({ at, toBackend, toClient, newFlows }: Series, traffic?: TrafficView): Series {
  const now = Date.now() / 1000;
  const first = at.findIndex((time) => time >= now - WINDOW_S);
  const kept = <T>(column: readonly T[]): readonly T[] => (first < 0 ? [] : column.slice(first));
  return {
    at: [...kept(at), now],
    toBackend: [...kept(toBackend), traffic?.bitsToBackendPerSecond ?? null],
    toClient: [...kept(toClient), traffic?.bitsToClientPerSecond ?? null],
    newFlows: [...kept(newFlows), traffic?.newFlowsPerSecond ?? null],
  };
}
