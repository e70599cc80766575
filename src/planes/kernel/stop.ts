import type { Protocol } from '../../model/address.js';
import type { PlaneEvent } from '../../model/events.js';
import type { FlowEndReason } from '../../model/flow.js';
import type { ForwardingState } from '../../model/forwarding.js';
import type { Clock } from '../../runtime/clock.js';
import type { FlowPage, FlowQuery, PlaneCounters, StopReport } from '../contract.js';
import type { ConntrackEntry, EntryFollower } from '../netfilter/conntrack.js';
import type { KernelInput } from './program.js';

/** How often it is looked whether flows have finished. */
const LOOK_EVERY_MS = 250;
/** UDP flows without datagrams for that long count as finished. */
const QUIET_MS = 1000;
/** So long after the deadline ends that send are told by a reset. */
const RESET_MS = 1000;
const PAGE = 1000;

export interface StoppingDeps {
  readonly clock: Clock;
  readonly flows: FlowSource;
  /** Puts it in the kernel. May reject: then what was there before goes on until the end. */
  readonly put: (input: KernelInput) => Promise<void>;
}

/** Lets flows finish until a deadline, which may be brought forward meanwhile. New ones are refused. */
export class Stopping {
  readonly #deps: StoppingDeps;
  #deadlineMs = Infinity;
  #wake: () => void = () => undefined;

  constructor(deps: StoppingDeps) {
    this.#deps = deps;
  }

  /** From now. Never later than said before. */
  shorten(deadlineMs: number): void {
    this.#deadlineMs = Math.min(this.#deadlineMs, this.#deps.clock.monotonicMs() + deadlineMs);
    this.#wake();
  }

  /** After that nothing is lost by taking the table away. */
  async run(input: KernelInput): Promise<StopReport> {
    const { flows, put } = this.#deps;
    const before = await this.#live();
    await put(closedInput(input)).catch(() => undefined);
    // From now on there are no new ones; the last that began must not be overlooked.
    await flows.freshen();
    let left = await this.#live();
    const first = Math.max(before, left);
    while (left > 0 && this.#leftMs() > 0) {
      await this.#pause(Math.min(LOOK_EVERY_MS, this.#leftMs()));
      left = await this.#live();
    }
    if (left > 0) {
      await put(endedInput(input)).catch(() => undefined);
      await this.#pause(RESET_MS);
    }
    return { finished: Math.max(0, first - left), reset: left };
  }

  #leftMs(): number {
    return this.#deadlineMs - this.#deps.clock.monotonicMs();
  }

  async #live(): Promise<number> {
    let live = 0;
    let after: number | undefined;
    do {
      const page = await this.#deps.flows.page({ limit: PAGE, ...(after === undefined ? {} : { after }) });
      live += page.flows.filter(({ tuple, idleMs }) => tuple.protocol === 'tcp' || idleMs < QUIET_MS).length;
      after = page.next;
    } while (after !== undefined);
    return live;
  }

  async #pause(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const cancel = this.#deps.clock.setTimer(ms, resolve);
      this.#wake = () => {
        cancel();
        resolve();
      };
    });
  }
}

/** The input of a plane that takes no new flows: those that there are go on. */
export function closedInput(input: KernelInput): KernelInput {
  const rules = input.rules.map((one) => ({ ...one, table: { ...one.table, marks: [] } }));
  return { ...input, rules, tables: input.tables.map((table) => ({ ...table, marks: [] })) };
}

/** As closed, and all flows of TCP are reset when either end sends. */
export function endedInput(input: KernelInput): KernelInput {
  const closed = closedInput(input);
  const all = input.backends.map(({ mark }) => mark);
  const rules = closed.rules.map((one) => ({
    ...one,
    actions: { ...one.actions, tcp: { rebalance: [], reset: all, drop: [] } },
  }));
  return { ...closed, rules };
}

/** Flows that the plane is about to end, so that their ends are told with the reason. */
export interface EndingFlows {
  /** Of the backend. */
  readonly mark: number;
  /** Absent: of all protocols. `udp` stands for all but TCP. */
  readonly protocol?: Protocol;
  /** Only of that rule. @default all rules */
  readonly rule?: string;
}

/** An entry of conntrack, or what is made to look like one. */
export interface KernelFlowEntry extends ConntrackEntry {
  /** Since its last packet; absent: it follows from the time that is left. */
  readonly idleMs?: number;
}

/** Where the kernel's flows are read from. */
export interface EntrySource {
  /** Follows flows that come and go until the returned function is called; absent: they can only be listed. */
  follow?(follower: EntryFollower): () => void;
  /** All there are now, in batches. False: they could not be read. Never rejects. */
  list(onEntries: (entries: readonly KernelFlowEntry[]) => void): Promise<boolean>;
}

/** Who knows the flows that the kernel has: conntrack's events, or flow maps. Never rejects but where it says so. */
export interface FlowSource {
  /** By what flows are told from now on. Called before it is written to the kernel; the first time before `start`. */
  update(state: ForwardingState, input: KernelInput): void;

  /**
   * Has flows that come and go reported until the returned function is called: event consumers, and counters of what
   * opened and ended. Without consumers flows are only listed when somebody asks.
   */
  consume(): () => void;

  /** The table is in the kernel: adopts the flows that are there. */
  start(): Promise<void>;

  stop(): Promise<void>;

  page(query: FlowQuery): Promise<FlowPage>;

  /** Reads anew what pages tell, which may be a second old where nobody tells of flows. */
  freshen(): Promise<void>;

  counters(): Promise<Pick<PlaneCounters, 'traffic' | 'arrivals' | 'table' | 'kernelFlows'>>;

  /** Live flows; cheap. */
  count(): number;

  /** Live flows with that mark, of any protocol, as the kernel has them now; undefined: it could not be found out. */
  countOf(mark: number): Promise<number | undefined>;

  /** What cannot be told of flows, a sentence each. */
  shortcomings(): Promise<readonly string[]>;

  subscribe(listener: (events: readonly PlaneEvent[]) => void): () => void;

  /** From now on, flows of that kind that end have been ended for that reason; until `update` says otherwise. */
  ending(flows: EndingFlows, reason: FlowEndReason): void;
}

/** Knows none. */
export const NO_FLOWS: FlowSource = {
  update: () => undefined,
  consume: () => () => undefined,
  start: () => Promise.resolve(),
  stop: () => Promise.resolve(),
  page: () => Promise.resolve({ flows: [] }),
  freshen: () => Promise.resolve(),
  counters: () =>
    Promise.resolve({
      traffic: [],
      arrivals: [],
      table: {
        tcp: { used: 0, limit: 0 },
        udp: { used: 0, limit: 0 },
        embryonic: { used: 0, limit: 0 },
      },
    }),
  count: () => 0,
  countOf: () => Promise.resolve(0),
  shortcomings: () => Promise.resolve([]),
  subscribe: () => () => undefined,
  ending: () => undefined,
};
