import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { versionOf } from './installed.js';
import { labelOf, type Peer, type ServeSpec } from './peer.js';

/**
 * Descriptors are a hard 20,000 on the machine this was written for: two for each connection, one a listener, some
 * for itself.
 */
const DESCRIPTORS = 19_900;

/** HAProxy, mode tcp, one thread a worker; it has no UDP. */
export function haproxyPeer(workers: number): Peer {
  return {
    label: labelOf('haproxy', workers),
    name: 'haproxy',
    workers,
    udp: false,
    version: () => versionOf('haproxy', ['-v'], /HAProxy version \S+/),
    start: async (spec, { processes, cores, folder }) => {
      const path = join(folder, 'haproxy.cfg');
      await writeFile(path, haproxyConfig(spec, workers));
      return processes.start({ role: 'balancer', cores: cores.balancer }, labelOf('haproxy', workers), [
        'haproxy',
        '-db',
        '-f',
        path,
      ]);
    },
  };
}

/** A server without a port is dialled at the port the client came to, as in an HA-ports rule. */
export function haproxyConfig(spec: ServeSpec, workers: number): string {
  const listeners = spec.tcpPorts.reduce((sum, [first, last]) => sum + last - first + 1, 0);
  const maxconn = Math.max(50, Math.floor((DESCRIPTORS - 200 - listeners) / 2));
  return [
    'global',
    `  nbthread ${workers}`,
    `  maxconn ${maxconn}`,
    'defaults',
    '  mode tcp',
    `  maxconn ${maxconn}`,
    '  timeout connect 5s',
    '  timeout client 10m',
    '  timeout server 10m',
    'listen bench',
    ...spec.tcpPorts.map(([first, last]) => `  bind ${spec.frontend}:${first}-${last}`),
    `  balance ${spec.distribution === 'per-flow' ? 'random' : 'source'}`,
    ...spec.backends.map((address, index) => `  server b${index + 1} ${address}`),
    '',
  ].join('\n');
}
