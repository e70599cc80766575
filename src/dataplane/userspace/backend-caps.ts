import type { BackendPool } from '../../model/configuration.js';
import type { Protocol } from '../../model/five-tuple.js';
import type { CapUse } from '../worker-plane.js';

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
