import type { Cidr, IpAddress, Protocol } from './address.js';
import type { CaptureOptions } from './capture.js';
import { BalancerError } from './errors.js';
import type { PortSet } from './ports.js';

/** The operator's switch on a backend, over the probe's verdict (Azure: admin state). */
export type AdminState = 'none' | 'up' | 'down';

export interface Backend {
  /** Identity: pool name + `/` + canonical address. A change of address is another backend. */
  readonly id: string;
  /** A label, unique in the pool; the address where none was given. */
  readonly name: string;
  readonly address: IpAddress;
  /** 0-256; 0 gets no new flows. */
  readonly weight: number;
  /** Lower serves first. */
  readonly priority: number;
  readonly adminState: AdminState;
  /** TCP flows at a time over all workers; undefined: no cap. */
  readonly maxConnections?: number;
  /** Frontend name -> the alias this backend terminates it on (floating IP, userspace plane). */
  readonly floatingAddresses: Readonly<Record<string, IpAddress>>;
}

export interface BackendPool {
  readonly name: string;
  readonly backends: readonly Backend[];
  /** Eligible members a priority group needs to serve. @default 1 */
  readonly minimumHealthy: number;
  /** Local addresses of upstream sockets; empty: the kernel's choice. */
  readonly sourceAddresses: readonly IpAddress[];
  /** Local ports of upstream sockets where haports chooses them. @default 32768-60999 */
  readonly sourcePorts: PortSet;
  /** PROXY protocol header sent on each TCP flow. @default 'none' */
  readonly proxyProtocol: 'none' | 'v1' | 'v2';
  /** For one attempt. @default 5000 */
  readonly connectTimeoutMs: number;
  /** Backends tried before a new TCP flow is given up. @default 3 */
  readonly connectAttempts: number;
  /** Time in which a backend that joins others grows to its full weight; undefined: at once. */
  readonly slowStartMs?: number;
}

/** PROXY protocol expected on every TCP flow of a frontend. */
export interface ProxyProtocolIn {
  readonly accept: 'v1' | 'v2' | 'any';
  /** Only these may send a header, and they must. Others are served as they are. */
  readonly trustedSources: readonly Cidr[];
  /** @default 3000 */
  readonly headerTimeoutMs: number;
}

export interface Frontend {
  readonly name: string;
  readonly address: IpAddress;
  readonly proxyProtocol?: ProxyProtocolIn;
  /** Empty: all clients. `deny` overrides `allow`. */
  readonly allow: readonly Cidr[];
  readonly deny: readonly Cidr[];
}

export interface Limits {
  /** Established TCP flows of the whole process. */
  readonly tcpFlows: number;
  readonly udpFlows: number;
  /** TCP flows whose upstream is not connected yet, or that are held under `allDown: drop`. */
  readonly embryonicFlows: number;
  /** How long a flow may stay embryonic. */
  readonly embryonicTimeoutMs: number;
  /** Flows of one client address, all rules; undefined: no cap. */
  readonly tcpFlowsPerSource?: number;
  readonly udpFlowsPerSource?: number;
}

export interface ListenAddress {
  readonly address: IpAddress;
  readonly port: number;
}

/** Where the admin API can be reached. */
export interface AdminOptions {
  /** Path of a Unix socket. */
  readonly socket?: string;
  readonly http?: ListenAddress;
  /** PEM texts. Present wherever `http` is not loopback. */
  readonly tls?: { readonly certificate: string; readonly key: string };
  /** Bearer token for `http`. Present wherever `http` is not loopback. */
  readonly token?: string;
}

export interface FlowLogOptions {
  readonly file: string;
  /** Share of flows logged, 0 to 1. Epochs are always logged. @default 1 */
  readonly sample: number;
}

export interface LoggingOptions {
  readonly level: 'trace' | 'debug' | 'info' | 'warn' | 'error';
  /** `auto`: pretty on a terminal where pino-pretty is installed, else JSON. */
  readonly format: 'auto' | 'json' | 'pretty';
}

