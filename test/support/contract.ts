import assert from 'node:assert/strict';
import type { z } from 'zod';
import { ROUTES, successStatus, type Route } from '../../src/api/contract.js';
import { problem } from '../../src/api/views.js';

/**
 * The JSON of an answer to `GET /v1/status` and the like, if it is what the contract says, to the last key; throws
 * AssertionError or ZodError where it is not. Paths that are not the API's are left alone.
 */
export function checkAnswer(method: string, path: string, status: number, answer: unknown): void {
  const route = routeOf(method, path);
  const json: unknown = answer === undefined ? undefined : JSON.parse(JSON.stringify(answer));
  if (status >= 400) {
    assertShape(problem, json);
    return;
  }
  if (route === undefined) return;
  assert.equal(status, successStatus(route), `${method} ${path}`);
  if (route.answer === undefined) assert.equal(json, undefined, `${method} ${path}`);
  else assertShape(route.answer, json);
}

/** Throws where the JSON is not what the schema says, or has keys that it does not know. */
export function assertShape(schema: z.ZodType, json: unknown): void {
  assert.deepEqual(schema.parse(json), json);
}

/** Undefined where the path is not the API's. */
export function routeOf(method: string, path: string): Route | undefined {
  return Object.values<Route>(ROUTES).find(
    (route) =>
      route.method === method && new RegExp(`^${route.path.replaceAll(/\{\w+\}/g, '[^/]+')}$`).test(path),
  );
}
