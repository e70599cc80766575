import type { Protocol } from '../../model/address.js';
import type { BackendPool } from '../../model/configuration.js';
import {
  firstShare,
  type CapShare,
  type CapShares,
  type CapUse,
  type LatencyHistogram,
} from '../contract.js';

const NONE: ReadonlySet<string> = new Set();

export type ShareOf = (backendId: string, cap: number) => number;

/** Which backends are at their connection cap. Only TCP flows count, as operators of HAProxy's maxconn expect. */
export class BackendCaps {
  readonly #caps = new Map<string, number>();
  readonly #counts = new Map<string, number>();
  readonly #full = new Set<string>();
  #askedWhileFull = false;

  /** `shareOf` says what part of a backend's cap is this worker's. @default all of it */
  setCaps(pools: readonly BackendPool[], shareOf: ShareOf = (_id, cap) => cap): void {
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

  /** Backends a new flow must not go to: those at their cap, and those it has tried. Nothing is copied if one is empty. */
  excluded(protocol: Protocol, tried: ReadonlySet<string> = NONE): ReadonlySet<string> {
    if (protocol === 'udp' || this.#full.size === 0) return tried;
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

/** Half a millisecond (same rack) to five seconds (the default connect timeout). */
const BOUNDS_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5];

interface Tally {
  readonly counts: number[];
  count: number;
  sumSeconds: number;
}

/** Time from the first connect attempt of a TCP flow to its upstream being connected, by backend. */
export class ConnectLatency {
  readonly #tallies = new Map<string, Tally>();

  observe(backendId: string, seconds: number): void {
    let tally = this.#tallies.get(backendId);
    if (tally === undefined) {
      tally = { counts: BOUNDS_SECONDS.map(() => 0), count: 0, sumSeconds: 0 };
      this.#tallies.set(backendId, tally);
    }
    tally.count++;
    tally.sumSeconds += seconds;
    const bucket = BOUNDS_SECONDS.findIndex((bound) => seconds <= bound);
    if (bucket >= 0) tally.counts[bucket] = (tally.counts[bucket] ?? 0) + 1;
  }

  snapshot(): Record<string, LatencyHistogram> {
    const histograms: Record<string, LatencyHistogram> = {};
    for (const [backendId, { counts, count, sumSeconds }] of this.#tallies) {
      let below = 0;
      const cumulative = counts.map((inBucket) => (below += inBucket));
      histograms[backendId] = { boundsSeconds: BOUNDS_SECONDS, counts: cumulative, count, sumSeconds };
    }
    return histograms;
  }
}
