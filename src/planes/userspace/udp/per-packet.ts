import type { Flow, RuleSlot, TrafficTotals } from '../../../flows/flow.js';
import type { ForwardingState } from '../../../model/forwarding.js';
import { NONE_EXCLUDED, type Picked, type RulePickResult } from '../../../selection/picker.js';
import type { DialTarget } from '../source-ports.js';
import type { ClientEnd, ClientFlow, FlowHost, UdpTools } from './flow.js';
import { FailedBackends, Upstream, type DialRefusal, type UpstreamOwner } from './upstream.js';

/** One client's flow whose datagrams are balanced each by itself (one-way protocols: syslog, statsd). */
export class PerPacketFlow implements ClientFlow {
  readonly #tools: UdpTools;
  readonly #host: FlowHost;
  readonly #client: ClientEnd;
  readonly #upstreams: SharedUpstreams;
  // Set by `start`: a Flow needs its transport first.
  #flow!: Flow;
  /** Datagrams so far: each goes by one slot further. */
  #sequence = 0;
  /** The backend that the flow is listed under may not keep it. */
  #unpinned = false;

  constructor(tools: UdpTools, host: FlowHost, client: ClientEnd, upstreams: SharedUpstreams) {
    this.#tools = tools;
    this.#host = host;
    this.#client = client;
    this.#upstreams = upstreams;
  }

  /** Lists the flow under the picked backend. */
  start(flow: Flow, pick: Picked): void {
    const { manager, targets } = this.#tools;
    this.#flow = flow;
    const { backendId, endpoint } = targets.of(manager.state, pick, flow.tuple.destinationPort);
    manager.place(flow, { backendId, endpoint, reason: pick.reason });
    manager.establish(flow);
    this.#upstreams.enter(this);
  }

  fromClient(datagram: Buffer): void {
    const { manager } = this.#tools;
    const flow = this.#flow;
    flow.lastActivityMs = manager.clock.monotonicMs();
    manager.heardFromClient(flow);
    if (flow.state === 'blackholed') {
      manager.dropped(flow.rule, 'udp', 'blackholed');
      return;
    }
    const target = this.#upstreams.send(datagram, flow, this.#sequence++);
    if (target === undefined) {
      manager.dropped(flow.rule, 'udp', 'no-backend');
      manager.end(flow, 'no-backend', 'gone');
      return;
    }
    if (!this.#unpinned) return;
    this.#unpinned = false;
    const { backendId, endpoint } = target;
    manager.place(flow, { backendId, endpoint, reason: 'rebalanced' });
  }

  shutDown(): void {
    this.#tools.manager.end(this.#flow, 'shutdown', 'close');
  }

  /** The next datagram goes anywhere anyway. */
  record(): undefined {
    return undefined;
  }

  close(): void {
    this.blackhole();
    this.#host.forget(this.#client);
  }

  blackhole(): void {
    this.#upstreams.leave(this);
  }

  unpin(): void {
    this.#unpinned = true;
  }
}

interface CountedUpstream {
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
  readonly #slotNow: () => RuleSlot;
  readonly #upstreams = new Map<string, CountedUpstream>();
  readonly #failed: FailedBackends;
  #configurationDigest = '';
  readonly #flows = new Set<PerPacketFlow>();

  constructor(tools: UdpTools, slotNow: () => RuleSlot) {
    this.#tools = tools;
    this.#slotNow = slotNow;
    this.#failed = new FailedBackends(tools.manager.clock);
  }

  enter(flow: PerPacketFlow): void {
    this.#flows.add(flow);
  }

  /** Idempotent. */
  leave(flow: PerPacketFlow): void {
    if (this.#flows.delete(flow) && this.#flows.size === 0) this.#closeAll();
  }

  /** Sends the datagram to the backend it is hashed to, and says which; undefined where there is none. */
  send(datagram: Buffer, flow: Flow, sequence: number): DialTarget | undefined {
    const { state } = this.#tools.manager;
    if (state.configuration.digest !== this.#configurationDigest) {
      // Endpoints may have changed; what is still right opens again with the next datagram.
      this.#closeAll();
      this.#configurationDigest = state.configuration.digest;
    }
    const pick = this.#pick(flow, sequence);
    if (pick.kind !== 'picked') return undefined;
    const counted = this.#upstreams.get(pick.backendId) ?? this.#open(state, pick, flow);
    counted.upstream.send(datagram);
    count(flow, counted.totals, datagram.length);
    return counted.upstream.target;
  }

  onConnected(): void {
    // Nothing waits for it.
  }

  onRefused(refusal: DialRefusal, by: Upstream): void {
    const { backendId } = by.target;
    this.#upstreams.delete(backendId);
    if (refusal === 'unreachable') this.onUnreachable('no route to backend', by);
    this.#drop(refusal === 'unreachable' ? 'send-failed' : refusal);
  }

  onReply(): void {
    this.#drop('unexpected-reply');
  }

  onUnreachable(evidence: string, by: Upstream): void {
    const { backendId } = by.target;
    if (!this.#failed.add(backendId)) return;
    this.#tools.manager.backendFailed(this.#slotNow().rule, 'udp', backendId, evidence);
  }

  onSendFailed(): void {
    this.#drop('send-failed');
  }

  #pick(flow: Flow, sequence: number): RulePickResult {
    const { manager, picker } = this.#tools;
    const { slot, tuple } = flow;
    const failed = this.#failed.present();
    const pick = picker.pickForRule(manager.state, slot.index, tuple, failed, sequence);
    if (pick.kind === 'picked' || failed.size === 0) return pick;
    // All have failed a moment ago: rather one of those than none.
    return picker.pickForRule(manager.state, slot.index, tuple, NONE_EXCLUDED, sequence);
  }

  #open(state: ForwardingState, pick: Picked, flow: Flow): CountedUpstream {
    const { manager, dialer, targets } = this.#tools;
    const target = targets.of(state, pick, flow.tuple.destinationPort);
    const counted = {
      upstream: new Upstream(target, dialer, this),
      totals: manager.traffic.of(flow.rule.name, target.backendId, 'udp'),
    };
    this.#upstreams.set(target.backendId, counted);
    counted.upstream.start();
    return counted;
  }

  #closeAll(): void {
    for (const { upstream } of this.#upstreams.values()) upstream.close();
    this.#upstreams.clear();
  }

  #drop(reason: 'send-failed' | 'unexpected-reply' | 'ports-exhausted' | 'descriptors-exhausted'): void {
    this.#tools.manager.dropped(this.#slotNow().rule, 'udp', reason);
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
