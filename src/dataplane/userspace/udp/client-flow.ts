import type { FlowTransport } from '../../../flow/flow.js';
import type { FiveTuple } from '../../../model/five-tuple.js';
import type { ForwardingState } from '../../../model/forwarding-state.js';
import type { Rule } from '../../../model/rule.js';
import type { Picked } from '../../../selection/pick-result.js';
import type { Picker } from '../../../selection/picker.js';
import type { UdpFlowState } from '../../hand-over.js';
import type { FlowKeeper } from '../flow-keeper.js';
import type { HeldMemory } from './held-memory.js';
import type { RelatedEnds } from './related-ends.js';
import type { UpstreamDialer } from './upstream-dialer.js';
import type { UpstreamTargets } from './upstream-targets.js';

/** What UDP flows work with: one set a worker. */
export interface UdpTools {
  readonly keeper: FlowKeeper;
  readonly picker: Picker;
  readonly dialer: UpstreamDialer;
  readonly related: RelatedEnds;
  readonly targets: UpstreamTargets;
  readonly heldMemory: HeldMemory;
}

/** A client's end of a flow, as its listener knows it. */
export interface ClientEnd {
  /** From ClientKeys. */
  readonly key: number;
  /** As the system writes it. */
  readonly address: string;
  readonly port: number;
}

/** A client's flow as its listener sees it. */
export interface ClientFlow extends FlowTransport {
  fromClient(datagram: Buffer): void;
  /** Ends the flow since its listener goes. */
  shutDown(): void;
  /** What another process needs to go on with it; undefined where a new flow serves as well. */
  record(): UdpFlowState | undefined;
}

/** What a flow asks of the listener it came in by. */
export interface FlowHost {
  /** Sends from the frontend's address and port. */
  reply(datagram: Buffer, client: ClientEnd): void;
  /** The flow has ended: datagrams of its client start a new one. */
  forget(client: ClientEnd): void;
}

/** What a new flow starts with. */
export interface FlowStart {
  readonly tuple: FiveTuple;
  readonly rule: Rule;
  readonly pick: Picked;
  readonly client: ClientEnd;
}

/** For placements that passed nobody over: one list for all. */
export const NOBODY: readonly string[] = Object.freeze([]);

/** Where a rule stands in the configuration now; -1 if it is gone. `hint` is looked at first. */
export function ruleIndexIn(state: ForwardingState, name: string, hint: number): number {
  const { rules } = state.configuration;
  return rules[hint]?.name === name ? hint : rules.findIndex((rule) => rule.name === name);
}
