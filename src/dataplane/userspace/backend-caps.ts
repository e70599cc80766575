import type { BackendPool } from '../../model/configuration.js';
import type { Protocol } from '../../model/five-tuple.js';

const NONE: ReadonlySet<string> = new Set();

/** Which backends are at their connection cap. Only TCP flows count, as operators of HAProxy's maxconn expect. */
export class BackendCaps {
  readonly #caps = new Map<string, number>();
  readonly #counts = new Map<string, number>();
  readonly #full = new Set<string>();

  setCaps(pools: readonly BackendPool[]): void {
    this.#caps.clear();
    for (const { backends } of pools) {
      for (const { id, maxConnections } of backends) {
        if (maxConnections !== undefined) this.#caps.set(id, maxConnections);
      }
    }
    this.#full.clear();
    for (const [id, count] of this.#counts) this.#judge(id, count);
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
