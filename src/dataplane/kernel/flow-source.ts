import type { FlowEndReason } from '../../model/flow.js';
import type { Protocol } from '../../model/five-tuple.js';
import type { PlaneEvent } from '../../model/events.js';
import type { ForwardingState } from '../../model/forwarding-state.js';
import type { FlowPage, FlowQuery, PlaneCounters } from '../data-plane.js';
import type { KernelInput } from './kernel-input.js';

/** Flows that the plane is about to end, so that their ends are told with the reason. */
export interface EndingFlows {
  /** Of the backend. */
  readonly mark: number;
  /** Absent: of all protocols. `udp` stands for all but TCP. */
  readonly protocol?: Protocol;
  /** Only of that rule. @default all rules */
  readonly rule?: string;
}

/** Who knows the flows that the kernel has: conntrack's events, or flow maps. Never rejects but where it says so. */
export interface FlowSource {
  /** By what flows are told from now on. Called before it is written to the kernel; the first time before `start`. */
  update(state: ForwardingState, input: KernelInput): void;

  /** The table is in the kernel: takes up the flows that are there. */
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
