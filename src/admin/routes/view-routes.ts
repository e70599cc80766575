import { Hono } from 'hono';
import { BalancerError } from '../../model/errors.js';
import { queryFields } from '../request-fields.js';
import type { AdminEnv, AdminRoutesDependencies } from './admin-env.js';
import { jsonAnswer } from './json-answer.js';

/** `GET /v1/status`, `/v1/frontends`, `/v1/rules`, `/v1/pools`, `/v1/pools/:pool`. */
export function viewRoutes({ operations }: AdminRoutesDependencies): Hono<AdminEnv> {
  const app = new Hono<AdminEnv>();
  const views = {
    '/v1/status': () => operations.status(),
    '/v1/frontends': () => operations.frontends(),
    '/v1/rules': () => operations.rules(),
    '/v1/pools': () => operations.pools(),
  } satisfies Readonly<Record<string, () => Promise<object>>>;
  for (const [path, view] of Object.entries(views)) {
    app.get(path, async (context) => {
      queryFields(context.req.url, []);
      return jsonAnswer(await view());
    });
  }
  app.get('/v1/pools/:pool', async (context) => {
    queryFields(context.req.url, []);
    const name = context.req.param('pool');
    const pool = (await operations.pools()).find((each) => each.name === name);
    if (pool !== undefined) return jsonAnswer(pool);
    throw new BalancerError(`There is no backend pool ${JSON.stringify(name)}`, {
      code: 'LB_NOT_FOUND',
      source: 'usage',
    });
  });
  return app;
}
