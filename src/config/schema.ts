import { z } from 'zod';
import type { FlowAction, FlowTrigger, StatusRange } from '../model/configuration.js';
import {
  choice,
  cidr,
  duration,
  endpoint,
  flag,
  hostAddress,
  integer,
  list,
  listenAddress,
  msWithin,
  name,
  numberOrText,
  optional,
  orPreset,
  parsed,
  path,
  portOrRange,
  portSet,
  tableSize,
  text,
  webhook,
} from './fields.js';

/*
 * The one description of the configuration: what it parses to has addresses, durations and port sets as values, the JSON
 * Schema, the reference page and the hints at misspelt keys are made of it. What hangs together across keys is checked
 * afterwards, so that one mistake does not hide the others.
 */

/** What `keys` hold is milliseconds: `interval` becomes `intervalMs`. */
function inMs<const K extends string>(...keys: readonly K[]) {
  const isDuration: ReadonlySet<string> = new Set(keys);
  return <T extends object>(value: T) =>
    Object.fromEntries(
      Object.entries(value).map(([key, member]) => [isDuration.has(key) ? `${key}Ms` : key, member]),
    ) as { [Key in keyof T as Key extends K ? `${Key}Ms` : Key]: T[Key] };
}

function object<S extends z.ZodRawShape>(about: string, shape: S) {
  return z.strictObject(shape).describe(about);
}

/** An object whose keys all have defaults, and that is there where it is not written. */
function section<S extends z.ZodRawShape>(about: string, shape: S) {
  return orPreset(z.strictObject(shape), {}).describe(about);
}

const idleTimeout = z.strictObject({
  tcp: optional(duration(1000, 86_400_000)).describe(
    'Idle time after which a TCP flow ends, 1s to 24h. Default 4m, as Azure',
  ),
  udp: optional(duration(1000, 86_400_000)).describe(
    'Idle time after which a UDP flow ends, 1s to 24h. Default 30s',
  ),
});

const proxyProtocol = z.strictObject({
  accept: choice(['v1', 'v2', 'any']).describe(
    'Version of the PROXY protocol header that trusted sources must send',
  ),
  trustedSources: z
    .array(cidr())
    .min(1, { error: 'at least one address block' })
    .describe('Address blocks that must send a header; other clients are served as they are'),
  headerTimeout: duration(100, 60_000, '3s').describe('How long a header may take to arrive, 100ms to 1m'),
});

const frontend = object('A named address where flows arrive', {
  name: name().describe('Name of the frontend, unique among frontends'),
  address: listenAddress().describe(
    'Address where flows arrive, IPv4 or IPv6. "0.0.0.0" and "::" stand for all addresses of the machine',
  ),
  idleTimeout: optional(idleTimeout).describe(
    "Idle times of all rules on this frontend. They override the rule's own, as on Azure",
  ),
  proxyProtocol: optional(proxyProtocol.transform(inMs('headerTimeout'))).describe(
    'PROXY protocol on incoming TCP flows. Off by default. The hash and the flow log then use the addresses in the header',
  ),
  allow: list(cidr()).describe('Address blocks of clients that are served; empty: all clients'),
  deny: list(cidr()).describe('Address blocks of clients that are not served; overrides allow'),
});

export type FrontendInput = z.output<typeof frontend>;

const count = integer(1, 100);
const STATUS = 'HTTP status codes from 100 to 599 such as "200" or "200-399,401"';
const oneStatus = (code: number): readonly StatusRange[] => [{ first: code, last: code }];
/** A token of RFC 9110, 5.6.2, of a length that occurs. */
const HEADER = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$/;
const SHORT_TEXT = 'text of 1 to 1024 characters';

const threshold = z.union(
  [
    count.transform((both) => ({ up: both, down: both })),
    z.strictObject({
      up: count.prefault(2).describe('Successes in a row that bring a backend up'),
      down: count.prefault(2).describe('Failures in a row that take a backend down'),
    }),
  ],
  { error: 'a whole number from 1 to 100, or {"up": ..., "down": ...}' },
);

const flapDamping = z.strictObject({
  transitions: integer(2, 1000, 6).describe('Changes of state within the window'),
  window: duration(1000, 86_400_000, '1m').describe('How far back changes count'),
  hold: duration(1000, 86_400_000, '30s').describe('How long the next up is held back'),
});