/** The resolved, frozen configuration: every default filled in, every name checked to exist. Plain data. */
export interface Configuration {
  /** SHA-256 of the canonical JSON of what the operator wrote, hex. */
  readonly digest: string;
  readonly compat: 'none' | 'azure';
  readonly seed: number;
  /** Slots of a Maglev table; prime. */
  readonly tableSize: number;
  readonly workers: number;
  /** What it has in the kernel is named after it. @default 'haports' */
  readonly instance: string;
  /** Present: ports are captured, not bound. */
  readonly capture?: CaptureOptions;
  /** Present: the kernel moves the packets, not this process. */
  readonly kernel?: KernelOptions;
  readonly frontends: readonly Frontend[];
  readonly probes: readonly Probe[];
  readonly backendPools: readonly BackendPool[];
  readonly rules: readonly Rule[];
  readonly limits: Limits;
  readonly logging: LoggingOptions;
  readonly flowLog?: FlowLogOptions;
  readonly metrics?: ListenAddress;
  readonly admin?: AdminOptions;
  /** Where health events are posted. */
  readonly webhook?: { readonly url: string };
  /** How long flows may finish after SIGTERM. @default 30000 */
  readonly shutdownDeadlineMs: number;
}

/**
 * Which fields are hashed. `five-tuple`: both addresses, both ports, protocol. `source-ip-protocol`: both
 * addresses and protocol. `source-ip`: both addresses. (Azure: Default, SourceIPProtocol, SourceIP.)
 */
export type Distribution = 'five-tuple' | 'source-ip-protocol' | 'source-ip';

/** What ends a backend's hold on its flows. */
export type FlowTrigger = (typeof FLOW_TRIGGERS)[number];

export const FLOW_TRIGGERS = ['probe-down', 'admin-down', 'removed', 'drain-deadline', 'idle'] as const;

/**
 * What then happens to a flow. `persist`: it stays where it is. `rebalance`: UDP moves with its next datagram;
 * a spliced TCP stream cannot be moved and is reset. `reset`: TCP gets RST on both ends, a UDP flow ends and its
 * next datagram starts a new one. `drop`: the flow is dropped silently: its packets are discarded
 * until the client gives up.
 */
export type FlowAction = 'persist' | 'rebalance' | 'reset' | 'drop';

export type FlowPolicy = Readonly<Record<FlowTrigger, FlowActions>>;

type FlowActions = Readonly<Record<Protocol, FlowAction>>;

/** What a new flow meets when no backend is eligible. `drop` over TCP: accepted, never answered, closed later. */
export type AllDownAction = 'reset' | 'drop' | 'fail-open';

/** A value and the place it came from, so that `explain` can say why a timeout is what it is. */
export interface Sourced<T> {
  readonly value: T;
  readonly origin: 'default' | 'rule' | 'frontend';
}

/**
 * Where a backend may answer from (RFC 4787, section 5, says which filtering that is). `endpoint`: from the port it was
 * asked on, address and port-dependent filtering. `address`: from any of its ports, address-dependent filtering.
 */
export type AnswersFrom = 'endpoint' | 'address';

export interface UdpOptions {
  /** Balance each datagram by itself (one-way protocols: syslog, statsd). Replies are not carried. */
  readonly perPacket: boolean;
  /** Datagrams a backend answers per request; the flow ends when they have come. 0: replies are not carried. */
  readonly expectedResponses?: number;
  /** Absent: `endpoint`. */
  readonly answersFrom?: AnswersFrom;
}

export interface TcpOptions {
  /** TCP_NODELAY on both sockets. @default true */
  readonly noDelay: boolean;
  /** Idle time before the first TCP keep-alive on both sockets, in ms; undefined: off. */
  readonly keepAliveMs?: number;
}

export interface Rule {
  readonly name: string;
  readonly frontend: Frontend;
  readonly pool: BackendPool;
  readonly probe?: Probe;
  readonly protocols: readonly Protocol[];
  /** An HA-ports rule: every port, port kept. It yields to any rule that names the port. */
  readonly haPorts: boolean;
  /** The ports listened on, after `listenPorts` and less haports' own ports. */
  readonly ports: PortSet;
  /** Added to the frontend port to get the backend port; 0 keeps it (443 -> 6443 is 6000). */
  readonly portOffset: number;
  readonly floatingIp: boolean;
  readonly distribution: Distribution;
  readonly symmetric: boolean;
  readonly idleTimeoutMs: Readonly<Record<Protocol, Sourced<number>>>;
  /** RST to both ends when a TCP flow ends by idle timeout; otherwise both are closed with FIN. */
  readonly tcpReset: boolean;
  readonly flowPolicy: FlowPolicy;
  readonly allDown: AllDownAction;
  readonly tcp: TcpOptions;
  readonly udp: UdpOptions;
}

