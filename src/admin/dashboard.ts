import { createHash } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { Hono } from 'hono';
import { systemFiles, type Files } from '../runtime/files.js';
import { problem } from './problem.js';

/** A file of the dashboard, ready to be sent. */
export interface DashboardFile {
  readonly body: string;
  readonly contentType: string;
  /** Strong entity tag, quotes included. */
  readonly etag: string;
}

/** Path of a request (`/`, `/assets/app.js`) -> what is sent. */
export type DashboardFiles = ReadonlyMap<string, DashboardFile>;

/** What the page is made of, beside this module. A request's path is only ever looked up, never resolved. */
const PAGE: readonly string[] = [
  ...['api', 'app', 'backends', 'charts', 'event-stream', 'explain', 'explanation', 'flows', 'format'],
  ...['health', 'picture', 'widgets'],
].map((name) => `${name}.js`);

/** Name of the asset -> the package's file. htm's standalone module holds preact and its hooks, and imports nothing. */
const PACKAGES: Readonly<Record<string, string>> = {
  'htm-preact.js': 'htm/preact/standalone',
  'uplot.js': 'uplot/dist/uPlot.esm.js',
  'uplot.css': 'uplot/dist/uPlot.min.css',
};

const CONTENT_TYPES: Readonly<Record<string, string>> = {
  css: 'text/css; charset=utf-8',
  html: 'text/html; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
};

/** Reads every file of the dashboard, once. Rejects with the system's error where one is missing. */
export async function readDashboardFiles(files: Files): Promise<DashboardFiles> {
  const here = (path: string): string => new URL(path, import.meta.url).href;
  const urls = new Map<string, string>([
    ['/', here('page/index.html')],
    ['/assets/style.css', here('page/style.css')],
    ['/assets/client.js', here('../api/client.js')],
  ]);
  for (const name of PAGE) urls.set(`/assets/${name}`, here(`page/${name}`));
  for (const [name, specifier] of Object.entries(PACKAGES)) {
    urls.set(`/assets/${name}`, import.meta.resolve(specifier));
  }
  const read = async ([path, url]: readonly [string, string]): Promise<readonly [string, DashboardFile]> => [
    path,
    dashboardFile(
      path === '/' ? 'html' : path.slice(path.lastIndexOf('.') + 1),
      await files.readText(fileURLToPath(url)),
    ),
  ];
  return new Map(await Promise.all([...urls].map(read)));
}

function dashboardFile(extension: string, body: string): DashboardFile {
  const digest = createHash('sha256').update(body).digest('base64url').slice(0, 27);
  return { body, contentType: CONTENT_TYPES[extension] ?? 'application/octet-stream', etag: `"${digest}"` };
}

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
