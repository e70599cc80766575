import { BalancerError, type ErrorCode } from '../model/errors.js';
import { problem } from './problem.js';

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
