import type { Parsed } from '../api/contract.js';
import { flowView, type FlowList, type FlowView } from '../api/views.js';
import { parseIpAddress } from '../model/address.js';
import type { Configuration } from '../model/configuration.js';
import { BalancerError } from '../model/errors.js';
import type { FlowRecord } from '../model/flow.js';
import { allFlows, type DataPlane, type FlowQuery } from '../planes/contract.js';
import type { Clock } from '../runtime/clock.js';
import { FlowRates } from './counters.js';

/** Pages that one unsorted listing asks of the plane at most: where few match, it ends short, with a `next`. */
const PAGES = 50;

export interface FlowListerDeps {
  readonly clock: Clock;
  readonly plane: Pick<DataPlane, 'flows'>;
  /** The present one: backends are named by it. */
  readonly configuration: () => Configuration;
}

/** What flows are shown, in which order. */
export type FlowListQuery = Parsed<'flows'>;

type Filter = Pick<FlowQuery, 'rule' | 'backendId' | 'protocol' | 'source'>;

type ListedFlow = FlowRecord & Pick<FlowView, 'bitsPerSecond'>;

type Sort = Exclude<FlowListQuery['sort'], 'none'>;

/** Whichever of two comes first; each order is the one that an operator looks for trouble in. */
const ORDERS: Readonly<Record<Sort, (a: ListedFlow, b: ListedFlow) => number>> = {
  age: (a, b) => a.openedAtMs - b.openedAtMs || a.id - b.id,
  idle: (a, b) => b.idleMs - a.idleMs || a.id - b.id,
  bytes: (a, b) => bytesOf(b) - bytesOf(a) || a.id - b.id,
  rate: (a, b) => (b.bitsPerSecond ?? -1) - (a.bitsPerSecond ?? -1) || bytesOf(b) - bytesOf(a) || a.id - b.id,
};

/**
 * Lists flows of the plane: the oldest, the longest idle, those with most bytes or bits a second, or page by page. Reads
 * a page at a time and keeps only what it will show, whatever the size of the flow table.
 */
export class FlowLister {
  readonly #deps: FlowListerDeps;
  readonly #rates: FlowRates;

  constructor(deps: FlowListerDeps) {
    this.#deps = deps;
    this.#rates = new FlowRates(deps.clock);
  }

  /** Rejects with `LB_UNKNOWN_BACKEND` where `backend` names none. */
  async list(query: FlowListQuery): Promise<FlowList> {
    const { rule, protocol, source, backend, sort } = query;
    const backendId = backend === undefined ? undefined : this.#backendId(backend);
    const filter = { rule, protocol, source, backendId };
    return sort === 'none' ? this.#page(query, filter) : this.#best(query, filter, sort);
  }

  async #best(query: FlowListQuery, filter: Filter, sort: Sort): Promise<FlowList> {
    const best = new BestList<ListedFlow>(ORDERS[sort], query.limit);
    const isWanted = matcher(query);
    let matched = 0;
    if (sort === 'rate') this.#rates.begin();
    for await (const flow of allFlows(this.#deps.plane, filter)) {
      if (!isWanted(flow)) continue;
      matched++;
      best.offer(sort === 'rate' ? { ...flow, bitsPerSecond: this.#rates.look(flow) } : flow);
    }
    return { flows: best.items.map(flowView), matched };
  }

  async #page(query: FlowListQuery, filter: Filter): Promise<FlowList> {
    const isWanted = matcher(query);
    const flows: FlowView[] = [];
    let after = query.after;
    for (let pages = 0; pages < PAGES; pages++) {
      // Never more than there is room for: the plane's cursor stands behind whole pages only.
      const limit = query.limit - flows.length;
      const page = await this.#deps.plane.flows({ ...filter, limit, after });
      flows.push(...page.flows.filter(isWanted).map(flowView));
      after = page.next;
      if (after === undefined || flows.length >= query.limit) break;
    }
    return { flows, matched: flows.length, next: after };
  }

  /** One that has left the configuration may still have flows: its id names it all the same. */
  #backendId(name: string): string {
    const slash = name.indexOf('/');
    const pool = name.slice(0, Math.max(0, slash));
    const label = name.slice(slash + 1);
    const backends = this.#deps.configuration().backendPools.find((one) => one.name === pool)?.backends ?? [];
    const named = backends.find((backend) => backend.name === label);
    if (named !== undefined) return named.id;
    const address = parseIpAddress(label);
    if (pool !== '' && address !== undefined) return `${pool}/${address.text}`;
    throw new BalancerError(`There is no backend "${name}": it must be pool/name or pool/address`, {
      code: 'LB_UNKNOWN_BACKEND',
      source: 'usage',
    });
  }
}

/** What the plane does not filter by. */
function matcher({ state, reason }: FlowListQuery): (flow: FlowRecord) => boolean {
  return (flow) =>
    (state === undefined || flow.state === state) && (reason === undefined || flow.reason === reason);
}

function bytesOf({ bytesToBackend, bytesToClient }: FlowRecord): number {
  return bytesToBackend + bytesToClient;
}

/** Keeps the best `limit` of the items it is shown: memory for twice as many and no more. */
export class BestList<T> {
  readonly #compare: (a: T, b: T) => number;
  readonly #limit: number;
  readonly #kept: T[] = [];

  /** `compare` as for Array.sort: the better one first. Of equals, who came first. */
  constructor(compare: (a: T, b: T) => number, limit: number) {
    this.#compare = compare;
    this.#limit = limit;
  }

  offer(item: T): void {
    this.#kept.push(item);
    if (this.#kept.length > 2 * this.#limit) this.#trim();
  }

  /** The best first. */
  get items(): readonly T[] {
    this.#trim();
    return this.#kept;
  }

  #trim(): void {
    // Stable: what came first stays first among equals.
    this.#kept.sort(this.#compare).splice(this.#limit);
  }
}
