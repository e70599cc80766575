import { Hono } from 'hono';
import { usageError } from '../error-problem.js';
import { problem } from '../problem.js';
import { readText } from '../request-body.js';
import { queryFields } from '../request-fields.js';
import type { AdminEnv, AdminRoutesDependencies } from './admin-env.js';
import { jsonAnswer } from './json-answer.js';

/** `POST /v1/plan` and `POST /v1/reload`: the body is a whole configuration, never a path. */
export function changeRoutes({ operations }: AdminRoutesDependencies): Hono<AdminEnv> {
  const app = new Hono<AdminEnv>();
  app.post('/v1/plan', async (context) => {
    queryFields(context.req.url, []);
    const outcome = await operations.plan(await readText(context.req.raw));
    if (outcome.report !== undefined) return jsonAnswer(outcome);
    return problem(422, 'Unusable configuration', {
      detail: 'The configuration cannot be used: see findings',
      code: 'LB_CONFIG_INVALID',
      findings: outcome.findings,
    });
  });
  app.post('/v1/reload', async (context) => {
    const maxMoved = shareOf(queryFields(context.req.url, ['maxMoved'])['maxMoved']);
    const text = await readText(context.req.raw);
    return jsonAnswer(await operations.reload(text, maxMoved === undefined ? {} : { maxMoved }));
  });
  return app;
}

function shareOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const share = /^\d(?:\.\d{1,9})?$/.test(text) ? Number(text) : Number.NaN;
  if (share >= 0 && share <= 1) return share;
  throw usageError(`"maxMoved" is ${JSON.stringify(text)}, must be a number from 0 to 1 such as 0.02`);
}
