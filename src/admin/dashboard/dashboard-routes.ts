import { Hono } from 'hono';
import { systemFiles, type Files } from '../../runtime/files.js';
import { problem } from '../problem.js';
import { readDashboardFiles } from './dashboard-files.js';

/**
 * Nothing but the page's own files and the API beside it: no inline script or style, no other origin, no frame. Styles
 * that a script sets through the DOM are not inline styles.
 */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "img-src 'self' data:",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

const HEADERS: Readonly<Record<string, string>> = {
  'content-security-policy': CONTENT_SECURITY_POLICY,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  // Asked for again each time, and answered with 304 while it is the same: a new version is seen at once.
  'cache-control': 'no-cache',
};

/**
 * `GET /` and `GET /assets/<name>` (HEAD too): the dashboard. Its files are read once, when this is called; a request
 * only looks up a name among them. Where they cannot be read, the page answers 500 and the API goes on without it.
 */
export function dashboardRoutes(files: Files = systemFiles): Hono {
  const reading = readDashboardFiles(files).catch(() => undefined);
  const app = new Hono();
  const answer = async (path: string, known: string | undefined): Promise<Response> => {
    const ready = await reading;
    if (ready === undefined) return problem(500, 'The files of the dashboard are missing');
    const file = ready.get(path);
    if (file === undefined) return problem(404, 'The dashboard has no such file');
    const headers = { ...HEADERS, etag: file.etag };
    if (isSame(known, file.etag)) return new Response(null, { status: 304, headers });
    return new Response(file.body, { headers: { ...headers, 'content-type': file.contentType } });
  };
  app.get('/', (context) => answer('/', context.req.header('if-none-match')));
  app.get('/assets/:name', (context) =>
    answer(`/assets/${context.req.param('name')}`, context.req.header('if-none-match')),
  );
  return app;
}

/** If-None-Match (RFC 9110, section 13.1.2): a list of tags, weak or not, or `*`. */
function isSame(known: string | undefined, etag: string): boolean {
  if (known === undefined) return false;
  return known.split(',').some((tag) => ['*', etag].includes(tag.trim().replace(/^W\//, '')));
}
