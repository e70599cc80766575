import { REFUSALS, type RefusalCode } from '../api/contract.js';
import { BalancerError } from '../model/errors.js';

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
    readonly findings?: unknown;
    readonly headers?: Readonly<Record<string, string>>;
  } = {},
): Response {
  const { headers, ...members } = extra;
  return new Response(`${JSON.stringify({ type: 'about:blank', status, title, ...members })}\n`, {
    status,
    headers: { ...headers, 'content-type': 'application/problem+json' },
  });
}

/** Whether the client may see the text of the error. Any other is answered as an internal error without details. */
export function isTellable(error: unknown): error is BalancerError & { readonly code: RefusalCode } {
  return (
    error instanceof BalancerError && error.code !== 'LB_INTERNAL' && Object.hasOwn(REFUSALS, error.code)
  );
}

/** The answer that stands for anything thrown. `findings` of an error go along. */
export function errorProblem(error: unknown): Response {
  if (!isTellable(error)) return problem(500, REFUSALS.LB_INTERNAL.title, { code: 'LB_INTERNAL' });
  const { message: detail, code } = error;
  const { status, title } = REFUSALS[code];
  return problem(status, title, {
    detail,
    code,
    ...('findings' in error && Array.isArray(error.findings) && { findings: error.findings as unknown }),
    ...(status === 401 && { headers: { 'www-authenticate': 'Bearer realm="haports"' } }),
  });
}

/** A mistake of the client: what is there and what must be. */
export function usageError(message: string): BalancerError {
  return new BalancerError(message, { code: 'LB_USAGE', source: 'usage' });
}
