export interface LabOptions {
  readonly listenPorts: string;
  /** @default 3 */
  readonly backends?: number | undefined;
  readonly probe?: object;
  readonly pool?: object;
  readonly rule?: object;
  readonly top?: object;
}

/** What most integration tests want of a configuration; the frontend is `host(1)`, backends `host(11)` and up. */
export function labConfig(
  host: (number: number) => string,
  options: LabOptions,
): { readonly metrics: { readonly listen: string } } & Record<string, unknown> {
  const backends = Array.from({ length: options.backends ?? 3 }, (_, index) => ({
    name: `nva-${index + 1}`,
    address: host(11 + index),
  }));
  return {
    frontends: [{ name: 'hub', address: host(1) }],
    ...(options.probe === undefined ? {} : { probes: [{ name: 'alive', ...options.probe }] }),
    backendPools: [{ name: 'nvas', backends, ...options.pool }],
    rules: [
      {
        name: 'ha-ports',
        frontend: 'hub',
        backendPool: 'nvas',
        haPorts: true,
        listenPorts: options.listenPorts,
        ...(options.probe === undefined ? {} : { probe: 'alive' }),
        ...options.rule,
      },
    ],
    metrics: { listen: `${host(1)}:9902` },
    shutdown: { deadline: '1s' },
    ...options.top,
  };
}
