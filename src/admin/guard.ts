import { createHash, timingSafeEqual } from 'node:crypto';
import { parseIpAddress } from '../model/address.js';
import { BalancerError } from '../model/errors.js';
import { usageError } from './problem.js';

/** Who may use a listener. A Unix socket needs no guard: its mode is one. */
export interface GuardPolicy {
  readonly scheme: 'http' | 'https';
  /** Required for everything but the files of the dashboard; undefined: no token is required. */
  readonly token?: string | undefined;
}

/** The parts of a request that the guard looks at. */
export interface GuardedRequest {
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  /** By lower-case name. */
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
}

/** Throws `LB_UNAUTHORIZED`, `LB_FORBIDDEN` or `LB_USAGE` where the request must not be served. */
export type RequestGuard = (request: GuardedRequest) => void;

/**
 * Refuses clients without the token, and requests that another site makes in a user's browser:
 *
 * - Without a token, `Host` must be `localhost` or a literal address: after DNS rebinding, a page still sends its own
 *   name. With a token any name will do, since browsers do not send tokens by themselves.
 * - On the API, `Sec-Fetch-Site` must be `same-origin` or `none`, where a browser sends it.
 * - A write must have no `Origin` or the same one, and its body must be `application/json`, which a form cannot send.
 */
export function createRequestGuard({ scheme, token }: GuardPolicy): RequestGuard {
  const wanted = token === undefined ? undefined : digest(token);
  return (request) => {
    const free = isRead(request.method) && isDashboard(request.path);
    if (wanted === undefined) assertHost(text(request, 'host'));
    else if (!free) assertToken(text(request, 'authorization'), wanted);
    if (free) return;
    assertSameSite(request, scheme);
    if (!isRead(request.method)) assertJson(request);
  };
}

function isRead(method: string): boolean {
  return method === 'GET' || method === 'HEAD';
}

function isDashboard(path: string): boolean {
  return path === '/' || path.startsWith('/assets/');
}

function assertHost(host: string): void {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+))(?::\d{1,5})?$/.exec(host);
  const [, v6, name] = match ?? [];
  if (name?.toLowerCase() === 'localhost') return;
  if (parseIpAddress(v6 ?? name ?? '') !== undefined) return;
  throw forbidden(`Host ${JSON.stringify(host)} is not served: it must be an IP address or localhost`);
}

function assertToken(authorization: string, wanted: Buffer): void {
  const given = /^Bearer +(\S+) *$/i.exec(authorization)?.[1];
  // Digests have the same length, and the time of the comparison reveals nothing of the token.
  if (given !== undefined && timingSafeEqual(digest(given), wanted)) return;
  const found = given === undefined ? 'No token' : 'The wrong token';
  throw new BalancerError(`${found} was given: it must be in "Authorization: Bearer"`, {
    code: 'LB_UNAUTHORIZED',
    source: 'usage',
  });
}

function assertSameSite(request: GuardedRequest, scheme: string): void {
  const site = text(request, 'sec-fetch-site');
  if (site !== '' && site !== 'same-origin' && site !== 'none') {
    throw forbidden(`Sec-Fetch-Site "${site}" is not served: it must be same-origin`);
  }
  const origin = text(request, 'origin');
  const own = `${scheme}://${text(request, 'host')}`.toLowerCase();
  if (isRead(request.method) || origin === '' || origin.toLowerCase() === own) return;
  throw forbidden(`Origin ${JSON.stringify(origin)} may not change anything: it must be this one`);
}

function assertJson(request: GuardedRequest): void {
  const length = text(request, 'content-length');
  const hasBody = request.headers['transfer-encoding'] !== undefined || (length !== '' && length !== '0');
  const type = text(request, 'content-type');
  if (!hasBody || type.split(';')[0]?.trim().toLowerCase() === 'application/json') return;
  throw usageError(`Content-Type is ${JSON.stringify(type)}: it must be application/json`);
}

/** Several values of a header are joined, and so match none that is allowed. */
function text({ headers }: GuardedRequest, name: string): string {
  const value = headers[name];
  return typeof value === 'string' ? value : value === undefined ? '' : value.join(', ');
}

function digest(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}

function forbidden(message: string): BalancerError {
  return new BalancerError(message, { code: 'LB_FORBIDDEN', source: 'usage' });
}
