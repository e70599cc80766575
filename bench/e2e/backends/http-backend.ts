import { createHash } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { OwnProcess, OwnProcesses } from '../own-processes.js';
import { nginxMain } from './nginx-main.js';

/** What a backend answers on a path. */
export interface HttpResource {
  readonly path: string;
  readonly bodyBytes: number;
  readonly bodySha256: string;
}

const SMALL_BODY = 'A small body, the same from every backend, so that it can be compared byte by byte.\n';
const LARGE_BODY = Buffer.from(
  Array.from({ length: 65_536 }, (_, index) => `line ${index}\n`.padStart(16)).join(''),
);

export const SMALL: HttpResource = resource('/', Buffer.from(SMALL_BODY));
/** One mebibyte, from a file. */
export const LARGE: HttpResource = resource('/large', LARGE_BODY);

function resource(path: string, body: Buffer): HttpResource {
  return { path, bodyBytes: body.length, bodySha256: createHash('sha256').update(body).digest('hex') };
}

/** nginx answering SMALL and LARGE on these addresses and ports; one worker, keep-alive without end. */
export async function startHttpBackend(
  processes: OwnProcesses,
  options: {
    readonly cores: string;
    readonly folder: string;
    readonly addresses: readonly string[];
    readonly ports: readonly number[];
  },
): Promise<OwnProcess> {
  const { folder } = options;
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, LARGE.path.slice(1)), LARGE_BODY);
  const path = join(folder, 'nginx.conf');
  await writeFile(
    path,
    [
      ...nginxMain({ folder, workers: 1, moduleLine: '' }),
      'http {',
      '  access_log off; tcp_nodelay on; sendfile on; keepalive_timeout 600s; keepalive_requests 1000000000;',
      ...['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
        (kind) => `  ${kind}_temp_path ${join(folder, kind)};`,
      ),
      '  server {',
      ...options.addresses.flatMap((address) =>
        options.ports.map((port) => `    listen ${address}:${port} backlog=4096;`),
      ),
      `    location = / { default_type text/plain; return 200 "${SMALL_BODY.replace('\n', '\\n')}"; }`,
      `    location = ${LARGE.path} { root ${folder}; open_file_cache max=4; default_type text/plain; }`,
      '  }',
      '}',
      '',
    ].join('\n'),
  );
  return processes.start({ role: 'backend', cores: options.cores }, 'http backend', [
    ...['nginx', '-p', folder, '-e', join(folder, 'error.log'), '-c', path],
  ]);
}
