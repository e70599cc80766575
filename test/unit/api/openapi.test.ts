import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ROUTES, type Route } from '../../../src/api/contract.js';
import { openApiDocument } from '../../../src/api/openapi.js';
import { ask } from '../../support/admin-api.js';
import { adminLab } from '../admin/admin-lab.js';

const document = openApiDocument();

function* members(node: unknown): Generator<Readonly<Record<string, unknown>>> {
  if (typeof node !== 'object' || node === null) return;
  if (!Array.isArray(node)) yield node as Readonly<Record<string, unknown>>;
  for (const value of Object.values(node)) yield* members(value);
}

// What it says of answers and bodies is held against a running process in test/integration/openapi.test.ts.
describe('the OpenAPI document', () => {
  test('has these operations', () => {
    const described = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method} ${path}`),
    );
    assert.deepEqual(described.sort(), [
      'delete /v1/backends/{pool}/{backend}/drain',
      'get /v1/backends/{pool}/{backend}/drain',
      'get /v1/drains',
      'get /v1/events',
      'get /v1/explain',
      'get /v1/flows',
      'get /v1/frontends',
      'get /v1/openapi.json',
      'get /v1/pools',
      'get /v1/pools/{pool}',
      'get /v1/rules',
      'get /v1/status',
      'post /v1/backends/{pool}/{backend}/drain',
      'post /v1/plan',
      'post /v1/reload',
      'post /v1/simulate',
      'post /v1/upgrade',
      'put /v1/backends/{pool}/{backend}/admin-state',
      'put /v1/backends/{pool}/{backend}/weight',
    ]);
  });

  test('describes the parameters of a listing: places, kinds, ranges, defaults', () => {
    assert.deepEqual(
      document.paths['/v1/flows']?.['get']?.parameters?.map(({ name, schema }) => [name, schema]),
      [
        ['rule', { type: 'string', maxLength: 1000 }],
        ['backend', { type: 'string', maxLength: 1000 }],
        ['protocol', { type: 'string', enum: ['tcp', 'udp'] }],
        ['source', { type: 'string' }],
        ['state', { type: 'string', enum: ['embryonic', 'established', 'half-closed', 'blackholed'] }],
        ['reason', { type: 'string', enum: ['hash', 'retry', 'rebalanced', 'fail-open', 'pinned'] }],
        ['sort', { type: 'string', enum: ['age', 'idle', 'bytes', 'rate', 'none'], default: 'none' }],
        ['limit', { type: 'integer', minimum: 1, maximum: 1000, default: 100 }],
        ['after', { type: 'integer', minimum: 0 }],
      ],
    );
    const drain = document.paths['/v1/backends/{pool}/{backend}/drain']?.['post'];
    assert.deepEqual(
      drain?.parameters?.map(({ name, in: place, required }) => [name, place, required]),
      [
        ['pool', 'path', true],
        ['backend', 'path', true],
      ],
    );
    assert.deepEqual(Object.keys(drain.responses), ['202', '400', '401', '403', '404', '409', '413', '500']);
  });

  test('refers only to schemas that are there, and uses each', () => {
    const referred = [...members(document)].flatMap((node) =>
      typeof node['$ref'] === 'string' ? [node['$ref'].replace('#/components/schemas/', '')] : [],
    );
    assert.deepEqual([...new Set(referred)].sort(), Object.keys(document.components.schemas).sort());
  });

  test('is served', async (t) => {
    const { port } = await adminLab(t);
    const { status, json } = await ask({ port }, '/v1/openapi.json');
    assert.equal(status, 200);
    assert.deepEqual(json, JSON.parse(JSON.stringify(document)));
    assert.match(document.openapi, /^3\.1\./);
  });
});

describe('the contract', () => {
  test('has each key of a request in one place', () => {
    for (const [name, route] of Object.entries<Route>(ROUTES)) {
      const { path, method, configuration } = route;
      const operation = document.paths[path]?.[method.toLowerCase()];
      const inPath = [...path.matchAll(/\{(\w+)\}/g)].map(([, key]) => key);
      const parameters = operation?.parameters ?? [];
      assert.deepEqual(
        parameters.filter((parameter) => parameter.in === 'path').map((parameter) => parameter.name),
        inPath,
        name,
      );
      const schema = operation?.requestBody?.content['application/json']?.schema;
      const ref = typeof schema?.['$ref'] === 'string' ? schema['$ref'].split('/').at(-1) : '';
      const keys = [
        ...parameters.map((parameter) => parameter.name),
        ...Object.keys(document.components.schemas[ref ?? '']?.properties ?? {}),
        ...(configuration === true ? ['configuration'] : []),
      ];
      assert.deepEqual(keys, [...new Set(keys)], name);
    }
  });
});
