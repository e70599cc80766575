import type { Limits } from '../model/configuration.js';
import type { DropReason } from '../model/events.js';
import type { Protocol } from '../model/five-tuple.js';
import type { Flow } from './flow.js';

export interface FlowFilter {
  readonly rule?: string;
  readonly backendId?: string;
  readonly protocol?: Protocol;
}

type Budget = 'tcp' | 'udp' | 'embryonic';

/** Which budget a flow counts against: TCP that has no backend connection is embryonic. */
function budgetOf(flow: Flow): Budget {
  if (flow.tuple.protocol === 'udp') return 'udp';
  return flow.state === 'embryonic' || flow.state === 'blackholed' ? 'embryonic' : 'tcp';
}

/**
 * All live flows of a data worker: budgets, caps per source, and the index by backend. A flow is one entry, so
 * neither direction can be evicted without the other (field.md C62); nothing is ever evicted to make room.
 */
export class FlowTable {
  #limits: Limits;
  readonly #slots: (Flow | undefined)[] = [];
  readonly #freeSlots: number[] = [];
  readonly #used: Record<Budget, number> = { tcp: 0, udp: 0, embryonic: 0 };
  readonly #byBackend = new Map<string, Set<Flow>>();
  /** By client address; kept for protocols that have a cap. */
  readonly #perSource: Record<Protocol, Map<string, number>> = { tcp: new Map(), udp: new Map() };

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  get size(): number {
    return this.#used.tcp + this.#used.udp + this.#used.embryonic;
  }

  use(budget: Budget): { readonly used: number; readonly limit: number } {
    const limit = { tcp: 'tcpFlows', udp: 'udpFlows', embryonic: 'embryonicFlows' } as const;
    return { used: this.#used[budget], limit: this.#limits[limit[budget]] };
  }

  /** New limits hold for new flows; what is there stays. */
  setLimits(limits: Limits): void {
    this.#limits = limits;
  }

  /** Why a new flow of this client cannot be taken in now, or undefined if it can. */
  refusal(protocol: Protocol, sourceText: string): DropReason | undefined {
    const { tcpFlows, udpFlows, embryonicFlows } = this.#limits;
    if (protocol === 'udp') {
      if (this.#used.udp >= udpFlows) return 'table-full';
    } else {
      if (this.#used.tcp >= tcpFlows) return 'table-full';
      if (this.#used.embryonic >= embryonicFlows) return 'embryonic-full';
    }
    return this.isSourceFull(protocol, sourceText) ? 'source-cap' : undefined;
  }

  /** Whether this client address is at its cap. */
  isSourceFull(protocol: Protocol, sourceText: string): boolean {
    const cap = this.#sourceCap(protocol);
    return cap !== undefined && (this.#perSource[protocol].get(sourceText) ?? 0) >= cap;
  }

  add(flow: Flow): void {
    flow.slot = this.#freeSlots.pop() ?? this.#slots.length;
    this.#slots[flow.slot] = flow;
    this.#used[budgetOf(flow)]++;
    this.#countSource(flow, 1);
    this.#index(flow);
  }

  remove(flow: Flow): void {
    if (flow.slot < 0) return;
    this.#slots[flow.slot] = undefined;
    this.#freeSlots.push(flow.slot);
    flow.slot = -1;
    this.#used[budgetOf(flow)]--;
    this.#countSource(flow, -1);
    this.#unindex(flow);
  }

  /** Runs a change of state, placement or source address, keeping budgets and indexes right. */
  change(flow: Flow, mutate: (flow: Flow) => void): void {
    if (flow.slot < 0) {
      mutate(flow);
      return;
    }
    this.#used[budgetOf(flow)]--;
    this.#countSource(flow, -1);
    this.#unindex(flow);
    mutate(flow);
    this.#used[budgetOf(flow)]++;
    this.#countSource(flow, 1);
    this.#index(flow);
  }

  /** Flows on a backend, as they are now: safe to end them on the way. */
  flowsOn(backendId: string): readonly Flow[] {
    const flows = this.#byBackend.get(backendId);
    return flows === undefined ? [] : [...flows];
  }

  /** Ids of all backends that have flows, removed ones among them. */
  backendIds(): readonly string[] {
    return [...this.#byBackend.keys()];
  }

  *all(): Generator<Flow> {
    for (const flow of this.#slots) if (flow !== undefined) yield flow;
  }

  /** Up to `limit` matching flows from slot `after` on, and where to go on. */
  page(
    filter: FlowFilter,
    after: number,
    limit: number,
  ): { readonly flows: readonly Flow[]; readonly next?: number } {
    const flows: Flow[] = [];
    for (let slot = after; slot < this.#slots.length; slot++) {
      const flow = this.#slots[slot];
      if (flow === undefined || !matches(flow, filter)) continue;
      if (flows.length === limit) return { flows, next: slot };
      flows.push(flow);
    }
    return { flows };
  }

  #sourceCap(protocol: Protocol): number | undefined {
    return protocol === 'tcp' ? this.#limits.tcpFlowsPerSource : this.#limits.udpFlowsPerSource;
  }

  #countSource(flow: Flow, step: 1 | -1): void {
    const { protocol, source } = flow.tuple;
    const counts = this.#perSource[protocol];
    const count = (counts.get(source.text) ?? 0) + step;
    if (count <= 0) counts.delete(source.text);
    else counts.set(source.text, count);
  }

  #index(flow: Flow): void {
    const id = flow.placement?.backendId;
    if (id === undefined) return;
    const flows = this.#byBackend.get(id);
    if (flows === undefined) this.#byBackend.set(id, new Set([flow]));
    else flows.add(flow);
  }

  #unindex(flow: Flow): void {
    const id = flow.placement?.backendId;
    if (id === undefined) return;
    const flows = this.#byBackend.get(id);
    flows?.delete(flow);
    if (flows?.size === 0) this.#byBackend.delete(id);
  }
}

function matches(flow: Flow, filter: FlowFilter): boolean {
  if (filter.protocol !== undefined && flow.tuple.protocol !== filter.protocol) return false;
  if (filter.rule !== undefined && flow.rule.name !== filter.rule) return false;
  return filter.backendId === undefined || flow.placement?.backendId === filter.backendId;
}
