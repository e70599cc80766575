import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { createAdminRoutes } from '../../../src/admin/server.js';
import { EventStreams } from '../../../src/admin/sse.js';
import { openApiDocument } from '../../../src/admin/openapi.js';
import { silentLogger } from '../../../src/runtime/logger.js';
import { FakeClock } from '../../support/fake-clock.js';
import { adminLab, ask } from './admin-lab.js';
import { FakeOperations } from './fake-operations.js';

interface OperationObject {
  readonly summary?: string;
  readonly parameters?: readonly {
    readonly name: string;
    readonly in: string;
    readonly required?: boolean;
  }[];
  readonly requestBody?: unknown;
  readonly responses: Readonly<Record<string, unknown>>;
}

interface OpenApi {
  readonly openapi: string;
  readonly paths: Readonly<Record<string, Readonly<Record<string, OperationObject>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, unknown>> };
}

const document = openApiDocument() as OpenApi;

function* operations(): Generator<readonly [string, string, OperationObject]> {
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const [method, operation] of Object.entries(methods)) yield [path, method, operation];
  }
}

function* members(node: unknown): Generator<Readonly<Record<string, unknown>>> {
  if (typeof node !== 'object' || node === null) return;
  if (!Array.isArray(node)) yield node as Readonly<Record<string, unknown>>;
  for (const value of Object.values(node)) yield* members(value);
}

describe('the OpenAPI document', () => {
  test('has every route of the API, and no other', () => {
    const fake = new FakeOperations();
    const streams = new EventStreams({ feed: fake.events, clock: new FakeClock() });
    const app = createAdminRoutes({ operations: fake.with(), streams, logger: silentLogger });
    const routes = app.routes
      .filter(({ method, path }) => method !== 'ALL' && path.startsWith('/v1'))
      .map(({ method, path }) => `${method} ${path.replaceAll(/:(\w+)/g, '{$1}')}`);
    const described = [...operations()].map(([path, method]) => `${method.toUpperCase()} ${path}`);
    assert.ok(routes.length > 15);
    assert.deepEqual(described.sort(), [...new Set(routes)].sort());
  });

  test('describes each: parameters of the path, a body where one is read, failures as problems', () => {
    for (const [path, method, operation] of operations()) {
      const what = `${method} ${path}`;
      assert.ok((operation.summary ?? '').length > 5, what);
      const named = (operation.parameters ?? []).filter((parameter) => parameter.in === 'path');
      const wanted = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
      assert.deepEqual(
        named.map(({ name }) => name),
        wanted,
        what,
      );
      assert.ok(named.every(({ required }) => required === true));
      assert.equal(operation.requestBody !== undefined, method === 'post' || method === 'put', what);
      const successes = Object.keys(operation.responses).filter((status) => status.startsWith('2'));
      assert.equal(successes.length, 1, what);
      for (const status of ['400', '401', '403', '500']) assert.ok(status in operation.responses, what);
    }
  });

  test('refers only to schemas that are there, and uses each', () => {
    const referred = [...members(document)].flatMap((node) =>
      typeof node['$ref'] === 'string' ? [node['$ref'].replace('#/components/schemas/', '')] : [],
    );
    assert.deepEqual([...new Set(referred)].sort(), Object.keys(document.components.schemas).sort());
  });

  test('what is required is described', () => {
    for (const node of members(document.components.schemas)) {
      if (!Array.isArray(node['required'])) continue;
      for (const key of node['required'] as string[]) {
        assert.ok(key in (node['properties'] as object), key);
      }
    }
  });

  test('is served', async (t) => {
    const { port } = await adminLab(t);
    const { status, json } = await ask({ port }, '/v1/openapi.json');
    assert.equal(status, 200);
    assert.deepEqual(json, JSON.parse(JSON.stringify(document)));
    assert.match(document.openapi, /^3\.1\./);
  });
});