/** Parses `"200"` or `"200-399,401"`, codes from 100 to 599. */
function parseStatusRanges(written: string): readonly StatusRange[] | undefined {
  const ranges = written.split(',').map((part): StatusRange | undefined => {
    const match = /^\s*([1-5]\d\d)\s*(?:-\s*([1-5]\d\d)\s*)?$/.exec(part);
    const [first, last] = [Number(match?.[1]), Number(match?.[2] ?? match?.[1])];
    return first <= last ? { first, last } : undefined;
  });
  return ranges.includes(undefined) ? undefined : (ranges as StatusRange[]);
}

const probe = object('An active health check, shared by the rules that name it', {
  name: name().describe('Name of the probe, unique among probes'),
  protocol: choice(['tcp', 'http', 'https']).describe(
    'tcp: a connection opens. http, https: a GET is answered as expected',
  ),
  port: integer(1, 65535).describe("Port probed on each backend's own address"),
  path: optional(text('a path that starts with "/" and has no spaces, such as "/healthz"', /^\/[!-~]*$/))
    .describe('Path and query of the GET. http and https only')
    .meta({ default: '/' }),
  host: optional(
    text('a host name or address, with a port if need be', /^[A-Za-z0-9.:[\]_-]{1,255}$/),
  ).describe("Host header. Default: the backend's address. http and https only"),
  serverName: optional(text('a host name', /^[A-Za-z0-9._-]{1,253}$/)).describe(
    'TLS server name (SNI), also what the certificate must be for. Default: host, if it is a name. https only',
  ),
  expectStatus: optional(numberOrText(STATUS, integer(100, 599), oneStatus, parseStatusRanges)).describe(
    'Status codes that count as healthy. Default 200, as Azure. http and https only',
  ),
  expectBody: optional(path(SHORT_TEXT).max(1024, { error: SHORT_TEXT })).describe(
    'Text that the first 64 KiB of the body must contain. http and https only',
  ),
  interval: duration(100, 3_600_000, '5s').describe(
    'From the start of one probe to the start of the next, 100ms to 1h',
  ),
  timeout: optional(duration(10, 3_600_000)).describe(
    'How long a probe may take; at most the interval. Default: the interval (tcp), or the shorter of the ' +
      'interval and 30s (http, https), as Azure',
  ),
  threshold: threshold.prefault(2).describe('Results in a row that change the state, both ways or apart'),
  ca: optional(path('the path of a PEM file')).describe(
    'PEM file of the authority to trust, read when the configuration is. Default: the well-known ones. https only',
  ),
  skipVerify: optional(flag()).describe('Take any certificate. https only').meta({ default: false }),
  sourceAddress: optional(hostAddress()).describe(
    "Local address that probes come from. Default: the machine's choice",
  ),
  sendProxy: choice(['none', 'v1', 'v2'], 'none').describe(
    'PROXY protocol header (LOCAL, UNKNOWN) sent first, for backends that insist on one',
  ),
  flapDamping: optional(flapDamping.transform(inMs('window', 'hold'))).describe(
    'Keeps a backend that goes up and down all the time down for longer. Off by default',
  ),
  weightFromProbeHeader: optional(text('the name of an HTTP header', HEADER)).describe(
    "Response header whose number, 0 to 256, becomes the backend's weight (Google Cloud: " +
      'X-Load-Balancing-Endpoint-Weight). Default: weights do not change. http and https only',
  ),
  explicitAnswerFlips: optional(flag())
    .describe(
      'An answer, good or bad, changes the state at once and only missing answers are counted, as Azure. ' +
        'false: the threshold holds for all. http and https only',
    )
    .meta({ default: true }),
}).transform(inMs('interval', 'timeout'));

export type ProbeInput = z.output<typeof probe>;

const backend = object('One target address', {
  name: optional(name()).describe('Label of the backend, unique in its pool. Default: its address'),
  address: hostAddress().describe(
    'Address of the backend, IPv4 or IPv6. With the name of the pool it is its identity',
  ),
  weight: integer(0, 256, 1).describe(
    "Share of new flows relative to the pool's other backends; 0: no new flows",
  ),
  priority: integer(0, 255, 0).describe(
    'The group with the lowest number that has minimumHealthy members up serves; the others stand by',
  ),
  adminState: choice(['none', 'up', 'down'], 'none').describe(
    'none: follow the probe. up and down override the probe',
  ),
  maxConnections: optional(integer(1, 1_000_000)).describe("TCP flows at a time. Default: the pool's"),
  floatingAddresses: z
    .record(name(), hostAddress())
    .prefault({})
    .describe(
      'Frontend name to the address on which this backend terminates that frontend (its loopback alias), ' +
        'for rules with floatingIp',
    ),
});