/** A rule as text has it: with the names of what it is linked to. */
export type NamedRule = Omit<Rule, 'frontend' | 'pool' | 'probe'> & {
  readonly frontend: string;
  readonly backendPool: string;
  readonly probe?: string;
};

/** Looks up what rules name. Throws TypeError on a name that nothing has. */
export function linkRules(
  rules: readonly NamedRule[],
  lists: Pick<Configuration, 'frontends' | 'backendPools' | 'probes'>,
): readonly Rule[] {
  const frontends = finder(lists.frontends);
  const pools = finder(lists.backendPools);
  const probes = finder(lists.probes);
  return rules.map(({ frontend, backendPool, probe, ...rest }) => ({
    ...rest,
    frontend: frontends(frontend, rest),
    pool: pools(backendPool, rest),
    ...(probe === undefined ? {} : { probe: probes(probe, rest) }),
  }));
}

function finder<T extends { readonly name: string }>(
  items: readonly T[],
): (name: string, rule: Pick<Rule, 'name'>) => T {
  const byName = new Map(items.map((item) => [item.name, item]));
  return (name, rule) => {
    const found = byName.get(name);
    if (found === undefined) throw new TypeError(`Rule "${rule.name}" names "${name}", which does not exist`);
    return found;
  };
}

export type HealthState = 'unknown' | 'up' | 'down';

/** Inclusive range of HTTP status codes. */
export interface StatusRange {
  readonly first: number;
  readonly last: number;
}

interface ProbeBase {
  readonly name: string;
  readonly port: number;
  readonly intervalMs: number;
  readonly timeoutMs: number;
  /** Consecutive successes that bring a backend up. */
  readonly upThreshold: number;
  /** Consecutive failures that take a backend down. */
  readonly downThreshold: number;
  readonly sourceAddress?: IpAddress;
  /** Sends a PROXY header (LOCAL) first. @default 'none' */
  readonly sendProxy: 'none' | 'v1' | 'v2';
  readonly flapDamping?: FlapDamping;
}

/** After `transitions` state changes within `windowMs`, the next up is held back for `holdMs`. */
export interface FlapDamping {
  readonly transitions: number;
  readonly windowMs: number;
  readonly holdMs: number;
}

export interface TcpProbe extends ProbeBase {
  readonly protocol: 'tcp';
}

export interface HttpProbe extends ProbeBase {
  readonly protocol: 'http' | 'https';
  readonly path: string;
  /** Host header; default: the backend's address. */
  readonly host?: string;
  /** TLS server name; default: `host` where it is a name. https only. */
  readonly serverName?: string;
  readonly expectStatus: readonly StatusRange[];
  /** Text that the body (its first 64 KiB) must contain. */
  readonly expectBody?: string;
  /** PEM text of the CA to trust; https only. */
  readonly ca?: string;
  /** Take any certificate; https only. */
  readonly skipVerify: boolean;
  /** Response header that carries the backend's weight, 0-256 (GCP: X-Load-Balancing-Endpoint-Weight). */
  readonly weightFromProbeHeader?: string;
  /** Azure: an explicit answer flips the state at once and only missing answers are counted. */
  readonly explicitAnswerFlips: boolean;
}

export type Probe = TcpProbe | HttpProbe;

/** What one probe of one backend found. */
export interface ProbeResult {
  readonly verdict: 'success' | 'failure';
  /** `explicit`: the backend answered and the answer decides. `silence`: nothing (useful) came. */
  readonly answer: 'explicit' | 'silence';
  /** For people: `HTTP 503`, `ECONNREFUSED`, `no answer in 5s`. */
  readonly evidence: string;
  readonly durationMs: number;
  /** From `weightFromProbeHeader`, if the header was there and valid. */
  readonly weight?: number | undefined;
  /** The probe never left this machine, and why: says nothing about the backend and is not counted. */
  readonly inconclusive?: LocalCause;
}

/**
 * Why a probe could not leave this machine. Label values of a metric. `ports`: no local port is free. `source-address`:
 * the probe's source address is not of this machine. `forbidden`: by a firewall or another policy of this machine.
 */
export type LocalCause = 'descriptors' | 'memory' | 'ports' | 'source-address' | 'forbidden';

/** A change of state, kept in the probe history. */
export interface HealthTransition {
  /** Milliseconds since the epoch: for people, never for arithmetic. */
  readonly atMs: number;
  readonly from: HealthState;
  readonly to: HealthState;
  readonly evidence: string;
}

