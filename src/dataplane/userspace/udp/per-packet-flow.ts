import type { Flow } from '../../../flow/flow.js';
import {
  NOBODY,
  type ClientEnd,
  type ClientFlow,
  type FlowHost,
  type FlowStart,
  type UdpTools,
} from './client-flow.js';
import type { SharedUpstreams } from './shared-upstreams.js';

/** One client's flow whose datagrams are balanced each by itself (one-way protocols: syslog, statsd). */
export class PerPacketFlow implements ClientFlow {
  readonly #tools: UdpTools;
  readonly #host: FlowHost;
  readonly #client: ClientEnd;
  readonly #upstreams: SharedUpstreams;
  // Set before anybody else sees this: a Flow needs its transport first.
  #flow!: Flow;
  /** Datagrams so far: each goes by one slot further. */
  #sequence = 0;
  /** The backend that the flow is listed under may not keep it. */
  #unpinned = false;
  #inside = false;

  private constructor(tools: UdpTools, host: FlowHost, client: ClientEnd, upstreams: SharedUpstreams) {
    this.#tools = tools;
    this.#host = host;
    this.#client = client;
    this.#upstreams = upstreams;
  }

  /** Takes a flow in, listed under the picked backend. Undefined where that is refused, which is counted. */
  static open(
    start: FlowStart,
    tools: UdpTools,
    host: FlowHost,
    upstreams: SharedUpstreams,
  ): PerPacketFlow | undefined {
    const { keeper } = tools;
    const opened = new PerPacketFlow(tools, host, start.client, upstreams);
    const flow = keeper.open(start.tuple, start.rule, opened);
    if (typeof flow === 'string') return undefined;
    opened.#flow = flow;
    const { backendId, endpoint } = tools.targets.of(keeper.state, start.pick, start.tuple.destinationPort);
    const { reason } = start.pick;
    keeper.place(flow, { backendId, endpoint, reason, epoch: keeper.state.revision, excluded: NOBODY });
    keeper.establish(flow);
    upstreams.enter();
    opened.#inside = true;
    return opened;
  }

  fromClient(datagram: Buffer): void {
    const { keeper } = this.#tools;
    const flow = this.#flow;
    flow.lastActivityMs = keeper.clock.monotonicMs();
    if (flow.state === 'blackholed') {
      keeper.dropped(flow.rule, 'udp', 'blackholed');
      return;
    }
    const target = this.#upstreams.send(datagram, flow, this.#sequence++);
    if (target === undefined) {
      keeper.dropped(flow.rule, 'udp', 'no-backend');
      keeper.end(flow, 'no-backend', 'gone');
      return;
    }
    if (!this.#unpinned) return;
    this.#unpinned = false;
    const { backendId, endpoint } = target;
    const epoch = keeper.state.revision;
    keeper.move(flow, { backendId, endpoint, reason: 'rebalanced', epoch, excluded: NOBODY });
  }

  shutDown(): void {
    this.#tools.keeper.end(this.#flow, 'shutdown', 'close');
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
    if (!this.#inside) return;
    this.#inside = false;
    this.#upstreams.leave();
  }

  unpin(): void {
    this.#unpinned = true;
  }
}