const backendPool = object('A named set of backends', {
  name: name().describe('Name of the pool, unique among pools'),
  minimumHealthy: integer(1, 65534, 1).describe('Members up that a priority group needs to serve'),
  sourceAddresses: list(hostAddress()).describe(
    "Local addresses of connections to the backends, used in turn. Empty: the machine's choice",
  ),
  sourcePorts: portSet('32768-60999').describe(
    'Local ports of connections to the backends, where haports chooses them',
  ),
  proxyProtocol: choice(['none', 'v1', 'v2'], 'none').describe(
    "PROXY protocol header sent on each TCP flow, with the client's address in it. v2 passes on the extensions (TLVs) of a v2 header that came in",
  ),
  connectTimeout: duration(10, 600_000, '5s').describe(
    'How long one attempt to connect may take, 10ms to 10m',
  ),
  connectAttempts: integer(1, 16, 3).describe('Backends tried before a new TCP flow is given up'),
  maxConnections: optional(integer(1, 1_000_000)).describe(
    'TCP flows at a time of each backend that does not say otherwise. Default: no cap',
  ),
  slowStart: optional(duration(1000, 3_600_000)).describe(
    'Time in which a backend that joins others grows to its full weight, 1s to 1h. Default: full weight at once',
  ),
  backends: z.array(backend).describe('The members; order does not matter to the hash'),
}).transform(inMs('connectTimeout', 'slowStart'));

export type BackendPoolInput = z.output<typeof backendPool>;

type ActionByProtocol = Readonly<Partial<Record<'tcp' | 'udp', FlowAction>>>;

function action(...actions: readonly FlowAction[]) {
  const words = actions.map((word) => `"${word}"`).join(', ');
  const one = z.enum(actions, { error: `one of ${words}` });
  return z.union(
    [
      one.transform((both): ActionByProtocol => ({ tcp: both, udp: both })),
      z.strictObject({
        tcp: optional(one).describe('For TCP flows'),
        udp: optional(one).describe('For UDP flows'),
      }),
    ],
    { error: `one of ${words}, or {"tcp": ..., "udp": ...}` },
  );
}

const anyAction = () => action('persist', 'rebalance', 'reset', 'drop');
const preset = z.enum(['azure', 'aws-gwlb', 'gcp', 'firewall']);

/** A preset, and what differs from it. */
export interface FlowPolicyInput {
  readonly preset: z.output<typeof preset>;
  readonly changes: Readonly<Partial<Record<FlowTrigger, ActionByProtocol | undefined>>>;
}

const toTrigger = (key: string) => key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

const flowPolicy = z
  .union(
    [
      preset.transform((word): FlowPolicyInput => ({ preset: word, changes: {} })),
      z
        .strictObject({
          preset: preset.prefault('azure').describe('What holds where nothing else is said'),
          probeDown: optional(anyAction()).describe('The probe took the backend down'),
          adminDown: optional(anyAction()).describe('An operator switched the backend down'),
          removed: optional(anyAction()).describe('The backend left the configuration'),
          drainDeadline: optional(anyAction()).describe('A drain ran out of time'),
          idle: optional(action('reset', 'drop')).describe('The idle time ran out'),
        })
        .transform(({ preset: word, ...said }): FlowPolicyInput => {
          const changes = Object.entries(said).map(([key, change]) => [toTrigger(key), change]);
          return { preset: word, changes: Object.fromEntries(changes) as FlowPolicyInput['changes'] };
        }),
    ],
    {
      error:
        'one of "azure", "aws-gwlb", "gcp", "firewall", or an object with some of preset and the triggers',
    },
  )
  .prefault('azure')
  .describe(
    'What happens to flows whose backend is lost. persist: they stay. rebalance: UDP moves, TCP is reset. reset: TCP ' +
      'gets RST on both ends, UDP starts afresh. drop: dropped silently',
  );

const keepAlive = parsed(
  (written): number | 'off' | undefined =>
    written === 'off' ? written : msWithin(written, 1000, 86_400_000),
  '"off", or a duration from 1s to 24h such as "30s"',
);

