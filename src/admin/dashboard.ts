import { createHash } from 'node:crypto';
import { extname } from 'node:path';
import { Hono } from 'hono';
import { installedFile, systemFiles, type Files } from '../runtime/files.js';
import { problem } from './problem.js';

/** A file of the dashboard, ready to send. */
interface DashboardFile {
  readonly body: string;
  readonly contentType: string;
  /** Strong entity tag, quotes included. */
  readonly etag: string;
}

/** The built page, below the folder of package.json: its index, and what that loads from `assets/`. */
const PAGE = 'dist/admin/page';
const ASSETS = ['app.js', 'style.css', 'uplot.css'];

const CONTENT_TYPES: Readonly<Record<string, string>> = {
  '.css': 'text/css; charset=utf-8',
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
};

/** Every file of the dashboard, by the path of its request. Rejects with the system's error where one is missing. */
async function readDashboardFiles(files: Files): Promise<ReadonlyMap<string, DashboardFile>> {
  const read = async (path: string, name: string): Promise<readonly [string, DashboardFile]> => {
    const body = await files.readText(installedFile(`${PAGE}/${name}`));
    const digest = createHash('sha256').update(body).digest('base64url').slice(0, 27);
    return [path, { body, contentType: CONTENT_TYPES[extname(name)] ?? '', etag: `"${digest}"` }];
  };
  return new Map(
    await Promise.all([read('/', 'index.html'), ...ASSETS.map((name) => read(`/assets/${name}`, name))]),
  );
}

/**
 * Only the page's own files and its API: no inline script or style, no other origin, no frame. A style that a script
 * sets through the DOM does not count as inline.
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

/** The server adds those that every answer has. */
const HEADERS: Readonly<Record<string, string>> = {
  'content-security-policy': CONTENT_SECURITY_POLICY,
  // The browser asks each time, and gets 304 while nothing has changed: a new version shows at once.
  'cache-control': 'no-cache',
};

/**
 * `GET /` and `GET /assets/<path>` (HEAD too): the dashboard. Its files are read once, when this is called; the path of a
 * request is only looked up among them, never resolved. If they cannot be read, the page answers 500 and the API still works.
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
  app.get('/assets/*', ({ req }) => answer(req.path, req.header('if-none-match')));
  return app;
}

/** If-None-Match (RFC 9110, section 13.1.2): a list of tags, weak or not, or `*`. */
function isSame(known: string | undefined, etag: string): boolean {
  if (known === undefined) return false;
  return known.split(',').some((tag) => ['*', etag].includes(tag.trim().replace(/^W\//, '')));
}
