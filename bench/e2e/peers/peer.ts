import type { CorePlan } from '../core-plan.js';
import type { OwnProcess, OwnProcesses } from '../own-processes.js';
import type { PeerName } from '../options.js';

/** What a peer is to serve. Ports are kept towards the backends unless the peer cannot (see `start.ts`). */
export interface ServeSpec {
  readonly frontend: string;
  /** First and last port, both included. */
  readonly tcpPorts: readonly (readonly [first: number, last: number])[];
  readonly udpPorts: readonly (readonly [first: number, last: number])[];
  readonly backends: readonly string[];
  /** `per-flow`: every flow anywhere; `source-ip`: all flows of a client on one backend. */
  readonly distribution: 'per-flow' | 'source-ip';
  /** haports alone: rules that stand before the one that is measured. @default 0 */
  readonly otherRules?: number;
}

/** What a peer starts with. */
export interface PeerPlace {
  readonly processes: OwnProcesses;
  readonly cores: CorePlan;
  /** A folder of its own, which the bench removes. */
  readonly folder: string;
}

/** One balancer, or none, that the bench measures. */
export interface Peer {
  /** With its workers: `haports`, `haports x2`. */
  readonly label: string;
  readonly name: PeerName;
  readonly workers: number;
  /** Whether it balances UDP at all. */
  readonly udp: boolean;
  /** Its version; undefined when it is not installed. */
  version(): Promise<string | undefined>;
  /** Resolves with its process; undefined for direct. Whether it serves is for the caller to find out. */
  start(spec: ServeSpec, place: PeerPlace): Promise<OwnProcess | undefined>;
}

/** Every port of the ranges. */
export function portsOf(ranges: readonly (readonly [number, number])[]): readonly number[] {
  return ranges.flatMap(([first, last]) =>
    Array.from({ length: last - first + 1 }, (_, index) => first + index),
  );
}

export function labelOf(name: PeerName, workers: number): string {
  return workers === 1 ? name : `${name} x${workers}`;
}