const tcpOptions = z.strictObject({
  noDelay: flag(true).describe('TCP_NODELAY on both sockets'),
  keepAlive: keepAlive
    .prefault('off')
    .describe('Idle time before the first TCP keep-alive on both sockets, or "off"'),
});

const udpOptions = z.strictObject({
  perPacket: flag(false).describe(
    'Balance each datagram by itself, for one-way protocols such as syslog. No replies',
  ),
  expectedResponses: optional(integer(0, 1_000_000)).describe(
    'Datagrams a backend answers to one request; the flow ends with the last. 0: replies are dropped',
  ),
  answersFrom: optional(choice(['endpoint', 'address'])).describe(
    'Where a backend may answer from. endpoint: the port it was asked on (address and port-dependent filtering, ' +
      'RFC 4787 section 5). address: any of its ports, for TFTP and the like (address-dependent filtering). ' +
      'Default: address for an HA-ports rule with distribution source-ip that carries replies and does not ' +
      'count them, else endpoint',
  ),
});

const rule = object('Frontend, protocol and ports that are balanced over a pool', {
  name: name().describe('Name of the rule, unique among rules'),
  frontend: name().describe('Name of the frontend where its flows arrive'),
  backendPool: name().describe('Name of the pool that serves them'),
  probe: optional(name()).describe(
    'Name of the probe that decides which backends are up. Without one all count as up',
  ),
  protocol: optional(choice(['tcp', 'udp', 'all'])).describe(
    'all is TCP and UDP. Needed unless haPorts is true',
  ),
  frontendPort: optional(portOrRange()).describe(
    'Port, or range of ports, where flows arrive; 0: every port. Needed unless haPorts is true',
  ),
  backendPort: integer(0, 65535, 0).describe(
    'Port on the backend; for a range the first one of the target range. 0: the same as arrived at',
  ),
  listenPorts: optional(portSet()).describe(
    'Limits the rule to these ports, such as "8000-8099" for an HA-ports rule. Default: no limit',
  ),
  haPorts: flag(false).describe(
    'Short for protocol all, frontendPort 0, backendPort 0: every port, port kept',
  ),
  floatingIp: flag(false).describe(
    "Address the backend by its floatingAddresses instead of its own address, as Azure's floating IP",
  ),
  distribution: optional(choice(['five-tuple', 'source-ip-protocol', 'source-ip']))
    .describe('Which fields are hashed. Azure: Default, SourceIPProtocol, SourceIP')
    .meta({ default: 'five-tuple' }),
  symmetric: flag(false).describe('Both directions of a flow hash to the same backend'),
  idleTimeout: optional(idleTimeout).describe('Idle times. An idleTimeout of the frontend overrides them'),
  tcpReset: optional(flag())
    .describe('RST to both ends when a TCP flow ends by idle timeout; false: FIN')
    .meta({ default: true }),
  flowPolicy,
  allDown: choice(['reset', 'drop', 'fail-open'], 'reset').describe(
    'What new flows meet when no backend is up. reset: refused. drop: no answer (TCP: accepted, never answered). ' +
      'fail-open: served by any backend that is not switched down',
  ),
  tcp: optional(tcpOptions).describe('Socket options of TCP flows'),
  udp: optional(udpOptions).describe('Options of UDP flows'),
});

export type RuleInput = z.output<typeof rule>;

/**
 * A change of a table is one transaction, written as text and parsed by nft: about 5,000 slots take 24 ms, and 65,521, the
 * largest prime of 16 bits, 200 ms (measured, nftables 1.0.6).
 */
const MOST_KERNEL_SLOTS = 65_521;

