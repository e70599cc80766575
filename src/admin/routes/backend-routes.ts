import { Hono } from 'hono';
import type { DrainRequest } from '../../model/drain.js';
import { BalancerError } from '../../model/errors.js';
import { usageError } from '../error-problem.js';
import { readObject } from '../request-body.js';
import {
  assertKeys,
  durationOf,
  flagOf,
  integerOf,
  queryFields,
  required,
  wordOf,
} from '../request-fields.js';
import type { AdminEnv, AdminRoutesDependencies } from './admin-env.js';
import { canonicalBackend } from './flow-routes.js';
import { jsonAnswer, noContent } from './json-answer.js';

export const ADMIN_STATES = ['none', 'up', 'down', 'configured'] as const;

const DAY_MS = 86_400_000;
const DEFAULT_SPREAD_MS = 10_000;

type Fields = Readonly<Record<string, unknown>>;

/** Admin state, weight and drain of one backend: `/v1/backends/:pool/:backend/...`, and `GET /v1/drains`. */
export function backendRoutes({ operations }: AdminRoutesDependencies): Hono<AdminEnv> {
  const app = new Hono<AdminEnv>();
  const idOf = (param: { readonly pool: string; readonly backend: string }): string =>
    canonicalBackend(`${param.pool}/${param.backend}`);

  app.put('/v1/backends/:pool/:backend/admin-state', async (context) => {
    const fields = await readObject(context.req.raw);
    assertKeys(fields, ['adminState']);
    const state = required(wordOf(fields, 'adminState', ADMIN_STATES), 'adminState');
    await operations.setAdminState(idOf(context.req.param()), state);
    return noContent();
  });
  app.put('/v1/backends/:pool/:backend/weight', async (context) => {
    const weight = weightOf(await readObject(context.req.raw));
    await operations.setWeight(idOf(context.req.param()), weight);
    return noContent();
  });
  app.post('/v1/backends/:pool/:backend/drain', async (context) => {
    const request = drainRequest(await readObject(context.req.raw));
    return jsonAnswer(await operations.drain(idOf(context.req.param()), request), 202);
  });
  app.get('/v1/backends/:pool/:backend/drain', async (context) => {
    const id = idOf(context.req.param());
    const drains = await operations.drains();
    const drain = drains.find(
      ({ backendId, backendName, pool }) => backendId === id || `${pool}/${backendName}` === id,
    );
    if (drain !== undefined) return jsonAnswer(drain);
    throw new BalancerError(`Backend ${JSON.stringify(id)} is not being drained`, {
      code: 'LB_NOT_FOUND',
      source: 'usage',
    });
  });
  app.delete('/v1/backends/:pool/:backend/drain', async (context) => {
    await operations.cancelDrain(idOf(context.req.param()));
    return noContent();
  });
  app.get('/v1/drains', async (context) => {
    queryFields(context.req.url, []);
    return jsonAnswer(await operations.drains());
  });
  return app;
}

function weightOf(fields: Fields): number | 'configured' {
  assertKeys(fields, ['weight']);
  if (fields['weight'] === 'configured') return 'configured';
  if (typeof fields['weight'] === 'string') {
    throw usageError('"weight" is a text, must be a whole number from 0 to 256 or "configured"');
  }
  return required(integerOf(fields, 'weight', { from: 0, to: 256 }), 'weight');
}

function drainRequest(fields: Fields): DrainRequest & { readonly force: boolean } {
  assertKeys(fields, ['deadline', 'then', 'spread', 'force']);
  return {
    deadlineMs: required(durationOf(fields, 'deadline', { from: 0, to: DAY_MS }), 'deadline'),
    then: wordOf(fields, 'then', ['reset', 'leave']) ?? 'reset',
    spreadMs: durationOf(fields, 'spread', { from: 0, to: DAY_MS }) ?? DEFAULT_SPREAD_MS,
    force: flagOf(fields, 'force') ?? false,
  };
}
