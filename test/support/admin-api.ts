import { request } from 'node:http';
import { within } from './deadline.js';

export interface AdminAnswer {
  readonly status: number;
  readonly body: unknown;
}

/** One call of the admin API over its Unix socket; a text is sent as it is, anything else as JSON. */
export function adminApi(
  socketPath: string,
  method: 'GET' | 'PUT' | 'POST' | 'DELETE',
  path: string,
  body?: unknown,
  timeoutMs = 20_000,
): Promise<AdminAnswer> {
  const payload = body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
  const answer = new Promise<AdminAnswer>((resolve, reject) => {
    const call = request(
      {
        socketPath,
        method,
        path,
        headers: {
          host: 'localhost',
          ...(payload === undefined
            ? {}
            : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(payload) }),
        },
      },
      (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (part: string) => (text += part));
        response.on('end', () => {
          const parsed: unknown = text === '' ? undefined : JSON.parse(text);
          resolve({ status: response.statusCode ?? 0, body: parsed });
        });
        response.on('error', reject);
      },
    );
    call.on('error', reject);
    call.end(payload);
  });
  return within(answer, timeoutMs, `${method} ${path}`);
}
