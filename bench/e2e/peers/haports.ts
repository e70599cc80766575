import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { labelOf, type Peer, type ServeSpec } from './peer.js';

/** A built haports, by its `main.js`: a control process and `workers` data workers. */
export function haportsPeer(workers: number, main: string, name: 'haports' | 'before' = 'haports'): Peer {
  const label = labelOf(name, workers);
  return {
    label,
    name,
    workers,
    udp: true,
    version: async () => {
      const manifest = JSON.parse(await readFile('package.json', 'utf8')) as { version: string };
      return `haports ${manifest.version} on Node.js ${process.version}`;
    },
    start: async (spec, { processes, cores, folder }) => {
      const path = join(folder, 'config.json');
      await writeFile(path, JSON.stringify(haportsConfig(spec, workers), undefined, 2));
      const command = [process.execPath, main, 'run', '-c', path];
      return processes.start({ role: 'balancer', cores: cores.balancer }, label, command);
    },
  };
}

/** One HA-ports rule, no probe (the peers have none either), idle times beyond any run. */
export function haportsConfig(spec: ServeSpec, workers: number): object {
  const rules = [
    { protocol: 'tcp', ranges: spec.tcpPorts },
    { protocol: 'udp', ranges: spec.udpPorts },
  ]
    .filter(({ ranges }) => ranges.length > 0)
    .map(({ protocol, ranges }) => ({
      name: `bench-${protocol}`,
      frontend: 'bench',
      backendPool: 'backends',
      protocol,
      frontendPort: 0,
      backendPort: 0,
      listenPorts: ranges.map(([first, last]) => `${first}-${last}`).join(','),
      distribution: spec.distribution === 'per-flow' ? 'five-tuple' : 'source-ip',
      idleTimeout: { tcp: '10m', udp: '10m' },
    }));
  const others = Array.from({ length: spec.otherRules ?? 0 }, (_, index) => ({
    name: `other-${index + 1}`,
    frontend: 'bench',
    backendPool: 'backends',
    protocol: 'tcp',
    frontendPort: 20_000 + index,
    backendPort: 20_000 + index,
  }));
  return {
    dataPlane: { kind: 'userspace', workers },
    frontends: [{ name: 'bench', address: spec.frontend }],
    backendPools: [{ name: 'backends', backends: spec.backends.map((address) => ({ address })) }],
    rules: [...others, ...rules],
    logging: { level: 'warn', format: 'json' },
    shutdown: { deadline: '1s' },
  };
}
