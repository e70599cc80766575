/** How haports comes to have many ports. */
export interface AllPortsWay {
  readonly name: string;
  readonly capture?: true;
  readonly workers: number;
}

export const CAPTURE_PORT = 61_000;

/** One HA-ports rule over TCP and UDP; without `listenPorts` on all ports. No probe, idle times beyond any run. */
export function allPortsConfig(
  way: AllPortsWay,
  serve: {
    readonly frontend: string;
    readonly backends: readonly string[];
    readonly listenPorts?: string;
    readonly adminSocket: string;
  },
): object {
  const { listenPorts } = serve;
  return {
    dataPlane: {
      kind: 'userspace',
      workers: way.workers,
      ...(way.capture && { capture: { port: CAPTURE_PORT } }),
    },
    frontends: [{ name: 'bench', address: serve.frontend }],
    backendPools: [{ name: 'backends', backends: serve.backends.map((address) => ({ address })) }],
    rules: [
      {
        name: 'all-ports',
        frontend: 'bench',
        backendPool: 'backends',
        protocol: 'all',
        frontendPort: 0,
        backendPort: 0,
        ...(listenPorts !== undefined && { listenPorts }),
        idleTimeout: { tcp: '10m', udp: '10m' },
      },
    ],
    admin: { socket: serve.adminSocket },
    logging: { level: 'warn', format: 'json' },
    shutdown: { deadline: '1s' },
  };
}
