import { join } from 'node:path';

/** What every nginx of the bench has in common, balancer or backend: one process group, files in its own folder. */
export function nginxMain(options: {
  readonly folder: string;
  readonly workers: number;
  readonly moduleLine: string;
}): readonly string[] {
  return [
    options.moduleLine,
    'daemon off;',
    // Workers of a master that is root cannot read a 0700 folder as somebody else.
    ...(process.getuid?.() === 0 ? ['user root;'] : []),
    `worker_processes ${options.workers};`,
    'worker_rlimit_nofile 20000;',
    `pid ${join(options.folder, 'nginx.pid')};`,
    `error_log ${join(options.folder, 'error.log')} warn;`,
    'events { worker_connections 19900; }',
  ];
}
