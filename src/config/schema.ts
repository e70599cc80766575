import { z } from 'zod';
import { parseDuration, type FlowAction, type FlowPolicyPreset } from '../model/configuration.js';
import {
  cidrField,
  durationField,
  endpointField,
  hostAddressField,
  integerField,
  listenAddressField,
  nameField,
  parsed,
  portOrRangeField,
  portSetField,
  tableSizeField,
  textField,
  webhookField,
} from './fields.js';
import { probeSchema } from './schema-probe.js';

/** Idle times by protocol, each optional. */
export function idleTimeoutSchema() {
  return z.strictObject({
    tcp: durationField(1000, 86_400_000)
      .describe('Idle time after which a TCP flow ends, 1s to 24h. Default 4m, as Azure')
      .exactOptional(),
    udp: durationField(1000, 86_400_000)
      .describe('Idle time after which a UDP flow ends, 1s to 24h. Default 30s')
      .exactOptional(),
  });
}

export const frontendSchema = z
  .strictObject({
    name: nameField().describe('Name of the frontend, unique among frontends'),
    address: listenAddressField().describe(
      'Address where flows arrive, IPv4 or IPv6. "0.0.0.0" and "::" stand for all addresses of the machine',
    ),
    idleTimeout: idleTimeoutSchema()
      .describe("Idle times of all rules on this frontend. They beat the rule's own, as on Azure")
      .exactOptional(),
    proxyProtocol: z
      .strictObject({
        accept: z
          .enum(['v1', 'v2', 'any'])
          .describe('Version of the PROXY protocol header that trusted sources must send'),
        trustedSources: z
          .array(cidrField())
          .min(1, { error: 'at least one address block' })
          .describe('Address blocks that must send a header; everybody else is served as they are'),
        headerTimeout: durationField(100, 60_000)
          .describe('How long a header may take to arrive, 100ms to 1m')
          .prefault('3s'),
      })
      .describe(
        'PROXY protocol on incoming TCP flows. Off by default. The hash and the flow log then use the addresses in the header',
      )
      .exactOptional(),
    allow: z
      .array(cidrField())
      .describe('Address blocks of clients that are served; empty: everybody')
      .prefault([]),
    deny: z
      .array(cidrField())
      .describe('Address blocks of clients that are not served; wins over allow')
      .prefault([]),
  })
  .describe('A named address where flows arrive');

export type FrontendInput = z.output<typeof frontendSchema>;

export const backendSchema = z
  .strictObject({
    name: nameField()
      .describe('Label of the backend, unique in its pool. Default: its address')
      .exactOptional(),
    address: hostAddressField().describe(
      'Address of the backend, IPv4 or IPv6. With the name of the pool it is its identity',
    ),
    weight: integerField(0, 256)
      .describe("Share of new flows relative to the pool's other backends; 0: no new flows")
      .default(1),
    priority: integerField(0, 255)
      .describe(
        'The group with the lowest number that has minimumHealthy members up serves; the others stand by',
      )
      .default(0),
    adminState: z
      .enum(['none', 'up', 'down'])
      .describe('none: follow the probe. up, down: whatever the probe says')
      .default('none'),
    maxConnections: integerField(1, 1_000_000)
      .describe("TCP flows at a time. Default: the pool's")
      .exactOptional(),
    floatingAddresses: z
      .record(nameField(), hostAddressField())
      .describe(
        'Frontend name to the address on which this backend terminates that frontend (its loopback alias), ' +
          'for rules with floatingIp',
      )
      .prefault({}),
  })
  .describe('One target address');

export const backendPoolSchema = z
  .strictObject({
    name: nameField().describe('Name of the pool, unique among pools'),
    minimumHealthy: integerField(1, 65534)
      .describe('Members up that a priority group needs to serve')
      .default(1),
    sourceAddresses: z
      .array(hostAddressField())
      .describe("Local addresses of connections to the backends, used in turn. Empty: the machine's choice")
      .prefault([]),
    sourcePorts: portSetField()
      .describe('Local ports of connections to the backends, where haports chooses them')
      .prefault('32768-60999'),
    proxyProtocol: z
      .enum(['none', 'v1', 'v2'])
      .describe("PROXY protocol header sent on each TCP flow, with the client's address in it")
      .default('none'),
    connectTimeout: durationField(10, 600_000)
      .describe('How long one attempt to connect may take, 10ms to 10m')
      .prefault('5s'),
    connectAttempts: integerField(1, 16)
      .describe('Backends tried before a new TCP flow is given up')
      .default(3),
    maxConnections: integerField(1, 1_000_000)
      .describe('TCP flows at a time of each backend that does not say otherwise. Default: no cap')
      .exactOptional(),
    slowStart: durationField(1000, 3_600_000)
      .describe(
        'Time in which a backend that joins others grows to its full weight, 1s to 1h. Default: full weight at once',
      )
      .exactOptional(),
    backends: z.array(backendSchema).describe('The members; order does not matter to the hash'),
  })
  .describe('A named set of backends');

