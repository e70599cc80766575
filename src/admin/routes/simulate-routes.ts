import { Hono } from 'hono';
import type { Population, SimulationRequest, Supposition } from '../../model/simulation.js';
import { usageError } from '../error-problem.js';
import { readObject } from '../request-body.js';
import { assertKeys, flagOf, integerOf, queryFields, required, textOf, wordOf } from '../request-fields.js';
import type { AdminEnv, AdminRoutesDependencies } from './admin-env.js';
import { canonicalBackend } from './flow-routes.js';
import { jsonAnswer } from './json-answer.js';

const MAX_SUPPOSITIONS = 10_000;

type Fields = Readonly<Record<string, unknown>>;

/** `POST /v1/simulate`. */
export function simulateRoutes({ operations }: AdminRoutesDependencies): Hono<AdminEnv> {
  const app = new Hono<AdminEnv>();
  app.post('/v1/simulate', async (context) => {
    queryFields(context.req.url, []);
    return jsonAnswer(await operations.simulate(simulationRequest(await readObject(context.req.raw))));
  });
  return app;
}

function simulationRequest(fields: Fields): SimulationRequest {
  assertKeys(fields, ['suppose', 'population']);
  const { suppose = [], population } = fields;
  if (!Array.isArray(suppose) || suppose.length > MAX_SUPPOSITIONS) {
    throw usageError(`"suppose" must be a list of at most ${MAX_SUPPOSITIONS}`);
  }
  return {
    suppose: suppose.map((item: unknown) => supposition(objectOf(item, 'Each of "suppose"'))),
    population: populationOf(objectOf(population, '"population"')),
  };
}

function supposition(fields: Fields): Supposition {
  assertKeys(fields, ['backend', 'health', 'adminState', 'weight', 'draining']);
  const health = wordOf(fields, 'health', ['unknown', 'up', 'down']);
  const adminState = wordOf(fields, 'adminState', ['none', 'up', 'down']);
  const weight = integerOf(fields, 'weight', { from: 0, to: 256 });
  const draining = flagOf(fields, 'draining');
  return {
    backend: canonicalBackend(required(textOf(fields, 'backend'), 'backend')),
    ...(health === undefined ? {} : { health }),
    ...(adminState === undefined ? {} : { adminState }),
    ...(weight === undefined ? {} : { weight }),
    ...(draining === undefined ? {} : { draining }),
  };
}

function populationOf(fields: Fields): Population {
  const kind = required(wordOf(fields, 'kind', ['generated', 'live']), 'population.kind');
  if (kind === 'live') {
    assertKeys(fields, ['kind']);
    return { kind };
  }
  assertKeys(fields, ['kind', 'flows', 'sources', 'seed']);
  return {
    kind,
    flows: required(integerOf(fields, 'flows', { from: 1, to: 1_000_000 }), 'population.flows'),
    sources: required(integerOf(fields, 'sources', { from: 1, to: 1_000_000 }), 'population.sources'),
    seed: required(integerOf(fields, 'seed', { from: 0, to: 4_294_967_295 }), 'population.seed'),
  };
}

function objectOf(value: unknown, what: string): Fields {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Fields;
  throw usageError(`${what} must be an object`);
}
