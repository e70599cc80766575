import type { BackendOverride } from '../model/forwarding.js';

const NONE: BackendOverride = {};

/**
 * What operators have set on backends while the process runs. Kept by backend identity, so that a reload loses nothing
 * of backends that stay.
 */
export class Overrides {
  readonly #byId = new Map<string, BackendOverride>();

  of(id: string): BackendOverride {
    return this.#byId.get(id) ?? NONE;
  }

  /** A field that is undefined becomes as configured again; fields that are absent stay. */
  set(id: string, change: BackendOverride): void {
    const fields = Object.entries<unknown>({ ...this.of(id), ...change }).filter(
      ([, value]) => value !== undefined,
    );
    if (fields.length === 0) this.#byId.delete(id);
    else this.#byId.set(id, Object.fromEntries(fields));
  }

  /** All that is set, for another process. Plain data. */
  record(): ReadonlyMap<string, BackendOverride> {
    return new Map(this.#byId);
  }

  /** What another process had set, in place of what is set here. */
  restore(record: ReadonlyMap<string, BackendOverride>): void {
    this.#byId.clear();
    for (const [id, override] of record) this.#byId.set(id, override);
  }

  /** Forgets what was set on backends that are not among these, and returns their ids. */
  retain(ids: ReadonlySet<string>): readonly string[] {
    const lost = [...this.#byId.keys()].filter((id) => !ids.has(id));
    for (const id of lost) this.#byId.delete(id);
    return lost;
  }
}