export type BackendInput = z.output<typeof backendSchema>;
export type BackendPoolInput = z.output<typeof backendPoolSchema>;

type ActionByProtocol = Readonly<Partial<Record<'tcp' | 'udp', FlowAction>>>;

function actionSchema<const A extends readonly [FlowAction, ...FlowAction[]]>(actions: A) {
  const words = actions.map((word) => `"${word}"`).join(', ');
  const action = z.enum(actions, { error: `one of ${words}` });
  return z.union(
    [
      action.transform((both): ActionByProtocol => ({ tcp: both, udp: both })),
      z.strictObject({
        tcp: action.describe('For TCP flows').exactOptional(),
        udp: action.describe('For UDP flows').exactOptional(),
      }),
    ],
    { error: `one of ${words}, or {"tcp": ..., "udp": ...}` },
  );
}

/** A preset, and what differs from it. */
export interface FlowPolicyInput {
  readonly preset: FlowPolicyPreset;
  readonly probeDown?: ActionByProtocol;
  readonly adminDown?: ActionByProtocol;
  readonly removed?: ActionByProtocol;
  readonly drainDeadline?: ActionByProtocol;
  readonly idle?: ActionByProtocol;
}

const preset = z.enum(['azure', 'aws-gwlb', 'gcp', 'firewall']);
const ACTIONS = ['persist', 'rebalance', 'reset', 'drop'] as const;

const flowPolicySchema = z
  .union(
    [
      preset.transform((name): FlowPolicyInput => ({ preset: name })),
      z.strictObject({
        preset: preset.describe('What holds where nothing else is said').default('azure'),
        probeDown: actionSchema(ACTIONS).describe('The probe took the backend down').exactOptional(),
        adminDown: actionSchema(ACTIONS).describe('An operator switched the backend down').exactOptional(),
        removed: actionSchema(ACTIONS).describe('The backend left the configuration').exactOptional(),
        drainDeadline: actionSchema(ACTIONS).describe('A drain ran out of time').exactOptional(),
        idle: actionSchema(['reset', 'drop']).describe('The idle time ran out').exactOptional(),
      }),
    ],
    {
      error:
        'one of "azure", "aws-gwlb", "gcp", "firewall", or an object with some of preset and the triggers',
    },
  )
  .describe(
    'What happens to flows whose backend is lost. persist: they stay. rebalance: UDP moves, TCP is reset. reset: TCP ' +
      'gets RST on both ends, UDP starts afresh. drop: forgotten without a word',
  );

function keepAliveField() {
  return parsed((text): number | 'off' | undefined => {
    if (text === 'off') return text;
    const ms = parseDuration(text);
    return ms === undefined || ms < 1000 || ms > 86_400_000 ? undefined : ms;
  }, '"off", or a duration from 1s to 24h such as "30s"');
}

