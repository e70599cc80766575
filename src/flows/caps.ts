import type { Protocol } from '../model/address.js';
import type { BackendPool, Configuration } from '../model/configuration.js';

/*
 * Limits hold over all data workers together: the control process gives each worker shares of them.
 */

/** How much of a cap a worker uses, and whether it has refused a flow for want of a larger share since last asked. */
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

/** Which backends are at their connection cap. Only TCP flows count, as operators of HAProxy's maxconn expect. */
export class BackendCaps {
  readonly #caps = new Map<string, number>();
  readonly #counts = new Map<string, number>();
  readonly #full = new Set<string>();
  #askedWhileFull = false;

  /** `shareOf` says what part of a backend's cap is this worker's. */
  setCaps(pools: readonly BackendPool[], shareOf: (backendId: string, cap: number) => number): void {
    this.#caps.clear();
    this.#full.clear();
    for (const { backends } of pools) {
      for (const { id, maxConnections } of backends) {
        if (maxConnections === undefined) continue;
        this.#caps.set(id, shareOf(id, maxConnections));
        this.#judge(id, this.#counts.get(id) ?? 0);
      }
    }
  }

  /** By id of each backend that has a cap. Asking forgets who was wanting. */
  uses(): Map<string, CapUse> {
    const asked = this.#askedWhileFull;
    this.#askedWhileFull = false;
    return new Map(
      [...this.#caps.keys()].map((id) => [
        id,
        { used: this.#counts.get(id) ?? 0, wanting: asked && this.#full.has(id) },
      ]),
    );
  }

  taken(backendId: string, protocol: Protocol): void {
    if (protocol === 'tcp') this.#count(backendId, 1);
  }

  freed(backendId: string, protocol: Protocol): void {
    if (protocol === 'tcp') this.#count(backendId, -1);
  }

  /** Backends a new TCP flow must not go to: those at their cap, and those it has tried. Nothing is copied if one is empty. */
  excluded(tried: ReadonlySet<string>): ReadonlySet<string> {
    if (this.#full.size === 0) return tried;
    this.#askedWhileFull = true;
    return tried.size === 0 ? this.#full : new Set([...this.#full, ...tried]);
  }

  #count(backendId: string, step: 1 | -1): void {
    const count = (this.#counts.get(backendId) ?? 0) + step;
    if (count <= 0) this.#counts.delete(backendId);
    else this.#counts.set(backendId, count);
    this.#judge(backendId, count);
  }

  #judge(backendId: string, count: number): void {
    const cap = this.#caps.get(backendId);
    if (cap !== undefined && count >= cap) this.#full.add(backendId);
    else this.#full.delete(backendId);
  }
}

/** A worker's shares of the caps that hold over all workers; one worker alone has them whole. */
export class WorkerCaps {
  readonly #worker: number;
  readonly #workers: number;
  readonly #shares = new Map<string, CapShare>();

  constructor({ worker, workers }: { readonly worker: number; readonly workers: number }) {
    this.#worker = worker;
    this.#workers = workers;
  }

  allow(shares: CapShares): void {
    for (const [name, share] of shares) this.#shares.set(name, share);
  }

  /** What this worker may use of a cap. After a change of the cap never more than before, until a new share comes. */
  shareOf(name: string, cap: number): number {
    if (this.#workers === 1) return cap;
    const first = firstShare(cap, this.#worker, this.#workers);
    const given = this.#shares.get(name);
    if (given === undefined) return first;
    return given.cap === cap ? given.share : Math.min(given.share, first);
  }
}