const kernel = z.strictObject({
  mode: choice(['nat', 'floating-l2', 'floating-routed', 'next-hop'], 'nat').describe(
    'How packets reach a backend. nat: addressed to it. floating-l2: as they are, to its MAC address. floating-routed: as ' +
      'they are, by policy routing. next-hop: routed traffic for destinations beyond, through a backend',
  ),
  returnPath: choice(['route', 'masquerade'], 'route').describe(
    'With nat, how answers come back. route: backends route them through this machine. masquerade: they are addressed to ' +
      'it, which hides the client',
  ),
  interface: optional(text('the name of a network interface', /^[A-Za-z0-9_.-]{1,15}$/)).describe(
    'Interface where flows arrive. Needed for floating-l2; elsewhere the default is all interfaces',
  ),
  tableSize: tableSize(MOST_KERNEL_SLOTS, 4093).describe(
    'Slots of a table in the kernel, in place of the tableSize at the top; prime',
  ),
  flowState: choice(['pinned', 'stateless'], 'pinned').describe(
    'pinned: a flow keeps its backend while it may. stateless: the hash alone decides, packet by packet; not with nat',
  ),
  spokes: list(cidr()).describe(
    'With next-hop: only traffic from one of these address blocks to another is balanced; empty: all that is routed',
  ),
  manageSysctls: flag(false).describe('Set the sysctls that the mode needs. false: check and report them'),
  onStop: choice(['keep', 'remove'], 'keep').describe(
    'What a stop leaves. keep: forwarding continues until haports is back, or "haports kernel flush"',
  ),
});

export type KernelInput = z.output<typeof kernel>;

export const KERNEL_DEFAULTS: KernelInput = kernel.parse({});

const capture = z.strictObject({
  udp: choice(['redirect', 'bind'], 'redirect').describe(
    'redirect: one UDP socket a frontend. bind: one a port, not captured',
  ),
  excludedPorts: portSet('22').describe(
    'Ports that HA-ports rules leave alone on every frontend. A rule may name port 22 where this key is absent, and none of these where it is there',
  ),
  fallback: choice(['none', 'bind'], 'none').describe(
    'Where capture is impossible: fail, or open a socket a port',
  ),
  port: integer(1024, 65471, 61000).describe(
    'TCP port of the socket that gets all ports; UDP sockets take as many from it as there are workers',
  ),
  block: cidr()
    .prefault('240.0.0.0/4')
    .describe('IPv4 block whose addresses stand for ports within this machine, /4 to /16: a /16 a frontend'),
});

const dataPlane = section('What moves the bytes', {
  kind: choice(['userspace', 'kernel'], 'userspace').describe(
    'What moves the bytes. userspace: this process, through sockets. kernel: nftables, and this process decides',
  ),
  workers: integer(0, 64, 1).describe(
    'Data processes beside the control process; 0: everything in one process. Several share TCP ports, and each UDP address and port belongs to one. The kernel data plane has none',
  ),
  instance: name('haports').describe(
    'What this process has in the kernel is named after it. Two on one machine need names of their own',
  ),
  capture: optional(capture).describe(
    'Steer all ports of the frontends to a few sockets (nftables) instead of one socket a port',
  ),
  kernel: optional(kernel).describe(
    'Options of the kernel data plane. Default, with kind kernel: those of its keys',
  ),
});

const flows = (preset?: number) => integer(1, 16_777_216, preset);

const limits = section('Flows over a limit are refused, counted and reported as an event', {
  tcpFlows: flows(65536).describe(
    'Established TCP flows of all data processes together; each takes two descriptors',
  ),
  udpFlows: flows(65536).describe(
    'UDP flows of all data processes together; each takes a descriptor. ' +
      'One more evicts the one without an answer whose client has been silent longest',
  ),
  embryonicFlows: flows(16384).describe(
    'TCP flows that have no backend connection yet, or wait under allDown drop',
  ),
  embryonicTimeout: duration(100, 600_000, '30s').describe(
    'How long a TCP flow may stay without a backend connection, 100ms to 10m',
  ),
  tcpFlowsPerSource: optional(flows()).describe(
    'TCP flows of one client address, in each data process. Default: no cap',
  ),
  udpFlowsPerSource: optional(flows()).describe(
    'UDP flows of one client address, in each data process. Default: no cap',
  ),
}).transform(inMs('embryonicTimeout'));

const logging = section('The log of the process itself', {
  level: choice(['trace', 'debug', 'info', 'warn', 'error'], 'info').describe('Least severity logged'),
  format: choice(['auto', 'json', 'pretty'], 'auto').describe(
    'auto: pretty on a terminal where pino-pretty is installed, else JSON',
  ),
});

const share = { error: 'a number from 0 to 1' };

const flowLog = object('A log of every flow. Off by default', {
  file: path('the path of a file').describe('File that flows are logged to, one JSON object a line'),
  sample: z
    .number(share)
    .min(0, share)
    .max(1, share)
    .prefault(1)
    .describe('Share of flows logged. Configurations and epochs are always logged'),
});

