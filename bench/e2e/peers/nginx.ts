import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { nginxMain } from '../backends/nginx-main.js';
import { streamModuleLine } from './installed.js';
import { versionOf } from './installed.js';
import { labelOf, portsOf, type Peer, type ServeSpec } from './peer.js';

/** From this many ports on, all of them go to one upstream: what is measured then is listening only. */
const MANY_PORTS = 200;

/** nginx stream, TCP and UDP, one worker process a worker. */
export function nginxPeer(workers: number): Peer {
  return {
    label: labelOf('nginx', workers),
    name: 'nginx',
    workers,
    udp: true,
    version: async () => {
      if ((await streamModuleLine()) === undefined) return undefined;
      return versionOf('nginx', ['-v'], /nginx\/\S+/);
    },
    start: async (spec, { processes, cores, folder }) => {
      const path = join(folder, 'nginx.conf');
      await writeFile(path, nginxConfig(spec, workers, folder, (await streamModuleLine()) ?? ''));
      return processes.start({ role: 'balancer', cores: cores.balancer }, labelOf('nginx', workers), [
        ...['nginx', '-p', folder, '-e', join(folder, 'error.log'), '-c', path],
      ]);
    },
  };
}

export function nginxConfig(spec: ServeSpec, workers: number, folder: string, moduleLine: string): string {
  const method = spec.distribution === 'per-flow' ? 'random;' : 'hash $remote_addr consistent;';
  const tcp = portsOf(spec.tcpPorts);
  const udp = portsOf(spec.udpPorts);
  const upstream = (port: number): string =>
    `  upstream p${port} { ${method} ${spec.backends.map((address) => `server ${address}:${port};`).join(' ')} }`;
  // Without reuseport two worker processes would each make a session of their own for one UDP flow.
  const reuse = workers > 1 ? ' reuseport' : '';
  const many = tcp.length > MANY_PORTS;
  return [
    ...nginxMain({ folder, workers, moduleLine }),
    'stream {',
    '  proxy_connect_timeout 5s;',
    '  proxy_timeout 10m;',
    ...(many ? [upstream(tcp[0] ?? 0)] : [...new Set([...tcp, ...udp])].map(upstream)),
    ...(many
      ? spec.tcpPorts.map(
          ([first, last]) =>
            `  server { listen ${spec.frontend}:${first}-${last}; proxy_pass p${tcp[0] ?? 0}; }`,
        )
      : tcp.map((port) => `  server { listen ${spec.frontend}:${port}; proxy_pass p${port}; }`)),
    ...udp.map((port) => `  server { listen ${spec.frontend}:${port} udp${reuse}; proxy_pass p${port}; }`),
    '}',
    '',
  ].join('\n');
}