export const ruleSchema = z
  .strictObject({
    name: nameField().describe('Name of the rule, unique among rules'),
    frontend: nameField().describe('Name of the frontend where its flows arrive'),
    backendPool: nameField().describe('Name of the pool that serves them'),
    probe: nameField()
      .describe('Name of the probe that decides which backends are up. Without one all count as up')
      .exactOptional(),
    protocol: z
      .enum(['tcp', 'udp', 'all'])
      .describe('all is TCP and UDP. Needed unless haPorts is true')
      .exactOptional(),
    frontendPort: portOrRangeField()
      .describe('Port, or range of ports, where flows arrive; 0: every port. Needed unless haPorts is true')
      .exactOptional(),
    backendPort: integerField(0, 65535)
      .describe(
        'Port on the backend; for a range the first one of the target range. 0: the same as arrived at',
      )
      .default(0),
    listenPorts: portSetField()
      .describe('Limits the rule to these ports, such as "8000-8099" for an HA-ports rule. Default: no limit')
      .exactOptional(),
    haPorts: z
      .boolean()
      .describe('Short for protocol all, frontendPort 0, backendPort 0: every port, port kept')
      .default(false),
    floatingIp: z
      .boolean()
      .describe(
        "Address the backend by its floatingAddresses instead of its own address, as Azure's floating IP",
      )
      .default(false),
    distribution: z
      .enum(['five-tuple', 'source-ip-protocol', 'source-ip'])
      .describe('Which fields are hashed. Azure: Default, SourceIPProtocol, SourceIP')
      .meta({ default: 'five-tuple' })
      .exactOptional(),
    symmetric: z.boolean().describe('Both directions of a flow hash to the same backend').default(false),
    idleTimeout: idleTimeoutSchema()
      .describe('Idle times. An idleTimeout of the frontend beats them')
      .exactOptional(),
    tcpReset: z
      .boolean()
      .describe('RST to both ends when a TCP flow ends for idleness; false: FIN')
      .meta({ default: true })
      .exactOptional(),
    flowPolicy: flowPolicySchema.prefault('azure'),
    allDown: z
      .enum(['reset', 'drop', 'fail-open'])
      .describe(
        'What new flows meet when no backend is up. reset: refused. drop: no answer (TCP: accepted, never answered). ' +
          'fail-open: served by any backend that is not switched down',
      )
      .default('reset'),
    tcp: z
      .strictObject({
        noDelay: z.boolean().describe('TCP_NODELAY on both sockets').default(true),
        keepAlive: keepAliveField()
          .describe('Idle time before the first TCP keep-alive on both sockets, or "off"')
          .prefault('off'),
      })
      .describe('Socket options of TCP flows')
      .exactOptional(),
    udp: z
      .strictObject({
        perPacket: z
          .boolean()
          .describe('Balance each datagram by itself, for one-way protocols such as syslog. No replies')
          .default(false),
        expectedResponses: integerField(0, 1_000_000)
          .describe(
            'Datagrams a backend answers to one request; the flow ends with the last. 0: replies are dropped',
          )
          .exactOptional(),
        answersFrom: z
          .enum(['endpoint', 'address'])
          .describe(
            'Where a backend may answer from. endpoint: the port it was asked on (address and port-dependent filtering, ' +
              'RFC 4787 section 5). address: any of its ports, for TFTP and the like (address-dependent filtering). ' +
              'Default: address for an HA-ports rule with distribution source-ip that carries replies and does not ' +
              'count them, else endpoint',
          )
          .exactOptional(),
      })
      .describe('Options of UDP flows')
      .exactOptional(),
  })
  .describe('Frontend, protocol and ports that are balanced over a pool');

export type RuleInput = z.output<typeof ruleSchema>;

/**
 * A change of a table is one transaction, written as text and parsed by nft: about 5,000 slots take 24 ms, and 65,521, the
 * largest prime of 16 bits, 200 ms (measured, nftables 1.0.6).
 */
const MOST_SLOTS = 65_521;

export const kernelSchema = z.strictObject({
  mode: z
    .enum(['nat', 'floating-l2', 'floating-routed', 'next-hop'])
    .describe(
      'How packets reach a backend. nat: addressed to it. floating-l2: as they are, to its MAC address. floating-routed: as ' +
        'they are, by policy routing. next-hop: routed traffic for destinations beyond, through a backend',
    )
    .default('nat'),
  returnPath: z
    .enum(['route', 'masquerade'])
    .describe(
      'With nat, how answers come back. route: backends route them through this machine. masquerade: they are addressed to ' +
        'it, which hides the client',
    )
    .default('route'),
  interface: textField('the name of a network interface', /^[A-Za-z0-9_.-]{1,15}$/)
    .describe('Interface where flows arrive. Needed for floating-l2, by default all of them else')
    .exactOptional(),
  tableSize: tableSizeField(MOST_SLOTS)
    .describe('Slots of a table in the kernel, in place of the tableSize at the top; prime')
    .default(4093),
  flowState: z
    .enum(['pinned', 'stateless'])
    .describe(
      'pinned: a flow keeps its backend while it may. stateless: the hash alone decides, packet by packet; not with nat',
    )
    .default('pinned'),
  spokes: z
    .array(cidrField())
    .describe(
      'With next-hop: only traffic from one of these address blocks to another is balanced; empty: all that is routed',
    )
    .prefault([]),
  manageSysctls: z
    .boolean()
    .describe('Set the sysctls that the mode needs. false: check them and tell')
    .default(false),
  onStop: z
    .enum(['keep', 'remove'])
    .describe('What a stop leaves. keep: forwarding goes on until haports is back, or "haports kernel flush"')
    .default('keep'),
});

