import type { IpAddress } from './address.js';
import type { CaptureOptions } from './capture.js';
import type { Cidr } from './cidr.js';
import type { KernelOptions } from './kernel-options.js';
import type { PortSet } from './port-set.js';
import type { Probe } from './probe.js';
import type { Rule } from './rule.js';

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
  /** Empty: everybody. Deny wins over allow. */
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
