import { Hono } from 'hono';
import { dashboardRoutes } from './dashboard/dashboard-routes.js';
import { errorProblem, isTellable } from './error-problem.js';
import { openApiDocument } from './openapi.js';
import { problem } from './problem.js';
import type { AdminEnv, AdminRoutesDependencies } from './routes/admin-env.js';
import { backendRoutes } from './routes/backend-routes.js';
import { changeRoutes } from './routes/change-routes.js';
import { eventRoutes } from './routes/event-routes.js';
import { flowRoutes } from './routes/flow-routes.js';
import { jsonAnswer } from './routes/json-answer.js';
import { simulateRoutes } from './routes/simulate-routes.js';
import { upgradeRoutes } from './routes/upgrade-routes.js';
import { viewRoutes } from './routes/view-routes.js';

const PARTS = [
  viewRoutes,
  flowRoutes,
  backendRoutes,
  changeRoutes,
  upgradeRoutes,
  simulateRoutes,
  eventRoutes,
];

/**
 * The admin API and the dashboard. Whoever gets here may do everything: who may is asked before (request-guard.ts).
 * Every error is a problem document with a stable code.
 */
export function createAdminRoutes(deps: AdminRoutesDependencies): Hono<AdminEnv> {
  const app = new Hono<AdminEnv>();
  for (const part of PARTS) app.route('/', part(deps));
  app.get('/v1/openapi.json', () => jsonAnswer(openApiDocument()));
  app.route('/', dashboardRoutes());
  refuseOtherMethods(app);
  app.notFound(notFound);
  app.onError((error, { req }) => {
    if (!isTellable(error)) {
      deps.logger.error(
        { error: error.stack ?? error.message },
        `Admin API: ${req.method} ${req.path} failed`,
      );
    }
    return errorProblem(error);
  });
  return app;
}

function refuseOtherMethods(app: Hono<AdminEnv>): void {
  const methods = new Map<string, Set<string>>();
  for (const { path, method } of app.routes) {
    if (method === 'ALL') continue;
    const known = methods.get(path) ?? new Set<string>();
    methods.set(path, known.add(method));
    if (method === 'GET') known.add('HEAD');
  }
  for (const [path, known] of methods) {
    const allow = [...known].join(', ');
    app.all(path, ({ req }) => {
      // A handler that has looked and found nothing.
      if (known.has(req.method)) return notFound();
      return problem(405, 'Method not allowed', {
        detail: `${req.method} is not allowed here, must be one of ${allow}`,
        code: 'LB_USAGE',
        headers: { allow },
      });
    });
  }
}

function notFound(): Response {
  return problem(404, 'Not found', {
    detail: 'There is no such path: GET /v1/openapi.json tells which there are',
    code: 'LB_NOT_FOUND',
  });
}
