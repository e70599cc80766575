/** A configuration in a kernel, and what happens to it. */
export interface Story {
  readonly name: string;
  readonly configuration: object;
  readonly steps: readonly Step[];
}

export interface Step {
  readonly what: string;
  /** Of the admin API. */
  readonly call?: readonly [method: 'PUT' | 'POST', path: string, body?: object];
  readonly reload?: object;
  /** Sent by the machine itself, from fixed ports. */
  readonly datagrams?: { readonly to: string; readonly port: number; readonly count: number };
}

const pool = (family: 4 | 6, hosts: readonly number[]) => ({
  name: `nvas${family}`,
  backends: hosts.map((host) => ({
    name: `nva-${host}`,
    address: family === 4 ? `10.2.0.${host}` : `fd02::${host}`,
  })),
});

interface Change {
  readonly rule?: object;
  readonly hosts?: readonly number[];
  readonly frontends?: readonly [string, string];
  readonly more?: object;
}

/** An HA-ports rule for each family; no probe, so every backend counts as up. */
function configuration(dataPlane: object, change: Change = {}): object {
  const { rule = {}, hosts = [11, 12, 13], frontends = ['10.9.0.10', 'fd09::10'], more = {} } = change;
  const families = [4, 6] as const;
  return {
    dataPlane,
    frontends: families.map((family, index) => ({ name: `hub${family}`, address: frontends[index] })),
    backendPools: families.map((family) => pool(family, hosts)),
    rules: families.map((family) => ({
      name: `ha${family}`,
      ...{ frontend: `hub${family}`, backendPool: `nvas${family}`, haPorts: true },
      // No flow may end while a slow machine looks.
      ...{ idleTimeout: { tcp: '1h', udp: '1h' }, ...rule },
    })),
    shutdown: { deadline: '1s' },
    ...more,
  };
}

const kernel = (options: object, change?: Change) =>
  configuration({ kind: 'kernel', kernel: { tableSize: 251, ...options } }, change);

const down = (host: number): Step => ({
  what: `nva-${host} down`,
  call: ['PUT', `/v1/backends/nvas4/nva-${host}/admin-state`, { adminState: 'down' }],
});
const back = (host: number): Step => ({
  what: `nva-${host} back`,
  call: ['PUT', `/v1/backends/nvas4/nva-${host}/admin-state`, { adminState: 'none' }],
});
const weight = (host: number): Step => ({
  what: `nva-${host} heavier`,
  call: ['PUT', `/v1/backends/nvas4/nva-${host}/weight`, { weight: 5 }],
});
const drained = (host: number): Step => ({
  what: `nva-${host} drained`,
  call: ['POST', `/v1/backends/nvas4/nva-${host}/drain`, { deadline: '1h' }],
});
const reloaded = (what: string, reload: object): Step => ({ what, reload });
const sent = (to: string, port = 53): Step => ({
  what: `datagrams to ${to}`,
  datagrams: { to, port, count: 24 },
});

const NEW_HOSTS = { hosts: [11, 12, 14] };
const FLOATING = { rule: { floatingIp: true } };
const HOP = {
  frontends: ['0.0.0.0', '::'] as const,
  rule: { flowPolicy: 'firewall' },
};
const SPOKES = ['10.1.0.0/16', '10.3.0.0/16', 'fd01::/48', 'fd03::/48'];
const OWN = { frontends: ['10.9.0.20', 'fd09::20'] as const };
const UDP_MOVES = { rule: { flowPolicy: { adminDown: 'rebalance', removed: 'rebalance' } } };

export const STORIES: readonly Story[] = [
  {
    name: 'nat',
    configuration: kernel({}, UDP_MOVES),
    steps: [
      ...[sent('10.9.0.10'), down(11), weight(12), drained(13), back(11)],
      reloaded('nva-13 for nva-14', kernel({}, { ...UDP_MOVES, ...NEW_HOSTS })),
    ],
  },
  {
    name: 'masquerade',
    configuration: kernel(
      { returnPath: 'masquerade', onStop: 'remove' },
      {
        rule: {
          haPorts: undefined,
          protocol: 'udp',
          frontendPort: '50-59',
          backendPort: 150,
          allDown: 'drop',
        },
      },
    ),
    steps: [sent('10.9.0.10'), sent('fd09::10'), down(11), down(12), down(13), back(12)],
  },
  {
    name: 'floating-l2',
    configuration: kernel({ mode: 'floating-l2', interface: 'corpus0' }, FLOATING),
    steps: [
      ...[down(11), weight(12), back(11)],
      reloaded(
        'nva-13 for nva-14',
        kernel({ mode: 'floating-l2', interface: 'corpus0' }, { ...FLOATING, ...NEW_HOSTS }),
      ),
    ],
  },
  {
    name: 'floating-routed',
    configuration: kernel({ mode: 'floating-routed' }, FLOATING),
    steps: [
      ...[down(11), drained(12)],
      reloaded('nva-13 for nva-14', kernel({ mode: 'floating-routed' }, { ...FLOATING, ...NEW_HOSTS })),
    ],
  },
  {
    name: 'next-hop',
    configuration: kernel({ mode: 'next-hop' }, HOP),
    steps: [
      ...[down(11), weight(12)],
      reloaded('nva-13 for nva-14', kernel({ mode: 'next-hop' }, { ...HOP, ...NEW_HOSTS })),
    ],
  },
  {
    name: 'spokes',
    configuration: kernel({ mode: 'next-hop', flowState: 'stateless', spokes: SPOKES }, HOP),
    steps: [down(11), drained(13)],
  },
  {
    name: 'capture',
    configuration: configuration({ workers: 0, capture: {} }, { ...OWN, rule: { listenPorts: '1-2000' } }),
    steps: [
      sent('10.9.0.20'),
      reloaded(
        'fewer ports',
        configuration({ workers: 0, capture: {} }, { ...OWN, rule: { listenPorts: '1-1000' } }),
      ),
    ],
  },
];
