import type { Flow } from '../../../flow/flow.js';
import type { TrafficTotals } from '../../../flow/traffic.js';
import type { ForwardingState } from '../../../model/forwarding-state.js';
import type { Rule } from '../../../model/rule.js';
import type { Picked, RulePickResult } from '../../../selection/pick-result.js';
import { NONE_EXCLUDED } from '../../../selection/picker.js';
import { ruleIndexIn, type UdpTools } from './client-flow.js';
import { FailedBackends } from './failed-backends.js';
import { Upstream, type UpstreamOwner } from './upstream.js';
import type { DialRefusal, UpstreamTarget } from './upstream-dialer.js';

interface Way {
  readonly upstream: Upstream;
  readonly totals: TrafficTotals;
}

/**
 * One upstream a backend for all flows of a listener whose datagrams are balanced each by itself. They are opened as
 * they are needed and closed with the last flow; replies cannot be told apart and are not carried.
 */
export class SharedUpstreams implements UpstreamOwner {
  readonly #tools: UdpTools;
  /** The listener's, which changes with the configuration. */
  readonly #serving: { readonly rule: Rule };
  readonly #ways = new Map<string, Way>();
  readonly #failed: FailedBackends;
  #configurationDigest = '';
  #flows = 0;

  constructor(tools: UdpTools, serving: { readonly rule: Rule }) {
    this.#tools = tools;
    this.#serving = serving;
    this.#failed = new FailedBackends(tools.keeper.clock);
  }

  /** One more flow, which leaves once. */
  enter(): void {
    this.#flows++;
  }

  leave(): void {
    if (--this.#flows === 0) this.#closeAll();
  }

  /** Sends the datagram to the backend it is hashed to, and says which; undefined where there is none. */
  send(datagram: Buffer, flow: Flow, sequence: number): UpstreamTarget | undefined {
    const { state } = this.#tools.keeper;
    if (state.configuration.digest !== this.#configurationDigest) {
      // Endpoints may have changed; what is still right opens again with the next datagram.
      this.#closeAll();
      this.#configurationDigest = state.configuration.digest;
    }
    const pick = this.#pick(flow, sequence);
    if (pick?.kind !== 'picked') return undefined;
    const way = this.#ways.get(pick.backendId) ?? this.#open(state, pick, flow);
    way.upstream.send(datagram);
    count(flow, way.totals, datagram.length);
    return way.upstream.target;
  }

  onConnected(): void {
    // Nothing waits for it.
  }

  onRefused(refusal: DialRefusal, by: Upstream): void {
    const { backendId } = by.target;
    this.#ways.delete(backendId);
    if (refusal === 'unreachable') this.onUnreachable('no route to backend', by);
    this.#drop(refusal === 'unreachable' ? 'send-failed' : refusal);
  }

  onReply(): void {
    this.#drop('unexpected-reply');
  }

  onUnreachable(evidence: string, by: Upstream): void {
    const { backendId } = by.target;
    if (!this.#failed.add(backendId)) return;
    this.#tools.keeper.backendUnreachable(this.#serving.rule, 'udp', backendId, evidence);
  }

  onSendFailed(): void {
    this.#drop('send-failed');
  }

  #pick(flow: Flow, sequence: number): RulePickResult | undefined {
    const { keeper, picker } = this.#tools;
    const { state } = keeper;
    const ruleIndex = ruleIndexIn(state, flow.rule.name, -1);
    if (ruleIndex < 0) return undefined;
    const failed = this.#failed.present();
    const pick = picker.pickForPacket(state, ruleIndex, flow.tuple, sequence, failed);
    if (pick.kind === 'picked' || failed.size === 0) return pick;
    // All have failed a moment ago: rather one of those than nobody.
    return picker.pickForPacket(state, ruleIndex, flow.tuple, sequence, NONE_EXCLUDED);
  }

  #open(state: ForwardingState, pick: Picked, flow: Flow): Way {
    const { keeper, dialer, targets } = this.#tools;
    const target = targets.of(state, pick, flow.tuple.destinationPort);
    const way = {
      upstream: new Upstream(target, dialer, this),
      totals: keeper.traffic.of(flow.rule.name, target.backendId, 'udp'),
    };
    this.#ways.set(target.backendId, way);
    way.upstream.start();
    return way;
  }

  #closeAll(): void {
    for (const { upstream } of this.#ways.values()) upstream.close();
    this.#ways.clear();
  }

  #drop(reason: 'send-failed' | 'unexpected-reply' | 'ports-exhausted' | 'descriptors-exhausted'): void {
    this.#tools.keeper.dropped(this.#serving.rule, 'udp', reason);
  }
}

/** Counts on the flow and, settled at once, for the backend that got the datagram: each may be another. */
function count(flow: Flow, totals: TrafficTotals, bytes: number): void {
  flow.bytesToBackend += bytes;
  flow.settledBytesToBackend += bytes;
  flow.packetsToBackend++;
  flow.settledPacketsToBackend++;
  totals.bytesToBackend += bytes;
  totals.packetsToBackend++;
}
