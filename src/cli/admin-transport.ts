import { request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { BalancerError, errorCode, errorMessage } from '../model/errors.js';
import { VERSION } from '../model/version.js';
import { describeTarget, type AdminTarget } from './admin-target.js';

/** One request to the admin API. */
export interface AdminRequest {
  readonly method: 'GET' | 'PUT' | 'POST' | 'DELETE';
  /** With the query, escaped. */
  readonly path: string;
  /** JSON text. */
  readonly body?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Given up when nothing came for this long. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/**
 * Sends a request and resolves with the head of the answer, whatever its status; the caller reads or destroys it.
 * Rejects with `LB_NOT_RUNNING` where nobody answers and `LB_FORBIDDEN` where the socket is somebody else's.
 */
export function sendRequest(target: AdminTarget, asked: AdminRequest): Promise<IncomingMessage> {
  const { method, body, timeoutMs } = asked;
  const headers: Record<string, string> = { 'user-agent': `haports/${VERSION}`, ...asked.headers };
  if (target.kind === 'http' && target.token !== undefined)
    headers['authorization'] = `Bearer ${target.token}`;
  if (body !== undefined) {
    headers['content-type'] = 'application/json';
    headers['content-length'] = String(Buffer.byteLength(body));
  }
  // A connection of its own for each request: one that was kept may be closed by the server at any time.
  const options: RequestOptions = { method, headers, agent: false, timeout: timeoutMs };
  if (asked.signal !== undefined) options.signal = asked.signal;
  return new Promise((resolve, reject) => {
    const failed = (error: unknown): void => reject(transportError(target, error));
    const request = open(target, asked.path, options);
    request.once('response', (response) => {
      // What goes wrong from here on is told by the body, to whom reads it.
      request.off('error', failed).on('error', () => undefined);
      resolve(response);
    });
    request.on('error', failed);
    request.once('timeout', () => request.destroy(new Error(`no answer in ${timeoutMs / 1000} s`)));
    request.end(body);
  });
}

function open(target: AdminTarget, path: string, options: RequestOptions): ReturnType<typeof httpRequest> {
  if (target.kind === 'socket') return httpRequest({ ...options, socketPath: target.path, path });
  const { url, ca } = target;
  const full = new URL(path, url);
  if (url.protocol === 'http:') return httpRequest(full, options);
  return httpsRequest(full, { ...options, ...(ca === undefined ? {} : { ca }) });
}

/** The whole body. Rejects as sendRequest where the connection breaks. */
export async function readBody(target: AdminTarget, response: IncomingMessage): Promise<string> {
  response.setEncoding('utf8');
  let text = '';
  try {
    for await (const chunk of response) text += String(chunk);
  } catch (error) {
    throw transportError(target, error);
  }
  return text;
}

/** What a failed connection means to the one who typed the command. */
export function transportError(target: AdminTarget, error: unknown): BalancerError {
  if (error instanceof BalancerError) return error;
  const code = errorCode(error);
  const place = `"${describeTarget(target)}"`;
  const options = { source: 'system', cause: error } as const;
  if (code === 'EACCES' || code === 'EPERM') {
    return new BalancerError(
      `Cannot open ${place} (${code}): the admin socket is for the user that haports runs as, and root`,
      { ...options, code: 'LB_FORBIDDEN' },
    );
  }
  const isAbsent = code === 'ENOENT' || code === 'ECONNREFUSED' || code === 'ENOTSOCK';
  const advice =
    target.kind === 'socket'
      ? 'is haports running there, with "admin": { "socket": ... } in its configuration? (--socket and HAPORTS_SOCKET name another)'
      : 'is haports running there, with "admin": { "http": ... } in its configuration?';
  return new BalancerError(
    isAbsent
      ? `No haports answers at ${place} (${code}): ${advice}`
      : `No answer from haports at ${place}: ${errorMessage(error)}`,
    { ...options, code: 'LB_NOT_RUNNING' },
  );
}
