import { Hono } from 'hono';
import { BalancerError } from '../../model/errors.js';
import { queryFields, queryIntegerOf } from '../request-fields.js';
import type { AdminEnv, AdminRoutesDependencies } from './admin-env.js';

const IDS = { from: 0, to: Number.MAX_SAFE_INTEGER };

/** `GET /v1/events`. Last-Event-ID, which a browser sends when it comes back, beats `since`. */
export function eventRoutes({ streams }: AdminRoutesDependencies): Hono<AdminEnv> {
  const app = new Hono<AdminEnv>();
  app.get('/v1/events', (context) => {
    const query = queryFields(context.req.url, ['since']);
    const lastEventId = context.req.header('last-event-id');
    const sinceId =
      (lastEventId === undefined
        ? undefined
        : queryIntegerOf({ 'Last-Event-ID': lastEventId }, 'Last-Event-ID', IDS)) ??
      queryIntegerOf(query, 'since', IDS);
    const headers = { 'content-type': 'text/event-stream', 'x-accel-buffering': 'no' };
    // The body of an answer to HEAD is never read, nor given up.
    if (context.req.method === 'HEAD') return new Response(null, { headers });
    const stream = streams.open({
      ...(sinceId === undefined ? {} : { sinceId }),
      cut: () => context.env.outgoing?.destroy(),
    });
    if (stream !== undefined) return new Response(stream, { headers });
    throw new BalancerError('As many event streams as may be are open already: one must end first', {
      code: 'LB_CONFLICT',
      source: 'usage',
    });
  });
  return app;
}