export type KernelInput = z.output<typeof kernelSchema>;

const anyPath = (expected: string) => z.string({ error: expected }).min(1, { error: expected });
const flows = () => integerField(1, 16_777_216);

export const dataPlaneSchema = z
  .strictObject({
    kind: z
      .enum(['userspace', 'kernel'])
      .describe(
        'What moves the bytes. userspace: this process, through sockets. kernel: nftables, and this process decides',
      )
      .default('userspace'),
    workers: integerField(0, 64)
      .describe(
        'Data processes beside the control process; 0: everything in one process. Several share TCP ports, and each UDP address and port belongs to one. The kernel data plane has none',
      )
      .default(1),
    instance: nameField()
      .describe(
        'What this process has in the kernel is named after it. Two on one machine need names of their own',
      )
      .default('haports'),
    capture: z
      .strictObject({
        mode: z.enum(['dnat-map']).describe('How TCP is steered').exactOptional(),
        udp: z
          .enum(['redirect', 'bind'])
          .describe('redirect: one UDP socket a frontend. bind: one a port, not captured')
          .default('redirect'),
        excludedPorts: portSetField()
          .describe(
            'Ports that HA-ports rules leave alone on every frontend. A rule may name port 22 where this key is absent, and none of these where it is there',
          )
          .prefault('22'),
        fallback: z
          .enum(['none', 'bind'])
          .describe('Where capture is impossible: fail, or open a socket a port')
          .default('none'),
        port: integerField(1024, 65471)
          .describe(
            'TCP port of the socket that gets all ports; UDP sockets take as many from it as there are workers',
          )
          .default(61000),
        block: cidrField()
          .describe(
            'IPv4 block whose addresses stand for ports within this machine, /4 to /16: a /16 a frontend',
          )
          .prefault('240.0.0.0/4'),
      })
      .describe('Steer all ports of the frontends to a few sockets (nftables) instead of one socket a port')
      .exactOptional(),
    kernel: kernelSchema
      .describe('Options of the kernel data plane. Default, with kind kernel: those of its keys')
      .exactOptional(),
  })
  .describe('What moves the bytes');

export const limitsSchema = z
  .strictObject({
    tcpFlows: flows().describe('Established TCP flows of all data processes together').default(65536),
    udpFlows: flows().describe('UDP flows of all data processes together').default(65536),
    embryonicFlows: flows()
      .describe('TCP flows that have no backend connection yet, or wait under allDown drop')
      .default(16384),
    embryonicTimeout: durationField(100, 600_000)
      .describe('How long a TCP flow may stay without a backend connection, 100ms to 10m')
      .prefault('30s'),
    tcpFlowsPerSource: flows()
      .describe('TCP flows of one client address, in each data process. Default: no cap')
      .exactOptional(),
    udpFlowsPerSource: flows()
      .describe('UDP flows of one client address, in each data process. Default: no cap')
      .exactOptional(),
  })
  .describe('Caps. What is over them is refused, counted and told as an event');

export const loggingSchema = z
  .strictObject({
    level: z
      .enum(['trace', 'debug', 'info', 'warn', 'error'])
      .describe('Least severity logged')
      .default('info'),
    format: z
      .enum(['auto', 'json', 'pretty'])
      .describe('auto: pretty on a terminal where pino-pretty is installed, else JSON')
      .default('auto'),
  })
  .describe('The log of the process itself');

export const flowLogSchema = z
  .strictObject({
    file: anyPath('the path of a file').describe('File that flows are logged to, one JSON object a line'),
    sample: z
      .number({ error: 'a number from 0 to 1' })
      .min(0, { error: 'a number from 0 to 1' })
      .max(1, { error: 'a number from 0 to 1' })
      .describe('Share of flows logged. Configurations and epochs are always logged')
      .default(1),
  })
  .describe('A log of every flow. Off by default');

export const metricsSchema = z
  .strictObject({
    listen: endpointField().describe(
      'Address and port of /metrics, /healthz and /readyz; port 0: any free one',
    ),
  })
  .describe('Prometheus metrics and health of haports itself. Off by default');

/** sun_path of Linux holds 108 bytes, one of them the zero at the end (unix(7)). */
const SOCKET_PATH_BYTES = 107;

