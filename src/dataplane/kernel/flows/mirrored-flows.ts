import type { FlowQuery } from '../../data-plane.js';
import { matchesQuery, type MirroredFlow } from './mirrored-flow.js';

/** Flows by key, and in slots, so that they can be read page by page while others come and go. */
export class MirroredFlows {
  readonly #byKey = new Map<number, MirroredFlow>();
  readonly #slots: (MirroredFlow | undefined)[] = [];
  readonly #freeSlots: number[] = [];

  get size(): number {
    return this.#byKey.size;
  }

  get(key: number): MirroredFlow | undefined {
    return this.#byKey.get(key);
  }

  add(flow: MirroredFlow): void {
    flow.slot = this.#freeSlots.pop() ?? this.#slots.length;
    this.#slots[flow.slot] = flow;
    this.#byKey.set(flow.key, flow);
  }

  remove(flow: MirroredFlow): void {
    this.#byKey.delete(flow.key);
    this.#slots[flow.slot] = undefined;
    this.#freeSlots.push(flow.slot);
  }

  all(): Iterable<MirroredFlow> {
    return this.#byKey.values();
  }

  /** Those that match, and where to go on. */
  page(query: FlowQuery): { readonly flows: readonly MirroredFlow[]; readonly next?: number } {
    const flows: MirroredFlow[] = [];
    for (let slot = query.after ?? 0; slot < this.#slots.length; slot++) {
      const flow = this.#slots[slot];
      if (flow === undefined || !matchesQuery(flow, query)) continue;
      if (flows.length === query.limit) return { flows, next: slot };
      flows.push(flow);
    }
    return { flows };
  }
}
