import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';
import {
  MetricsServer,
  type MetricsServerDependencies,
  type Readiness,
} from '../../../src/admin/metrics-server.js';
import { systemClock } from '../../../src/runtime/clock.js';
import { ask, type Answer } from '../../support/admin-api.js';
import { LOOPBACK } from './admin-lab.js';

async function serve(
  t: TestContext,
  changes: Partial<MetricsServerDependencies> = {},
  livenessTimeoutMs = 2000,
): Promise<number> {
  const server = new MetricsServer(
    {
      metrics: {
        render: () => Promise.resolve({ contentType: 'text/plain; version=0.0.4', body: 'up 1\n' }),
      },
      liveness: [
        { name: 'control loop', answer: () => Promise.resolve() },
        { name: 'data plane', answer: () => Promise.resolve() },
      ],
      readiness: () => ({ applied: true, openListeners: 1, stopping: false }),
      clock: systemClock,
      ...changes,
    },
    { listen: LOOPBACK, livenessTimeoutMs },
  );
  t.after(() => server.stop());
  return server.start();
}

/** Status and reasons; a problem document where there are any. */
function verdictOf({ status, headers, json }: Answer): readonly unknown[] {
  const { reasons } = json as { readonly reasons?: readonly string[] };
  const type = reasons === undefined ? 'application/json' : 'application/problem+json';
  assert.equal(headers['content-type'], type);
  return [status, reasons];
}

describe('MetricsServer', () => {
  test('GET /metrics gives the text and its type', async (t) => {
    const { status, headers, text } = await ask({ port: await serve(t) }, '/metrics');
    assert.deepEqual([status, text], [200, 'up 1\n']);
    assert.equal(headers['content-type'], 'text/plain; version=0.0.4');
  });

  test('HEAD is GET without a body', async (t) => {
    const port = await serve(t);
    for (const path of ['/metrics', '/healthz', '/readyz']) {
      const { status, text } = await ask({ port }, path, { method: 'HEAD' });
      assert.deepEqual([status, text], [200, '']);
    }
  });

  test('other methods are 405 and say what is allowed', async (t) => {
    const port = await serve(t);
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH']) {
      const { status, headers, json } = await ask({ port }, '/metrics', { method });
      assert.deepEqual([status, headers['allow']], [405, 'GET, HEAD'], method);
      assert.equal((json as { status: number }).status, 405);
    }
  });

  test('anything else is 404 as a problem document, whatever Host says', async (t) => {
    const port = await serve(t);
    for (const path of ['/', '/metrics/', '/metrics/x', '/..%2f..%2fetc/passwd', '/HEALTHZ']) {
      const { status, headers, json } = await ask({ port }, path, { headers: { host: 'a b' } });
      assert.deepEqual([status, headers['content-type']], [404, 'application/problem+json'], path);
      assert.equal((json as { title: string }).title, 'There are only /metrics, /healthz and /readyz');
    }
  });

  test('/metrics is 500 without details where rendering fails', async (t) => {
    const port = await serve(t, { metrics: { render: () => Promise.reject(new Error('secret')) } });
    const { status, text } = await ask({ port }, '/metrics');
    assert.equal(status, 500);
    assert.ok(!text.includes('secret'));
  });

  test('/healthz is 503 with reasons where a check fails or is silent, else 200', async (t) => {
    const silent = { name: 'data plane', answer: () => new Promise(() => undefined) };
    const failing = { name: 'control loop', answer: () => Promise.reject(new Error('it is stuck')) };
    const port = await serve(t, { liveness: [silent, failing] }, 50);
    assert.deepEqual(verdictOf(await ask({ port }, '/healthz')), [
      503,
      ['The data plane has not answered in 50 ms', 'The control loop failed: it is stuck'],
    ]);
    const well = await ask({ port: await serve(t) }, '/healthz');
    assert.deepEqual([well.status, well.json], [200, { status: 'ok' }]);
  });

  const READY: Readiness = { applied: true, openListeners: 1, stopping: false };
  const unsteered = 'Table inet haports is not in the kernel';
  const cases: readonly (readonly [Partial<Readiness>, ...(readonly string[])])[] = [
    [{ applied: false, openListeners: 0 }, 'No forwarding state has been applied yet', 'No listener is open'],
    [{ openListeners: 0 }, 'No listener is open'],
    [{}],
    [{ stopping: true }, 'The process is stopping'],
    [{ unsteered }, unsteered],
  ];

  test('/readyz is 503 with each reason there is', async (t) => {
    let readiness = READY;
    const port = await serve(t, { readiness: () => readiness });
    for (const [changes, ...reasons] of cases) {
      readiness = { ...READY, ...changes };
      const expected = reasons.length === 0 ? [200, undefined] : [503, reasons];
      assert.deepEqual(verdictOf(await ask({ port }, '/readyz')), expected);
    }
  });

  test('/readyz is 200, and says that it is degraded, where budgets are exceeded', async (t) => {
    const port = await serve(t, { readiness: () => ({ ...READY, overloads: ['descriptors-exhausted'] }) });
    const { status, json } = await ask({ port }, '/readyz');
    assert.equal(status, 200);
    assert.deepEqual(json, {
      status: 'degraded',
      reasons: ['Some new flows are refused: descriptors-exhausted'],
    });
  });

  test('/readyz is 503 where readiness cannot be told', async (t) => {
    const silent = await serve(t, { readiness: () => new Promise(() => undefined) }, 50);
    const failing = await serve(t, { readiness: () => Promise.reject(new Error('worker died')) });
    assert.deepEqual(verdictOf(await ask({ port: silent }, '/readyz')), [
      503,
      ['The data plane has not answered in 50 ms'],
    ]);
    assert.deepEqual(verdictOf(await ask({ port: failing }, '/readyz')), [
      503,
      ['The data plane failed: worker died'],
    ]);
  });

  test('start() rejects where the port is taken, and names the key', async (t) => {
    const port = await serve(t);
    const second = new MetricsServer(
      {
        metrics: { render: () => Promise.reject(new Error()) },
        liveness: [],
        readiness: () => READY,
        clock: systemClock,
      },
      { listen: { ...LOOPBACK, port } },
    );
    await assert.rejects(second.start(), { code: 'LB_LISTEN_FAILED', message: /"metrics\.listen" must be/ });
    await Promise.all([second.stop(), second.stop()]);
  });
});