const socketPath = () => {
  const error = `the path of a Unix socket, at most ${SOCKET_PATH_BYTES} bytes`;
  return anyPath(error).refine(
    (path) => Buffer.byteLength(path) <= SOCKET_PATH_BYTES && !path.includes('\0'),
    { error },
  );
};

export const adminSchema = z
  .strictObject({
    socket: socketPath()
      .describe(
        'Unix socket of the admin API, as seen from the working directory. Only its owner may use it (0600)',
      )
      .exactOptional(),
    http: endpointField()
      .describe(
        'Address and port of the admin API and dashboard; port 0: any free one. Off loopback with tls and token only',
      )
      .exactOptional(),
    tls: z
      .strictObject({
        certificate: anyPath('the path of a PEM file').describe('PEM file of the certificate and its chain'),
        key: anyPath('the path of a PEM file').describe('PEM file of its private key, without a passphrase'),
      })
      .describe('HTTPS instead of HTTP on http. Needed off loopback')
      .exactOptional(),
    token: textField(
      'a token of 16 to 512 letters, digits and . _ ~ + / - =, such as "openssl rand -hex 32" prints',
      // What a Bearer header can carry: RFC 6750, 2.1.
      /^(?=.{16,512}$)[A-Za-z0-9._~+/-]+=*$/,
    )
      .describe('Bearer token that requests on http must carry. Needed off loopback')
      .exactOptional(),
  })
  .describe('The admin API and dashboard. Off by default');

export type AdminInput = z.output<typeof adminSchema>;

export const eventsSchema = z
  .strictObject({
    webhook: webhookField()
      .describe('Health events are posted to this URL, one JSON object a request. Default: nowhere')
      .exactOptional(),
  })
  .describe('Who is told of events besides the log. Off by default');

export const shutdownSchema = z
  .strictObject({
    deadline: durationField(0, 86_400_000)
      .describe('How long flows may finish after SIGTERM or SIGINT; a second signal ends at once')
      .prefault('30s'),
  })
  .describe('How haports ends');

/** The lists of named things, and the schema of one element of each. */
export const LIST_SCHEMAS = {
  frontends: frontendSchema,
  probes: probeSchema,
  backendPools: backendPoolSchema,
  rules: ruleSchema,
} as const;

/**
 * The shape of the whole configuration; what it parses to has addresses, durations and port sets as values. What
 * hangs together across keys is checked afterwards, so that one mistake does not hide the others.
 */
export const configSchema = z
  .strictObject({
    $schema: z.string().describe('Where the JSON Schema is, for editors. Not read').exactOptional(),
    compat: z
      .enum(['none', 'azure'])
      .describe('azure: what Azure would refuse is an error, not a note')
      .default('none'),
    seed: integerField(0, 4_294_967_295)
      .describe('Seed of the hash. Instances that are to choose alike need the same one')
      .default(0),
    tableSize: tableSizeField(655373)
      .describe(
        'Slots of a Maglev table; prime. At least 100 for each backend spread flows evenly to about 1 %. The kernel data plane has its own',
      )
      .default(65537),
    dataPlane: dataPlaneSchema.prefault({}),
    frontends: z.array(frontendSchema).describe('Addresses where flows arrive'),
    probes: z.array(probeSchema).describe('Health checks').prefault([]),
    backendPools: z.array(backendPoolSchema).describe('Sets of backends'),
    rules: z.array(ruleSchema).describe('What is balanced over what'),
    limits: limitsSchema.prefault({}),
    logging: loggingSchema.prefault({}),
    flowLog: flowLogSchema.exactOptional(),
    metrics: metricsSchema.exactOptional(),
    admin: adminSchema.exactOptional(),
    events: eventsSchema.exactOptional(),
    shutdown: shutdownSchema.prefault({}),
  })
  .describe('Configuration of haports');

export type ConfigInput = z.output<typeof configSchema>;

/**
 * The JSON Schema (2020-12) of the configuration, descriptions and defaults included: what `haports schema` prints
 * and what `config.schema.json` holds. Plain JSON, a new object on every call.
 */
export function configJsonSchema(): Record<string, unknown> {
  const { $schema, ...rest } = z.toJSONSchema(configSchema, { io: 'input', target: 'draft-2020-12' });
  return { $schema, title: 'haports configuration', ...rest };
}

/** Text of `config.schema.json`. */
export function configJsonSchemaText(): string {
  return `${JSON.stringify(configJsonSchema(), null, 2)}\n`;
}
