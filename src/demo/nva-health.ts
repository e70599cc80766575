import { createServer, type Server } from 'node:http';

interface HealthAnswer {
  readonly status: number;
  readonly text: string;
}

/**
 * The health endpoint of a sample NVA: `GET /healthz` answers 200 `ok` or 503 `sick`; `POST /sick` and
 * `POST /well` choose which. Not listening yet; the caller owns it.
 */
export function createNvaHealthServer(name: string): Server {
  let sick = false;

  const answer = (method: string, path: string): HealthAnswer => {
    if (path === '/healthz') {
      if (method !== 'GET' && method !== 'HEAD') return { status: 405, text: 'Only GET is allowed' };
      return sick ? { status: 503, text: 'sick' } : { status: 200, text: 'ok' };
    }
    if (path !== '/sick' && path !== '/well') {
      return { status: 404, text: 'There are only /healthz, /sick and /well' };
    }
    if (method !== 'POST') return { status: 405, text: 'Only POST is allowed (curl -X POST)' };
    sick = path === '/sick';
    return { status: 200, text: `${name} is ${sick ? 'sick' : 'well'} now` };
  };

  return createServer((request, response) => {
    request.resume();
    const { status, text } = answer(request.method ?? '', request.url ?? '');
    response.writeHead(status, { 'content-type': 'text/plain', 'cache-control': 'no-store' });
    response.end(`${text}\n`);
  });
}
