import type { PlaneEvent } from '../../../model/events.js';
import type { ForwardingState } from '../../../model/forwarding-state.js';
import type { Tools } from '../../../nft/tools.js';
import type { Clock } from '../../../runtime/clock.js';
import type { Files } from '../../../runtime/files.js';
import type { Picker } from '../../../selection/picker.js';
import type { FlowPage, FlowQuery, PlaneCounters } from '../../data-plane.js';
import type { KernelInput } from '../kernel-input.js';

export interface FlowMirrorDeps {
  readonly clock: Clock;
  readonly tools: Tools;
  /** Reads the sysctls of conntrack. */
  readonly files: Files;
  readonly picker: Picker;
}

export interface FlowMirrorOptions {
  /** Whether flow-started and flow-ended are wanted. */
  readonly flowEvents: boolean;
}

/** What the mirror knows of the plane's counters. */
export type FlowCounters = Pick<PlaneCounters, 'traffic' | 'arrivals' | 'table'>;

/**
 * The flows that the kernel has, as its events tell of them: by conntrack, or by the flow map where there is no
 * conntrack. Nothing here is on the path of a packet.
 */
export class FlowMirror {
  constructor(deps: FlowMirrorDeps, options: FlowMirrorOptions) {
    void deps;
    void options;
  }

  /**
   * Follows the kernel's events and learns what is there already. Call it before the table is put in place, so that no
   * flow is missed. Never rejects.
   *
   * @returns what is known to be missing, in sentences for the log: bytes are not counted, say.
   */
  start(state: ForwardingState, input: KernelInput): Promise<readonly string[]> {
    void state;
    void input;
    return Promise.resolve([]);
  }

  /** Call it before each change of the kernel: flows that come are explained by what was in force then. */
  take(state: ForwardingState, input: KernelInput): void {
    void state;
    void input;
  }

  page(query: FlowQuery): Promise<FlowPage> {
    void query;
    return Promise.resolve({ flows: [] });
  }

  /** Totals of now: what is older than a second is read again. */
  counters(): Promise<FlowCounters> {
    const none = { used: 0, limit: 0 };
    return Promise.resolve({ traffic: [], arrivals: [], table: { tcp: none, udp: none, embryonic: none } });
  }

  /** Live flows. */
  get count(): number {
    return 0;
  }

  /** Live flows with that mark, of any protocol, as the kernel has them now; undefined: it could not be found out. */
  countOf(mark: number): Promise<number | undefined> {
    void mark;
    return Promise.resolve(undefined);
  }

  /** Batches of flow-started, flow-ended and table-pressure, until the returned function is called. */
  subscribe(listener: (events: readonly PlaneEvent[]) => void): () => void {
    void listener;
    return () => undefined;
  }

  stop(): void {}
}
