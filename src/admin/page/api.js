// The admin API, as the page calls it.

import { noteServerTime } from './server-time.js';

const TOKEN_KEY = 'haports-token';
const TIMEOUT_MS = 10_000;

/** An answer that is not the one hoped for. `code` is the stable one (`LB_CONFLICT`), or `NETWORK` where none came. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = 'NETWORK', findings = [] } = {}) {
    super(message);
    this.name = 'ApiError';
    this.status = status;
    this.code = code;
    this.findings = findings;
  }
}

/**
 * `onLocked(refused)` is called when the server asks for a token; `refused`: the one that it got was wrong. Until
 * `unlock` brings another, calls fail at once.
 */
export function createApi(
  onLocked,
  { fetch = globalThis.fetch.bind(globalThis), storage = sessionStorage } = {},
) {
  let locked = false;

  async function request(method, path, { body, headers = {}, signal } = {}) {
    if (locked) throw new ApiError('The admin API wants a token', { status: 401, code: 'LB_UNAUTHORIZED' });
    const token = storage.getItem(TOKEN_KEY);
    const sent = { accept: 'application/json', ...headers };
    if (token !== null) sent.authorization = `Bearer ${token}`;
    if (method !== 'GET') sent['content-type'] = 'application/json';
    let response;
    try {
      const json = body === undefined ? undefined : JSON.stringify(body);
      response = await fetch(path, { method, headers: sent, body: json, signal, cache: 'no-store' });
    } catch (error) {
      throw new ApiError(signalText(error), { code: 'NETWORK' });
    }
    noteServerTime(response.headers.get('date'));
    if (response.ok) return response;
    const failure = await problemOf(response);
    // A refusal may come late, after a better token was given.
    if (response.status === 401 && token === storage.getItem(TOKEN_KEY) && !locked) {
      locked = true;
      storage.removeItem(TOKEN_KEY);
      onLocked(token !== null);
    }
    throw failure;
  }

  return {
    get locked() {
      return locked;
    },

    unlock(token) {
      storage.setItem(TOKEN_KEY, token);
      locked = false;
    },

    /** The parsed answer; undefined where it has no body. */
    async call(method, path, body) {
      const response = await request(method, path, { body, signal: AbortSignal.timeout(TIMEOUT_MS) });
      try {
        const text = await response.text();
        return text === '' ? undefined : JSON.parse(text);
      } catch (error) {
        throw new ApiError(`The answer to ${method} ${path} cannot be read: ${signalText(error)}`);
      }
    },

    /** The response as it comes; EventSource could not send the token. */
    stream(path, headers, signal) {
      return request('GET', path, { headers: { accept: 'text/event-stream', ...headers }, signal });
    },
  };
}

function signalText(error) {
  if (error.name === 'TimeoutError') return `The admin API does not answer within ${TIMEOUT_MS / 1000} s`;
  if (error.name === 'AbortError') return 'The request was given up';
  if (error instanceof TypeError) return 'The admin API cannot be reached';
  return error.message;
}

/** RFC 9457 where it is one. */
async function problemOf(response) {
  const { status } = response;
  const fallback = `The admin API answers ${status} ${response.statusText}`.trim();
  try {
    const { title, detail, code, findings } = await response.json();
    return new ApiError(detail ?? title ?? fallback, {
      status,
      code: code ?? `HTTP ${status}`,
      findings: findings ?? [],
    });
  } catch {
    return new ApiError(fallback, { status, code: `HTTP ${status}` });
  }
}

/** Query string from what is set. */
export function query(parameters) {
  const set = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== '');
  return set.length === 0 ? '' : `?${new URLSearchParams(set)}`;
}

/** `v1/backends/<pool>/<address>/<what>`; relative, so that the page also works below a path of a proxy. */
export function backendPath(backend, what) {
  return `v1/backends/${encodeURIComponent(backend.pool)}/${encodeURIComponent(backend.address)}/${what}`;
}
