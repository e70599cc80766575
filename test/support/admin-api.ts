import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { within } from './deadline.js';

/** Where a server is asked; by TLS where `ca` (PEM) is given. @default host 127.0.0.1 */
export type Place = Pick<RequestOptions, 'host' | 'port' | 'socketPath' | 'agent'> & { readonly ca?: string };

export interface Answer {
  readonly status: number;
  readonly headers: NodeJS.Dict<string | string[]>;
  readonly text: string;
  /** Parsed; undefined where the text is no JSON. */
  readonly json: unknown;
}

export interface Asked extends Pick<RequestOptions, 'method' | 'headers'> {
  /** A text or bytes are sent as they are, anything else as JSON. */
  readonly body?: unknown;
}

/** One request, on a connection of its own if the place has no agent. A body is said to be JSON, unless `headers` say otherwise. */
export async function ask(place: Place, path: string, asked: Asked = {}): Promise<Answer> {
  const { method = 'GET', headers = {}, body } = asked;
  const payload = typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body);
  const type = body === undefined ? {} : { 'content-type': 'application/json' };
  const request = place.ca === undefined ? httpRequest : httpsRequest;
  const outgoing = request({
    host: '127.0.0.1',
    agent: false,
    ...place,
    path,
    method,
    headers: { ...type, ...(headers as Readonly<Record<string, string>>) },
  });
  outgoing.end(payload);
  const [incoming] = (await once(outgoing, 'response')) as [IncomingMessage];
  let text = '';
  for await (const chunk of incoming) text += String(chunk);
  return { status: incoming.statusCode ?? 0, headers: incoming.headers, text, json: parsed(text) };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export interface AdminAnswer {
  readonly status: number;
  readonly body: unknown;
}

/** One call of the admin API over its Unix socket; a text is sent as it is, anything else as JSON. */
export async function adminApi(
  socketPath: string,
  method: 'GET' | 'PUT' | 'POST' | 'DELETE',
  path: string,
  body?: unknown,
  timeoutMs = 20_000,
): Promise<AdminAnswer> {
  const answer = ask({ socketPath }, path, { method, body });
  const { status, json } = await within(answer, timeoutMs, `${method} ${path}`);
  return { status, body: json };
}
