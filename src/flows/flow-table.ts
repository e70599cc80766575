import { PROTOCOLS, type FiveTuple, type Protocol } from '../model/address.js';
import type { Limits, Rule } from '../model/configuration.js';
import type { DropReason } from '../model/events.js';
import type { FlowFilter } from '../model/flow.js';
import type { Flow } from './flow.js';

type Budget = 'tcp' | 'udp' | 'embryonic';

/** Which budget a flow counts against: TCP that has no backend connection is embryonic. */
function budgetOf(flow: Flow): Budget {
  if (flow.tuple.protocol === 'udp') return 'udp';
  return flow.state === 'embryonic' || flow.state === 'blackholed' ? 'embryonic' : 'tcp';
}

/** A TCP flow has a socket to its client and one to its backend. */
const TCP_DESCRIPTORS = 2;

/** UDP has at most this share of the descriptors for flows: the rest is for TCP, which a flood of datagrams must not starve. */
export const UDP_SHARE = 0.75;

/** Descriptors that a flow takes: UDP flows share their listener's socket, those balanced by datagram the upstreams too. */
export function descriptorsFor(protocol: Protocol, rule: Rule): number {
  if (protocol === 'tcp') return TCP_DESCRIPTORS;
  if (rule.udp.perPacket) return 0;
  return rule.udp.answersFrom === 'address' ? 2 : 1;
}

/** Flows that may be evicted, the one whose client has been silent longest first. All in constant time. */
class EvictionQueue {
  #first: Flow | undefined;
  #last: Flow | undefined;

  get first(): Flow | undefined {
    return this.#first;
  }

  push(flow: Flow): void {
    flow.isEvictable = true;
    flow.evictPrevious = this.#last;
    if (this.#last === undefined) this.#first = flow;
    else this.#last.evictNext = flow;
    this.#last = flow;
  }

  remove(flow: Flow): void {
    const { evictNext: next, evictPrevious: previous } = flow;
    if (next === undefined) this.#last = previous;
    else next.evictPrevious = previous;
    if (previous === undefined) this.#first = next;
    else previous.evictNext = next;
    flow.isEvictable = false;
    flow.evictNext = undefined;
    flow.evictPrevious = undefined;
  }
}

/**
 * All live flows of a data worker: budgets, caps per source, descriptors, and the index by backend. A flow is one entry,
 * so neither direction can be evicted without the other (field.md C62). Only UDP flows whose backend has not answered
 * yet are ever evicted to make room: spoofed ones never are answered.
 */
export class FlowTable {
  #limits: Limits;
  readonly #flows: (Flow | undefined)[] = [];
  /** Indexes into `#flows`. */
  readonly #free: number[] = [];
  readonly #used: Record<Budget, number> = { tcp: 0, udp: 0, embryonic: 0 };
  /** By backend id, the last flow that came to it; see Flow.backendNext. */
  readonly #byBackend = new Map<string, Flow>();
  /** Flows by client address, where there is a cap. */
  readonly #perSource: Record<Protocol, Map<string, number> | undefined> = { tcp: undefined, udp: undefined };

  /** Descriptors for flows, and how many are kept for those that there are. */
  #descriptorRoom = Infinity;
  #descriptors = 0;
  /** Of UDP flows without an answer: those that have descriptors, and those that have none. */
  readonly #unanswered = new EvictionQueue();
  readonly #unansweredShared = new EvictionQueue();

  constructor(limits: Limits) {
    this.#limits = limits;
    this.#followCaps();
  }

  get size(): number {
    return this.#used.tcp + this.#used.udp + this.#used.embryonic;
  }

