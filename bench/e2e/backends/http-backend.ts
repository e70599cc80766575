import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { OwnProcess, OwnProcesses } from '../own-processes.js';
import { nginxMain } from './nginx-main.js';

/** What every HTTP backend answers, whatever the path. */
export const HTTP_BODY =
  'A small body, the same from every backend, so that it can be compared byte by byte.\n';

/** nginx answering HTTP_BODY on these addresses and ports; one worker, in memory, keep-alive without end. */
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
  const path = join(folder, 'nginx.conf');
  await writeFile(
    path,
    [
      ...nginxMain({ folder, workers: 1, moduleLine: '' }),
      'http {',
      '  access_log off; tcp_nodelay on; keepalive_timeout 600s; keepalive_requests 1000000000;',
      ...['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
        (kind) => `  ${kind}_temp_path ${join(folder, kind)};`,
      ),
      '  server {',
      ...options.addresses.flatMap((address) =>
        options.ports.map((port) => `    listen ${address}:${port} backlog=4096;`),
      ),
      `    location / { default_type text/plain; return 200 "${HTTP_BODY.replace('\n', '\\n')}"; }`,
      '  }',
      '}',
      '',
    ].join('\n'),
  );
  return processes.start({ role: 'backend', cores: options.cores }, 'http backend', [
    ...['nginx', '-p', folder, '-e', join(folder, 'error.log'), '-c', path],
  ]);
}
