import { createHash } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import type { Files } from '../../runtime/files.js';

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
  'admin-state-dialog.js',
  'api.js',
  'app.js',
  'backends.js',
  'charts.js',
  'dialog.js',
  'drain-dialog.js',
  'drain-progress.js',
  'event-stream.js',
  'events.js',
  'explain.js',
  'explanation.js',
  'flows.js',
  'format.js',
  'head.js',
  'health.js',
  'live-data.js',
  'picture-lines.js',
  'picture.js',
  'server-time.js',
  'style.css',
  'token-dialog.js',
];

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
  const urls = new Map<string, string>([['/', new URL('page/index.html', import.meta.url).href]]);
  for (const name of PAGE) urls.set(`/assets/${name}`, new URL(`page/${name}`, import.meta.url).href);
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