  use(budget: Budget): { readonly used: number; readonly limit: number } {
    const limit = { tcp: 'tcpFlows', udp: 'udpFlows', embryonic: 'embryonicFlows' } as const;
    return { used: this.#used[budget], limit: this.#limits[limit[budget]] };
  }

  /** New limits hold for new flows; existing ones stay. */
  setLimits(limits: Limits): void {
    this.#limits = limits;
    this.#followCaps();
  }

  /** How many descriptors all flows together may take. Flows above it stay. @default no limit */
  setDescriptorRoom(room: number): void {
    this.#descriptorRoom = room;
  }

  /** Descriptors that flows take, and may take. */
  descriptorUse(): { readonly used: number; readonly limit: number } {
    return { used: this.#descriptors, limit: this.#descriptorRoom };
  }

  /**
   * Which flow to evict so that a flow refused for this reason may be taken in: of the UDP flows whose backend has not
   * answered yet, the one whose client has been silent longest. Undefined: there is none.
   */
  evictable(refusal: DropReason, protocol: Protocol): Flow | undefined {
    const own = this.#unanswered.first;
    if (refusal === 'descriptors-exhausted') return own;
    if (refusal !== 'table-full' || protocol !== 'udp') return undefined;
    const shared = this.#unansweredShared.first;
    if (own === undefined || shared === undefined) return own ?? shared;
    return own.lastActivityMs <= shared.lastActivityMs ? own : shared;
  }

  /** The client of a UDP flow has sent something. */
  heardFromClient(flow: Flow): void {
    if (!flow.isEvictable) return;
    const queue = this.#queueOf(flow);
    queue.remove(flow);
    queue.push(flow);
  }

  /** The backend of a UDP flow has answered: it is not evicted any more. */
  answered(flow: Flow): void {
    if (flow.isEvictable) this.#queueOf(flow).remove(flow);
  }

  /** Why a new flow of this client, with so many descriptors, cannot be taken in now, or undefined if it can. */
  refusal(
    protocol: Protocol,
    sourceText: string,
    descriptors = protocol === 'tcp' ? TCP_DESCRIPTORS : 1,
  ): DropReason | undefined {
    const { tcpFlows, udpFlows, embryonicFlows } = this.#limits;
    if (protocol === 'udp') {
      if (this.#used.udp >= udpFlows) return 'table-full';
    } else {
      if (this.#used.tcp >= tcpFlows) return 'table-full';
      if (this.#used.embryonic >= embryonicFlows) return 'embryonic-full';
    }
    const room = this.#descriptorRoom * (protocol === 'udp' ? UDP_SHARE : 1);
    if (descriptors > 0 && this.#descriptors + descriptors > room) return 'descriptors-exhausted';
    return this.isSourceFull(protocol, sourceText) ? 'source-cap' : undefined;
  }

  /** Whether this client address is at its cap. */
  isSourceFull(protocol: Protocol, sourceText: string): boolean {
    const cap = this.#sourceCap(protocol);
    return cap !== undefined && (this.#perSource[protocol]?.get(sourceText) ?? 0) >= cap;
  }

  add(flow: Flow): void {
    flow.tableIndex = this.#free.pop() ?? this.#flows.length;
    this.#flows[flow.tableIndex] = flow;
    this.#used[budgetOf(flow)]++;
    this.#countSource(flow.tuple, 1);
    this.#index(flow);
    flow.descriptors = descriptorsFor(flow.tuple.protocol, flow.rule);
    this.#descriptors += flow.descriptors;
    // One of another process may have been answered there.
    if (flow.tuple.protocol === 'udp' && flow.packetsToClient === 0) this.#queueOf(flow).push(flow);
  }

  remove(flow: Flow): void {
    if (flow.tableIndex < 0) return;
    this.#flows[flow.tableIndex] = undefined;
    this.#free.push(flow.tableIndex);
    flow.tableIndex = -1;
    this.#used[budgetOf(flow)]--;
    this.#countSource(flow.tuple, -1);
    this.#unindex(flow, flow.placement?.backendId);
    this.answered(flow);
    this.#descriptors -= flow.descriptors;
  }

  /** Runs a change of state, placement or source address, keeping budgets and indexes right. */
  change(flow: Flow, mutate: (flow: Flow) => void): void {
    if (flow.tableIndex < 0) {
      mutate(flow);
      return;
    }
    const { tuple, placement } = flow;
    const budget = budgetOf(flow);
    mutate(flow);
    const newBudget = budgetOf(flow);
    if (newBudget !== budget) {
      this.#used[budget]--;
      this.#used[newBudget]++;
    }
    if (flow.tuple !== tuple) {
      this.#countSource(tuple, -1);
      this.#countSource(flow.tuple, 1);
    }
    if (flow.placement?.backendId !== placement?.backendId) {
      this.#unindex(flow, placement?.backendId);
      this.#index(flow);
    }
  }

  /** Flows on a backend, as they are now: safe to end them on the way. */
  flowsOn(backendId: string): readonly Flow[] {
    const flows: Flow[] = [];
    for (let flow = this.#byBackend.get(backendId); flow !== undefined; flow = flow.backendNext)
      flows.push(flow);
    return flows;
  }

  /** Ids of all backends that have flows, removed ones among them. */
  backendIds(): readonly string[] {
    return [...this.#byBackend.keys()];
  }

  *all(): Generator<Flow> {
    for (const flow of this.#flows) if (flow !== undefined) yield flow;
  }

  /** Up to `limit` matching flows from index `after` on, and where the next page begins. */
  page(
    filter: FlowFilter,
    after: number,
    limit: number,
  ): { readonly flows: readonly Flow[]; readonly next?: number } {
    const flows: Flow[] = [];
    for (let index = after; index < this.#flows.length; index++) {
      const flow = this.#flows[index];
      if (flow === undefined || !matches(flow, filter)) continue;
      if (flows.length === limit) return { flows, next: index };
      flows.push(flow);
    }
    return { flows };
  }

  #queueOf({ descriptors }: Flow): EvictionQueue {
    return descriptors > 0 ? this.#unanswered : this.#unansweredShared;
  }

  #sourceCap(protocol: Protocol): number | undefined {
    return protocol === 'tcp' ? this.#limits.tcpFlowsPerSource : this.#limits.udpFlowsPerSource;
  }

  /** Counts by source begin where a cap appears, with the flows that are there. */
  #followCaps(): void {
    for (const protocol of PROTOCOLS) {
      if (this.#sourceCap(protocol) === undefined) {
        this.#perSource[protocol] = undefined;
      } else if (this.#perSource[protocol] === undefined) {
        this.#perSource[protocol] = new Map();
        for (const { tuple } of this.all()) if (tuple.protocol === protocol) this.#countSource(tuple, 1);
      }
    }
  }

  #countSource({ protocol, source }: FiveTuple, step: 1 | -1): void {
    const counts = this.#perSource[protocol];
    if (counts === undefined) return;
    const count = (counts.get(source.text) ?? 0) + step;
    if (count <= 0) counts.delete(source.text);
    else counts.set(source.text, count);
  }

  #index(flow: Flow): void {
    const id = flow.placement?.backendId;
    if (id === undefined) return;
    const next = this.#byBackend.get(id);
    flow.backendNext = next;
    if (next !== undefined) next.backendPrevious = flow;
    this.#byBackend.set(id, flow);
  }

  /** `id` is the backend that it was indexed by. */
  #unindex(flow: Flow, id: string | undefined): void {
    if (id === undefined) return;
    const { backendNext: next, backendPrevious: previous } = flow;
    flow.backendNext = undefined;
    flow.backendPrevious = undefined;
    if (next !== undefined) next.backendPrevious = previous;
    if (previous !== undefined) previous.backendNext = next;
    else if (next !== undefined) this.#byBackend.set(id, next);
    else this.#byBackend.delete(id);
  }
}

function matches(flow: Flow, filter: FlowFilter): boolean {
  if (filter.sourcePort !== undefined && flow.tuple.sourcePort !== filter.sourcePort) return false;
  if (filter.source !== undefined && flow.tuple.source.text !== filter.source) return false;
  if (filter.protocol !== undefined && flow.tuple.protocol !== filter.protocol) return false;
  if (filter.rule !== undefined && flow.rule.name !== filter.rule) return false;
  return filter.backendId === undefined || flow.placement?.backendId === filter.backendId;
}
