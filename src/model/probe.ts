import type { IpAddress } from './address.js';

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
  readonly weight?: number;
  /** The probe never left this process (no descriptors, no memory): says nothing about the backend and is not counted. */
  readonly inconclusive?: true;
}

/** A change of state, kept in the probe history. */
export interface HealthTransition {
  /** Milliseconds since the epoch: for people, never for arithmetic. */
  readonly atMs: number;
  readonly from: HealthState;
  readonly to: HealthState;
  readonly evidence: string;
}