export type FlowPolicyPreset = 'azure' | 'aws-gwlb' | 'gcp' | 'firewall';

const MOVE_UDP: FlowActions = { tcp: 'reset', udp: 'rebalance' };

/**
 * What becomes of flows whose backend is lost, whichever way. Drain deadlines and idleness are haports' own: at a deadline
 * TCP is reset and UDP moves, and an idle flow ends (TCP by RST to both ends, UDP silently).
 */
function whenLost(actions: FlowActions): FlowPolicy {
  const lost = { 'probe-down': actions, 'admin-down': actions, removed: actions };
  return { ...lost, 'drain-deadline': MOVE_UDP, idle: { tcp: 'reset', udp: 'reset' } };
}

/** What happens to flows when their backend goes, by the habits of the balancers people know. */
export const FLOW_POLICY_PRESETS: Readonly<Record<FlowPolicyPreset, FlowPolicy>> = {
  /**
   * The default. One member down, switched down or removed: established TCP stays on it, UDP moves to a healthy one.
   * Source: Azure Load Balancer health probes ("Probe down behavior") and "Administrative state".
   */
  azure: whenLost({ tcp: 'persist', udp: 'rebalance' }),
  /**
   * Flows of both protocols stay, dead target or not, deregistered or not, until they end by themselves. Source: AWS
   * Gateway Load Balancer target group attribute `target_failover`, its default `no_rebalance`.
   */
  'aws-gwlb': whenLost({ tcp: 'persist', udp: 'persist' }),
  /**
   * Connection-oriented protocols stay, others move. Source: Google Cloud internal passthrough Network Load Balancer,
   * `connectionPersistenceOnUnhealthyBackends: DEFAULT_FOR_PROTOCOL`.
   */
  gcp: whenLost({ tcp: 'persist', udp: 'rebalance' }),
  /**
   * For stateful appliances: a flow on a dead one is of no use, so TCP clients hear of it at once and can reconnect.
   * Source: what users of gateway balancers asked for (aws/aws-networking-best-practices#165), and the TCP reset
   * attributes AWS Gateway Load Balancer got for it.
   */
  firewall: whenLost(MOVE_UDP),
};

/**
 * How packets reach a backend. `nat`: addressed to the backend itself, by conntrack. `floating-l2`: as they are, to the
 * backend's MAC address, from the ingress of an interface. `floating-routed`: as they are, by policy routing.
 * `next-hop`: routed traffic for destinations beyond, through one of the backends.
 */
export type KernelMode = 'nat' | 'floating-l2' | 'floating-routed' | 'next-hop';

/** Options of the kernel data plane. */
export interface KernelOptions {
  /** @default 'nat' */
  readonly mode: KernelMode;
  /** With `nat`: whether answers are routed back through this machine, or come back since it hides the client. @default 'route' */
  readonly returnPath: 'route' | 'masquerade';
  /** Where flows arrive; needed for `floating-l2`. */
  readonly interface?: string;
  /** `pinned`: a flow keeps its backend while it may. `stateless`: the hash alone decides, packet by packet. @default 'pinned' */
  readonly flowState: 'pinned' | 'stateless';
  /** With `next-hop`: only traffic from one of these to another; empty: all routed traffic. */
  readonly spokes: readonly Cidr[];
  /** What a stop leaves: `keep`: forwarding continues without this process, until it is back or the tables are flushed. @default 'keep' */
  readonly onStop: 'keep' | 'remove';
  /** Whether sysctls that the mode needs are set. @default false: they are checked */
  readonly manageSysctls: boolean;
}

/** Whether a Maglev table may have `size` slots: then every backend's stride visits every slot. */
export function isPrime(size: number): boolean {
  if (!Number.isSafeInteger(size) || size < 2) return false;
  for (let divisor = 2; divisor * divisor <= size; divisor++) if (size % divisor === 0) return false;
  return true;
}

interface Named {
  readonly pool: BackendPool;
  readonly backend: Backend;
}

/** By id or `pool/name`. Throws `LB_UNKNOWN_BACKEND`. */
export function findBackend({ backendPools }: Configuration, name: string): Named {
  for (const pool of backendPools) {
    for (const backend of pool.backends) {
      if (backend.id === name || `${pool.name}/${backend.name}` === name) return { pool, backend };
    }
  }
  throw new BalancerError(`There is no backend "${name}": it must be pool/name or pool/address`, {
    code: 'LB_UNKNOWN_BACKEND',
    source: 'usage',
  });
}
