import type { Configuration } from '../model/configuration.js';
import type { ForwardingState } from '../model/forwarding-state.js';
import type { HandOverPlane } from './hand-over.js';

/*
 * What one of several data workers and its control process say to each other beyond HandOverPlane, so that several
 * workers keep within the same caps and sockets as one.
 */

/** How much of a cap a worker uses, and whether it has refused somebody for want of a larger share since last asked. */
export interface CapUse {
  readonly used: number;
  readonly wanting: boolean;
}

/** By the cap's name, see capsOf. */
export type CapUses = ReadonlyMap<string, CapUse>;

/** What a worker may use of a cap. A share of another cap than the present one is out of date. */
export interface CapShare {
  readonly cap: number;
  readonly share: number;
}

export type CapShares = ReadonlyMap<string, CapShare>;

/** One worker's part of a plane. */
export interface WorkerPlane extends HandOverPlane {
  /**
   * Opens what the state's configuration adds to the present one, so that the `apply` of it that follows can hardly
   * fail. Nobody is served there yet. Rejects as `apply` does, and nothing has changed. A `prepare` or `apply` of another
   * configuration, the present one too, undoes it.
   */
  prepare(state: ForwardingState): Promise<void>;
  /** Replaces the shares that are named, from now on; what is above them stays. */
  allow(shares: CapShares): void;
  /** Of every cap that is shared among workers. */
  capUses(): CapUses;
}

/** Asked before a worker listens on a TCP port that it shares with the other workers. */
export interface PortGate {
  /** Resolves with undefined if it may, else with why not: `EADDRINUSE`, `EACCES` ... A claim stands until its release. */
  claim(address: string, port: number): Promise<string | undefined>;
  /** After the listening socket is closed. */
  release(address: string, port: number): void;
}

/** Name of a backend's `maxConnections` among the caps. No other cap's name has a space. */
export function backendCapName(backendId: string): string {
  return `backend ${backendId}`;
}

/** The caps that hold over all workers together: `tcp`, `udp`, `embryonic`, and one a backend that has a cap. */
export function capsOf({ limits, backendPools }: Configuration): ReadonlyMap<string, number> {
  const caps = new Map([
    ['tcp', limits.tcpFlows],
    ['udp', limits.udpFlows],
    ['embryonic', limits.embryonicFlows],
  ]);
  for (const { backends } of backendPools) {
    for (const { id, maxConnections } of backends) {
      if (maxConnections !== undefined) caps.set(backendCapName(id), maxConnections);
    }
  }
  return caps;
}

/** A worker's share before anything is known of who needs how much: equal parts, the first workers get what is over. */
export function firstShare(cap: number, worker: number, workers: number): number {
  return Math.floor(cap / workers) + (worker < cap % workers ? 1 : 0);
}
