import type { FlowManager } from '../../../flows/flow-manager.js';
import type { Flow, FlowTransport, RuleSlot } from '../../../flows/flow.js';
import type { PlacementReason } from '../../../model/flow.js';
import { NONE_EXCLUDED, type Picked, type Picker } from '../../../selection/picker.js';
import type { UdpFlowState } from '../../contract.js';
import type { DialTarget } from '../source-ports.js';
import type { RelatedEnds } from './answers-from-address.js';
import {
  FailedBackends,
  PORT_UNREACHABLE,
  Upstream,
  type DatagramBudget,
  type DialRefusal,
  type Dialer,
  type UdpLocalEnd,
  type UpstreamDialer,
  type UpstreamOwner,
  type UpstreamTargets,
} from './upstream.js';

/** What UDP flows work with: one set a worker. */
export interface UdpTools {
  readonly manager: FlowManager;
  readonly picker: Picker;
  readonly dialer: UpstreamDialer;
  readonly related: RelatedEnds;
  readonly targets: UpstreamTargets;
  readonly budget: DatagramBudget;
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
  /** What another process needs to continue it; undefined where a new flow serves as well. */
  record(): UdpFlowState | undefined;
}

/** What a flow asks of the listener it came in by. */
export interface FlowHost {
  /** Sends from the frontend's address and port. */
  reply(datagram: Buffer, client: ClientEnd): void;
  /** The flow has ended: datagrams of its client start a new one. */
  forget(client: ClientEnd): void;
}

/** Where a flow is placed. */
export type Place = Pick<Picked, 'ruleIndex' | 'backendIndex' | 'backendId'>;

const NO_ROUTE = 'no route to backend';

/** One client's flow through one connected socket to one backend at a time. */
export class UdpFlow implements ClientFlow, UpstreamOwner {
  readonly #tools: UdpTools;
  readonly #host: FlowHost;
  readonly #client: ClientEnd;
  // Set by `start` or `resume`: a Flow needs its transport first.
  #flow!: Flow;
  #upstream: Upstream | undefined;
  /** The present backend has answered, the flow may stay on it, and none has failed it lately: nothing to look after. */
  #steady = false;
  #unpinned = false;
  /** The last datagram to a backend that has not answered yet, for the next backend should this one turn it away. */
  #held: Buffer | undefined;
  #failed: FailedBackends | undefined;

  constructor(tools: UdpTools, host: FlowHost, client: ClientEnd) {
    this.#tools = tools;
    this.#host = host;
    this.#client = client;
  }

  /** Puts the flow on the picked backend. Where that cannot be reached, and no other, the flow has ended after it. */
  start(flow: Flow, pick: Picked): void {
    this.#flow = flow;
    this.#goTo(pick, pick.reason);
  }

  /** Continues a flow of another process on the same backend and local port, or ends it. */
  resume(flow: Flow, place: Place, local: UdpLocalEnd): void {
    this.#flow = flow;
    const { manager, targets } = this.#tools;
    this.#connect(targets.of(manager.state, place, flow.tuple.destinationPort), 'pinned', local);
  }

  record(): UdpFlowState | undefined {
    const flow = this.#flow;
    const { localEnd, target } = this.#upstream ?? {};
    if (localEnd === undefined || target === undefined || this.#unpinned) return undefined;
    if (flow.state !== 'established') return undefined;
    return {
      tuple: flow.tuple,
      clientAddress: this.#client.address,
      rule: flow.rule.name,
      backendId: target.backendId,
      endpoint: target.endpoint,
      source: localEnd.source,
      sourcePort: localEnd.sourcePort,
      openedAtMs: flow.openedAtWallMs,
      bytesToBackend: flow.bytesToBackend,
      packetsToBackend: flow.packetsToBackend,
      bytesToClient: flow.bytesToClient,
      packetsToClient: flow.packetsToClient,
    };
  }

