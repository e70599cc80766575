import { Hono } from 'hono';
import { readObject } from '../request-body.js';
import { assertKeys, durationOf } from '../request-fields.js';
import type { AdminEnv, AdminRoutesDependencies } from './admin-env.js';
import { jsonAnswer } from './json-answer.js';

const DAY_MS = 86_400_000;

/** `POST /v1/upgrade`: answered by the old process, once the new one serves or has failed. */
export function upgradeRoutes({ operations }: AdminRoutesDependencies): Hono<AdminEnv> {
  const app = new Hono<AdminEnv>();
  app.post('/v1/upgrade', async (context) => {
    const fields = await readObject(context.req.raw);
    assertKeys(fields, ['deadline']);
    const deadlineMs = durationOf(fields, 'deadline', { from: 0, to: DAY_MS });
    return jsonAnswer(await operations.upgrade(deadlineMs === undefined ? {} : { deadlineMs }));
  });
  return app;
}