const metrics = object('Prometheus metrics and health of haports itself. Off by default', {
  listen: endpoint().describe('Address and port of /metrics, /healthz and /readyz; port 0: any free one'),
});

/** sun_path of Linux holds 108 bytes, one of them the zero at the end (unix(7)). */
const SOCKET_PATH_BYTES = 107;

function socketPath() {
  const error = `the path of a Unix socket, at most ${SOCKET_PATH_BYTES} bytes`;
  const fits = (file: string) => Buffer.byteLength(file) <= SOCKET_PATH_BYTES && !file.includes('\0');
  return path(error).refine(fits, { error });
}

const tls = z.strictObject({
  certificate: path('the path of a PEM file').describe('PEM file of the certificate and its chain'),
  key: path('the path of a PEM file').describe('PEM file of its private key, without a passphrase'),
});

/** What a Bearer header can carry: RFC 6750, 2.1. */
const TOKEN = /^(?=.{16,512}$)[A-Za-z0-9._~+/-]+=*$/;
const TOKEN_TEXT =
  'a token of 16 to 512 letters, digits and . _ ~ + / - =, such as "openssl rand -hex 32" prints';

const admin = object('The admin API and dashboard. Off by default', {
  socket: optional(socketPath()).describe(
    'Unix socket of the admin API, as seen from the working directory. Only its owner may use it (0600)',
  ),
  http: optional(endpoint()).describe(
    'Address and port of the admin API and dashboard; port 0: any free one. Off loopback with tls and token only',
  ),
  tls: optional(tls).describe('HTTPS instead of HTTP on http. Needed off loopback'),
  token: optional(text(TOKEN_TEXT, TOKEN)).describe(
    'Bearer token that requests on http must carry. Needed off loopback',
  ),
});

const events = object('Where events are reported besides the log. Off by default', {
  webhook: optional(webhook()).describe(
    'Health events are posted to this URL, one JSON object a request. Default: nowhere',
  ),
});

const shutdown = section('How haports ends', {
  deadline: duration(0, 86_400_000, '30s').describe(
    'How long flows may finish after SIGTERM or SIGINT; a second signal ends at once',
  ),
});

/** The lists of named things, and the schema of one element of each. */
export const LIST_SCHEMAS = {
  frontends: frontend,
  probes: probe,
  backendPools: backendPool,
  rules: rule,
} as const;

/** Everything but the lists. */
export const rootSchema = z.strictObject({
  $schema: optional(z.string()).describe('Where the JSON Schema is, for editors. Not read'),
  compat: choice(['none', 'azure'], 'none').describe(
    'azure: what Azure would refuse is an error, not a note',
  ),
  seed: integer(0, 4_294_967_295, 0).describe(
    'Seed of the hash. Instances that are to choose alike need the same one',
  ),
  tableSize: tableSize(655373, 65537).describe(
    'Slots of a Maglev table; prime. At least 100 for each backend spread flows evenly to about 1 %. The kernel data plane has its own',
  ),
  dataPlane,
  limits,
  logging,
  flowLog: optional(flowLog),
  metrics: optional(metrics),
  admin: optional(admin),
  events: optional(events),
  shutdown,
});

export type RootInput = z.output<typeof rootSchema>;

const { $schema, compat, seed, tableSize: slots, dataPlane: plane, ...rest } = rootSchema.shape;

/** The whole configuration, keys in the order in which they are documented. */
export const configSchema = object('Configuration of haports', {
  ...{ $schema, compat, seed, tableSize: slots, dataPlane: plane },
  frontends: z.array(frontend).describe('Addresses where flows arrive'),
  probes: list(probe).describe('Health checks'),
  backendPools: z.array(backendPool).describe('Sets of backends'),
  rules: z.array(rule).describe('What is balanced over what'),
  ...rest,
});

/**
 * The JSON Schema (2020-12) of the configuration, descriptions and defaults included: what `haports schema` prints
 * and what `config.schema.json` holds. Plain JSON, a new object on every call.
 */
export function configJsonSchema(): Record<string, unknown> {
  const { $schema: dialect, ...schema } = z.toJSONSchema(configSchema, {
    io: 'input',
    target: 'draft-2020-12',
  });
  return { $schema: dialect, title: 'haports configuration', ...schema };
}

/** Text of `config.schema.json`. */
export function configJsonSchemaText(): string {
  return `${JSON.stringify(configJsonSchema(), null, 2)}\n`;
}
