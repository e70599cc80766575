import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import type { OpenApiDocument } from '../../src/api/openapi.js';
import type { AdminAnswer } from '../support/admin-api.js';
import { AdminEvents } from '../support/admin-events.js';
import { eventually } from '../support/deadline.js';
import { schemaErrors, type JsonSchema } from '../support/json-schema.js';
import { NVA_PROBE, useService } from '../support/service.js';

type Method = 'GET' | 'PUT' | 'POST' | 'DELETE';

// The document is what the process serves, and the validator knows nothing of how it was made.
describe('the OpenAPI document that a running process serves', () => {
  const service = useService({ ports: [8000, 8004], probe: NVA_PROBE });
  const { host } = service;
  let document: OpenApiDocument;
  const asked = new Set<string>();

  before(async () => {
    document = await service.process.get<OpenApiDocument>('/v1/openapi.json');
  });

  function assertDescribed(schema: JsonSchema | undefined, value: unknown, what: string): void {
    assert.ok(schema !== undefined, `${what} is described`);
    assert.deepEqual(
      schemaErrors(schema, value, document.components.schemas as Record<string, JsonSchema>),
      [],
      what,
    );
  }

  /** Asks, and holds the answer against what the document says of that status. */
  async function ask(
    method: Method,
    template: string,
    {
      status,
      ...request
    }: {
      readonly status: number;
      readonly path?: string;
      readonly body?: unknown;
    },
  ): Promise<AdminAnswer['body']> {
    const { path = template.replace('{pool}', 'nvas').replace('{backend}', 'nva-1'), body } = request;
    const what = `${method} ${path} ${status}`;
    const answer = await service.process.call(method, path, body);
    assert.equal(answer.status, status, `${what}: ${JSON.stringify(answer.body)}`);
    const operation = document.paths[template]?.[method.toLowerCase()];
    const response = operation?.responses[status];
    assert.ok(response !== undefined, `${what} is described`);
    asked.add(`${method.toLowerCase()} ${template}`);
    const bodySchema = operation?.requestBody?.content['application/json']?.schema as JsonSchema | undefined;
    if (bodySchema !== undefined && typeof body === 'object') {
      const isDescribed = schemaErrors(bodySchema, body, document.components.schemas).length === 0;
      assert.equal(isDescribed, status !== 400, `the body of ${what}`);
    }
    if (response.content === undefined) {
      assert.equal(answer.body, undefined, what);
      return undefined;
    }
    const type = status < 400 ? 'application/json' : 'application/problem+json';
    assertDescribed(response.content[type]?.schema, answer.body, what);
    return answer.body;
  }

  test('describes what is answered, to the last key', async () => {
    const { client: tcp } = await service.tcp();
    await service.udp();
    const backend = '/v1/backends/{pool}/{backend}';
    for (const path of ['/v1/status', '/v1/frontends', '/v1/rules', '/v1/pools', '/v1/pools/{pool}']) {
      await ask('GET', path, { status: 200 });
    }
    for (const sort of ['age', 'rate', 'rate', 'none']) {
      await ask('GET', '/v1/flows', { status: 200, path: `/v1/flows?sort=${sort}&limit=1` });
    }
    const explain = `/v1/explain?protocol=tcp&source=${host(100)}:${tcp.socket.localPort}&destination=${host(1)}:8000`;
    const explained = await ask('GET', '/v1/explain', { status: 200, path: explain });
    assert.ok('flow' in (explained as object) && 'key' in (explained as object));
    for (const destination of [`${host(1)}:9`, '198.51.100.1:9']) {
      const path = `/v1/explain?protocol=udp&source=192.0.2.7:1&destination=${destination}`;
      await ask('GET', '/v1/explain', { status: 200, path });
    }

    for (const adminState of ['up', 'configured']) {
      await ask('PUT', `${backend}/admin-state`, { status: 204, body: { adminState } });
    }
    for (const weight of [0, 256, 'configured']) {
      await ask('PUT', `${backend}/weight`, { status: 204, body: { weight } });
    }
    await ask('GET', `${backend}/drain`, { status: 404 });
    await ask('POST', `${backend}/drain`, { status: 202, body: { deadline: '1m', then: 'leave' } });
    await ask('GET', `${backend}/drain`, { status: 200 });
    await ask('GET', '/v1/drains', { status: 200 });
    await ask('GET', '/v1/pools', { status: 200 });
    await ask('GET', '/v1/status', { status: 200 });
    await ask('DELETE', `${backend}/drain`, { status: 204 });
    await ask('DELETE', `${backend}/drain`, { status: 404 });

    for (const population of [{ kind: 'live' }, { kind: 'generated', flows: 50, sources: 5, seed: 1 }]) {
      const suppose = [
        { backend: 'nvas/nva-2', health: 'down', weight: 3, draining: true, adminState: 'up' },
      ];
      await ask('POST', '/v1/simulate', { status: 200, body: { suppose, population } });
    }
    const two = service.process.withSocket(service.configuration({ backends: 2 }));
    const fewer = JSON.stringify({ ...two, rules: [] });
    const changed = JSON.stringify(two);
    await ask('POST', '/v1/plan', { status: 200, body: fewer });
    await ask('POST', '/v1/plan', { status: 200, body: changed });
    await ask('POST', '/v1/reload', { status: 409, path: '/v1/reload?maxMoved=0.01', body: changed });
    await ask('POST', '/v1/reload', { status: 200, body: changed });
    await ask('GET', '/v1/status', { status: 200 });
  });

  test('describes refusals, and refuses the bodies that are refused', async () => {
    const drain = '/v1/backends/{pool}/{backend}/drain';
    for (const body of [
      {},
      { deadline: 600 },
      { deadline: '10' },
      { deadline: '1m', then: 'x' },
      { deadline: '1m', x: 1 },
    ]) {
      await ask('POST', drain, { status: 400, body });
    }
    for (const weight of [257, -1, 1.5, '5', null]) {
      await ask('PUT', '/v1/backends/{pool}/{backend}/weight', { status: 400, body: { weight } });
    }
    await ask('PUT', '/v1/backends/{pool}/{backend}/admin-state', {
      status: 400,
      body: { adminState: 'off' },
    });
    await ask('POST', '/v1/upgrade', { status: 400, body: { deadline: 'soon' } });
    const generated = { kind: 'generated', flows: 1, sources: 1 };
    for (const population of [
      undefined,
      'live',
      { kind: 'recorded' },
      generated,
      { kind: 'live', flows: 1 },
    ]) {
      await ask('POST', '/v1/simulate', { status: 400, body: { population } });
    }
    await ask('GET', '/v1/pools/{pool}', { status: 404, path: '/v1/pools/nosuch' });
    await ask('PUT', '/v1/backends/{pool}/{backend}/weight', {
      status: 404,
      path: '/v1/backends/nvas/nosuch/weight',
      body: { weight: 1 },
    });
    await ask('GET', '/v1/flows', { status: 404, path: '/v1/flows?backend=nosuch' });
    await ask('GET', '/v1/status', { status: 400, path: '/v1/status?x=1' });
    await ask('POST', '/v1/plan', { status: 422, body: '{ "rules": 1 }' });
    await ask('POST', '/v1/reload', { status: 422, body: 'not even JSON' });
    await ask('POST', '/v1/reload', { status: 413, body: ' '.repeat(4 * 1024 * 1024 + 1) });
  });

  test('describes events', async () => {
    const reader = await AdminEvents.open(service.process.socket, 0);
    try {
      await eventually(() => reader.events.length > 5, 5000, 'events');
    } finally {
      reader.close();
    }
    const content = document.paths['/v1/events']?.['get']?.responses['200']?.content;
    const schema = content?.['text/event-stream']?.schema['x-event-data'] as JsonSchema | undefined;
    for (const event of reader.events) assertDescribed(schema, event, 'an event');
    asked.add('get /v1/events');
  });

  test('was held against every operation', async () => {
    await ask('GET', '/v1/openapi.json', { status: 200 });
    const described = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method} ${path}`),
    );
    assert.deepEqual(
      described.filter((operation) => !asked.has(operation)),
      [],
    );
  });
});
