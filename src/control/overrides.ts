import type { AdminState, Backend } from '../model/configuration.js';

/** All that is set, for another process. Plain data. */
export interface OperatorRecord {
  readonly overrides: ReadonlyMap<string, { readonly adminState?: AdminState; readonly weight?: number }>;
  readonly drains: ReadonlyMap<string, DrainStage>;
}

interface Override {
  readonly adminState?: AdminState;
  readonly weight?: number;
}

/** How far a drain has gone, as far as forwarding is concerned. */
export type DrainStage = { readonly ending: false } | { readonly ending: true; readonly spreadMs: number };

/**
 * What operators have set on backends while the process runs, over the configuration. Kept by backend identity, so
 * that a reload loses nothing of backends that stay.
 */
export class OperatorState {
  readonly #overrides = new Map<string, Override>();
  readonly #drains = new Map<string, DrainStage>();

  adminState(backend: Backend): AdminState {
    return this.#overrides.get(backend.id)?.adminState ?? backend.adminState;
  }

  /** Undefined: nobody has set one. */
  adminStateOverride(id: string): AdminState | undefined {
    return this.#overrides.get(id)?.adminState;
  }

  /** Undefined: nobody has set one. */
  weight({ id }: Pick<Backend, 'id'>): number | undefined {
    return this.#overrides.get(id)?.weight;
  }

  drainStage(id: string): DrainStage | undefined {
    return this.#drains.get(id);
  }

  /** `configured` takes the override away. */
  setAdminState(id: string, state: AdminState | 'configured'): void {
    const { weight } = this.#overrides.get(id) ?? {};
    this.#set(id, {
      ...(weight === undefined ? {} : { weight }),
      ...(state === 'configured' ? {} : { adminState: state }),
    });
  }

  /** 0-256; `configured` takes the override away. */
  setWeight(id: string, weight: number | 'configured'): void {
    const { adminState } = this.#overrides.get(id) ?? {};
    this.#set(id, {
      ...(adminState === undefined ? {} : { adminState }),
      ...(weight === 'configured' ? {} : { weight }),
    });
  }

  /** Undefined: the drain is over. */
  setDrainStage(id: string, stage: DrainStage | undefined): void {
    if (stage === undefined) this.#drains.delete(id);
    else this.#drains.set(id, stage);
  }

  record(): OperatorRecord {
    return { overrides: new Map(this.#overrides), drains: new Map(this.#drains) };
  }

  /** What another process had set, in place of what is set here. */
  restore({ overrides, drains }: OperatorRecord): void {
    this.#overrides.clear();
    this.#drains.clear();
    for (const [id, override] of overrides) this.#set(id, override);
    for (const [id, stage] of drains) this.#drains.set(id, stage);
  }

  /** Backends that something is set on. */
  ids(): readonly string[] {
    return [...new Set([...this.#overrides.keys(), ...this.#drains.keys()])];
  }

  get adminStateCount(): number {
    return [...this.#overrides.values()].filter(({ adminState }) => adminState !== undefined).length;
  }

  /** Forgets what was set on backends that are not among these, and says whose it was. */
  retain(ids: ReadonlySet<string>): readonly string[] {
    const lost = this.ids().filter((id) => !ids.has(id));
    for (const id of lost) {
      this.#overrides.delete(id);
      this.#drains.delete(id);
    }
    return lost;
  }

  #set(id: string, override: Override): void {
    if (Object.keys(override).length === 0) this.#overrides.delete(id);
    else this.#overrides.set(id, override);
  }
}
