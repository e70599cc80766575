import { Hono } from 'hono';
import type { Clock } from '../runtime/clock.js';
import {
  livenessReasons,
  readinessReasons,
  type LivenessCheck,
  type Readiness,
  type Reasons,
} from './health-report.js';
import { problem } from './problem.js';

/** What the routes show; the server owns none of it. */
export interface MetricsRoutesDependencies {
  /** Text of one scrape. */
  readonly metrics: { render(): Promise<{ readonly contentType: string; readonly body: string }> };
  readonly liveness: readonly LivenessCheck[];
  readonly readiness: () => Readiness | Promise<Readiness>;
  readonly clock: Clock;
}

export interface MetricsRoutesOptions {
  /** How long a liveness or readiness check may take, in ms. */
  readonly livenessTimeoutMs: number;
}

/** `GET /metrics`, `/healthz`, `/readyz` (HEAD too); everything else is a problem document. */
export function metricsRoutes(deps: MetricsRoutesDependencies, options: MetricsRoutesOptions): Hono {
  const app = new Hono();
  app.get('/metrics', async () => {
    const { contentType, body } = await deps.metrics.render();
    return new Response(body, { headers: { 'content-type': contentType, 'cache-control': 'no-store' } });
  });
  app.get('/healthz', async () =>
    verdict('Not healthy', await livenessReasons(deps.liveness, options.livenessTimeoutMs, deps.clock)),
  );
  app.get('/readyz', async () =>
    verdict('Not ready', await readinessReasons(deps.readiness, options.livenessTimeoutMs, deps.clock)),
  );
  for (const path of ['/metrics', '/healthz', '/readyz']) {
    app.all(path, () => problem(405, 'Only GET and HEAD are allowed', { headers: { allow: 'GET, HEAD' } }));
  }
  app.notFound(() => problem(404, 'There are only /metrics, /healthz and /readyz'));
  // Nothing of the error is told to whoever asked.
  app.onError(() => problem(500, 'Internal error'));
  return app;
}

function verdict(title: string, reasons: Reasons): Response {
  const headers = { 'cache-control': 'no-store' };
  if (reasons.length > 0) return problem(503, title, { reasons, headers });
  return Response.json({ status: 'ok' }, { headers });
}
