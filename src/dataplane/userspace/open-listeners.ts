import { isWildcard } from '../../model/address.js';
import type { Listener, ListenerBinding } from './listener.js';
import { isPlanned, socketGroup, type ListenerPlan } from './listener-plan.js';

/** Listeners that are open, by where they listen. */
export class OpenListeners {
  readonly #groups = new Map<string, Map<number, Listener>>();

  get size(): number {
    let size = 0;
    for (const group of this.#groups.values()) size += group.size;
    return size;
  }

  /** By port, those of one group of a plan. */
  group(key: string): ReadonlyMap<number, Listener> | undefined {
    return this.#groups.get(key);
  }

  /** Each with what the plan wants there, or undefined. Listeners may be closed and deleted on the way. */
  *against(plan: ListenerPlan): Generator<readonly [Listener, ListenerBinding | undefined]> {
    for (const [key, group] of this.#groups) {
      const wanted = plan.get(key);
      for (const [port, listener] of group) yield [listener, wanted?.get(port)];
    }
  }

  add(listener: Listener): void {
    const { protocol, address, port } = listener.binding;
    const key = socketGroup(protocol, address);
    const group = this.#groups.get(key) ?? new Map<number, Listener>();
    this.#groups.set(key, group);
    group.set(port, listener);
  }

  delete({ binding: { protocol, address, port } }: Listener): void {
    this.#groups.get(socketGroup(protocol, address))?.delete(port);
  }

  clear(): void {
    this.#groups.clear();
  }

  *all(): Generator<Listener> {
    for (const group of this.#groups.values()) yield* group.values();
  }

  /** What the plan has and is not open. */
  missing(plan: ListenerPlan): ListenerBinding[] {
    const missing: ListenerBinding[] = [];
    for (const [key, group] of plan) {
      const open = this.#groups.get(key);
      for (const [port, binding] of group) if (open?.has(port) !== true) missing.push(binding);
    }
    return missing;
  }

  /** Those that are in the way of a binding, one of them or it being on all addresses, but are not in the plan. */
  obstructing({ protocol, address, port }: ListenerBinding, plan: ListenerPlan): readonly Listener[] {
    const found: Listener[] = [];
    for (const group of this.#groups.values()) {
      const listener = group.get(port);
      if (listener === undefined || isPlanned(plan, listener.binding)) continue;
      const { protocol: ownProtocol, address: ownAddress } = listener.binding;
      if (ownProtocol !== protocol || ownAddress.family !== address.family) continue;
      if (isWildcard(address) || isWildcard(ownAddress)) found.push(listener);
    }
    return found;
  }
}