  fromClient(datagram: Buffer): void {
    this.#flow.lastActivityMs = this.#tools.manager.clock.monotonicMs();
    if (this.#steady) this.#upstream?.send(datagram);
    else {
      this.#tools.manager.heardFromClient(this.#flow);
      if (!this.#prepare(datagram)) return;
    }
    this.#flow.bytesToBackend += datagram.length;
    this.#flow.packetsToBackend++;
  }

  shutDown(): void {
    this.#tools.manager.end(this.#flow, 'shutdown', 'close');
  }

  close(): void {
    this.#leave();
    this.#host.forget(this.#client);
  }

  blackhole(): void {
    this.#leave();
  }

  unpin(): void {
    this.#unpinned = true;
    this.#steady = false;
  }

  onConnected(): void {
    if (this.#flow.state === 'embryonic') this.#tools.manager.establish(this.#flow);
  }

  onRefused(refusal: DialRefusal, by: Upstream): void {
    const { manager } = this.#tools;
    if (refusal === 'unreachable') {
      this.#failures().add(by.target.backendId);
      manager.backendFailed(this.#flow.rule, 'udp', by.target.backendId, NO_ROUTE);
      if (this.#goElsewhere() || this.#flow.tableIndex < 0) return;
    }
    manager.dropped(this.#flow.rule, 'udp', refusal === 'unreachable' ? 'send-failed' : refusal);
    manager.end(this.#flow, 'connect-failed', 'gone');
  }

  onReply(datagram: Buffer): void {
    const flow = this.#flow;
    const { manager } = this.#tools;
    flow.lastActivityMs = manager.clock.monotonicMs();
    if (!this.#steady) this.#answered();
    const { expectedResponses } = flow.rule.udp;
    if (expectedResponses === 0) {
      manager.dropped(flow.rule, 'udp', 'unexpected-reply');
      return;
    }
    flow.bytesToClient += datagram.length;
    flow.packetsToClient++;
    this.#host.reply(datagram, this.#client);
    if (expectedResponses === undefined) return;
    if (flow.packetsToClient >= flow.packetsToBackend * expectedResponses) {
      manager.end(flow, 'responses-complete', 'close');
    }
  }

  onUnreachable(evidence: string, by: Upstream): void {
    const { manager } = this.#tools;
    const { backendId } = by.target;
    if (evidence === PORT_UNREACHABLE && manager.refused(this.#flow) === 'answer') {
      manager.end(this.#flow, 'refused', 'close');
      return;
    }
    // One that has failed in this round was the last resort then, and still is.
    if (!this.#failures().add(backendId)) return;
    manager.backendFailed(this.#flow.rule, 'udp', backendId, evidence);
    this.#goElsewhere();
  }

  onSendFailed(): void {
    this.#tools.manager.dropped(this.#flow.rule, 'udp', 'send-failed');
  }

  /** Sends while something needs to be looked after. False: the datagram was thrown away, which is counted. */
  #prepare(datagram: Buffer): boolean {
    const flow = this.#flow;
    if (flow.state === 'blackholed') {
      this.#tools.manager.dropped(flow.rule, 'udp', 'blackholed');
      return false;
    }
    if (this.#unpinned && !this.#placeAnew()) return false;
    this.#hold(datagram);
    this.#upstream?.send(datagram);
    return true;
  }

  /** Picks a backend by the present state. False: the flow has ended. */
  #placeAnew(): boolean {
    const { manager, picker } = this.#tools;
    const flow = this.#flow;
    const pick = picker.pickForRule(manager.state, flow.slot.index, flow.tuple, NONE_EXCLUDED);
    if (pick.kind !== 'picked') {
      manager.dropped(flow.rule, 'udp', 'no-backend');
      manager.end(flow, 'no-backend', 'gone');
      return false;
    }
    this.#failed = undefined;
    this.#goTo(pick, pick.reason === 'fail-open' ? 'fail-open' : 'rebalanced');
    return flow.tableIndex >= 0;
  }

  /** After a backend has failed the flow: on to another, with what is held. False: no other takes it. */
  #goElsewhere(): boolean {
    const { manager, picker } = this.#tools;
    const flow = this.#flow;
    this.#steady = false;
    const pick = picker.pickForRule(manager.state, flow.slot.index, flow.tuple, this.#excluded());
    if (pick.kind !== 'picked') return false;
    manager.retried(flow);
    const datagram = this.#held;
    this.#goTo(pick, 'retry');
    if (flow.tableIndex < 0) return false;
    if (datagram !== undefined) {
      this.#hold(datagram);
      this.#upstream?.send(datagram);
    }
    return true;
  }

  #goTo(pick: Picked, reason: PlacementReason): void {
    const { manager, targets } = this.#tools;
    const target = targets.of(manager.state, pick, this.#flow.tuple.destinationPort);
    this.#unpinned = false;
    if (this.#upstream !== undefined && sameEndpoint(this.#upstream.target, target)) return;
    this.#leave();
    this.#connect(target, reason);
  }

  #connect(target: DialTarget, reason: PlacementReason, local?: UdpLocalEnd): void {
    const { backendId, endpoint } = target;
    this.#tools.manager.place(this.#flow, { backendId, endpoint, reason }, this.#excluded());
    this.#upstream = new Upstream(target, this.#dialer(), this, local);
    this.#upstream.start();
  }

  #dialer(): Dialer {
    const { dialer, related } = this.#tools;
    const flow = this.#flow;
    if (flow.rule.udp.answersFrom !== 'address') return dialer;
    const { address: clientAddress } = this.#client;
    return related.dialerFor({ flow, clientAddress, receive: (datagram) => this.onReply(datagram) });
  }

  /** Closes the backend side. */
  #leave(): void {
    this.#upstream?.close();
    this.#upstream = undefined;
    this.#steady = false;
    this.#hold(undefined);
  }

  #answered(): void {
    this.#tools.manager.answered(this.#flow);
    this.#failed = undefined;
    this.#hold(undefined);
    this.#steady = !this.#unpinned;
  }

  #excluded(): ReadonlySet<string> {
    return this.#failed?.present() ?? NONE_EXCLUDED;
  }

  #failures(): FailedBackends {
    return (this.#failed ??= new FailedBackends(this.#tools.manager.clock));
  }

  #hold(datagram: Buffer | undefined): void {
    const { budget } = this.#tools;
    if (this.#held !== undefined) budget.give(this.#held);
    this.#held = datagram !== undefined && budget.take(datagram) ? datagram : undefined;
  }
}

function sameEndpoint(a: DialTarget, b: DialTarget): boolean {
  return (
    a.backendId === b.backendId &&
    a.endpoint.port === b.endpoint.port &&
    a.endpoint.address.text === b.endpoint.address.text
  );
}

/**
 * The backend that a flow of another process was on, by the present state. Undefined where the rule there is another one
 * now, or the backend may not keep flows: a new flow finds its place then.
 */
export function placeOfRecord(
  { rule, backendId }: UdpFlowState,
  slot: RuleSlot | undefined,
): Place | undefined {
  if (slot?.rule.name !== rule || slot.rule.udp.perPacket) return undefined;
  const backends = slot.view?.backends ?? [];
  const backendIndex = backends.findIndex(({ backend }) => backend.id === backendId);
  if (backends[backendIndex]?.valid !== true) return undefined;
  return { ruleIndex: slot.index, backendIndex, backendId };
}
