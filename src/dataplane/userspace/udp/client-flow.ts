import type { FlowTransport } from '../../../flow/flow.js';
import type { FiveTuple } from '../../../model/five-tuple.js';
import type { ForwardingState } from '../../../model/forwarding-state.js';
import type { Rule } from '../../../model/rule.js';
import { backendEndpoint } from '../../../selection/backend-endpoint.js';
import type { Picked } from '../../../selection/pick-result.js';
import type { Picker } from '../../../selection/picker.js';
import type { FlowKeeper } from '../flow-keeper.js';
import type { HeldMemory } from './held-memory.js';
import type { UpstreamDialer, UpstreamTarget } from './upstream-dialer.js';

/** What UDP flows work with: one set a worker. */
export interface UdpTools {
  readonly keeper: FlowKeeper;
  readonly picker: Picker;
  readonly dialer: UpstreamDialer;
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

/** Where a rule stands in the configuration now; -1 if it is gone. `hint` is looked at first. */
export function ruleIndexIn(state: ForwardingState, name: string, hint: number): number {
  const { rules } = state.configuration;
  return rules[hint]?.name === name ? hint : rules.findIndex((rule) => rule.name === name);
}

/** What to dial for a pick. Throws RangeError where the state contradicts itself: a bug. */
export function targetOf(state: ForwardingState, pick: Picked, tuple: FiveTuple): UpstreamTarget {
  const { rules, backendPools } = state.configuration;
  const rule = rules[pick.ruleIndex];
  const view = state.views[pick.viewIndex];
  const backend = view?.backends[pick.backendIndex]?.backend;
  const pool = backendPools.find(({ name }) => name === view?.pool);
  if (rule === undefined || backend === undefined || pool === undefined) {
    throw new RangeError(`No backend, rule or pool for "${pick.backendId}" in state ${state.revision}`);
  }
  const endpoint = backendEndpoint(rule, backend, rule.frontend, tuple.destinationPort);
  return { backendId: pick.backendId, endpoint, pool };
}
