import type { FiveTuple, Protocol } from '../model/address.js';
import type { Configuration, Rule } from '../model/configuration.js';
import type { DropReason } from '../model/events.js';
import type { FlowEndReason } from '../model/flow.js';
import type { ForwardingState, PoolView } from '../model/forwarding.js';
import type { Clock } from '../runtime/clock.js';
import { AnsweringPorts, forwardsOnePort } from './answering-ports.js';
import {
  BackendCaps,
  WorkerCaps,
  backendCapName,
  type CapShares,
  type CapUse,
  type CapUses,
} from './caps.js';
import { EndPacer } from './end-pacer.js';
import type { EventQueue } from './event-queue.js';
import { FlowTable, descriptorsFor } from './flow-table.js';
import {
  Flow,
  flowRecord,
  mix32,
  ruleSlots,
  type CloseStyle,
  type FlowPast,
  type FlowTransport,
  type Placement,
  type RuleSlot,
} from './flow.js';
import { IdleWheel } from './idle-wheel.js';
import { FlowJudge, ruleSuccessors, type Verdict } from './judge.js';
import { Traffic } from './traffic.js';

/** Where a flow is put, and why. */
export type NewPlacement = Pick<Placement, 'backendId' | 'endpoint' | 'reason'>;

/** As often as a probe is brought forward at most. */
const REFUSAL_SPACING_MS = 500;

/** For placements that passed no backend over: one list for all. */
const NO_IDS: readonly string[] = Object.freeze([]);

export interface FlowManagerOptions {
  readonly flowEvents: boolean;
  /** Flow ids are `n * workers + worker`, so that they are unique over all workers. */
  readonly worker: number;
  readonly workers: number;
}

/**
 * The one way in and out of the flow table of a worker. TCP and UDP open, place, move and end their flows here, so that
 * budgets, idle wheel, totals and events can never disagree, and a new forwarding state is held against the flows here.
 * It knows no socket: those hang on a flow's transport.
 */
export class FlowManager {
  readonly clock: Clock;
  readonly traffic = new Traffic();
  readonly caps = new BackendCaps();
  readonly table: FlowTable;
  readonly #events: EventQueue;
  readonly #options: FlowManagerOptions;
  readonly #wheel: IdleWheel<Flow>;
  readonly #workerCaps: WorkerCaps;
  readonly #pacer: EndPacer<Flow>;
  readonly #answering: AnsweringPorts;
  /** By backend: when its probe was last asked for, because of a refusal that counts for nothing else. */
  readonly #refusalTold = new Map<string, number>();
  /** Caps of the table that have refused a flow since they were last asked for. */
  readonly #wanting = new Set<string>();
  #state: ForwardingState;
  #slots: readonly RuleSlot[];
  #stagedSlots: { readonly digest: string; readonly slots: readonly RuleSlot[] } | undefined;
  #judge: FlowJudge;
  #nextId: number;

  constructor(
    deps: { readonly clock: Clock; readonly events: EventQueue },
    options: FlowManagerOptions,
    state: ForwardingState,
  ) {
    this.clock = deps.clock;
    this.#events = deps.events;
    this.#options = options;
    this.#workerCaps = new WorkerCaps(options);
    this.#answering = new AnsweringPorts(this.clock.monotonicMs());
    this.table = new FlowTable(state.configuration.limits);
    this.#nextId = options.workers + options.worker;
    this.#wheel = new IdleWheel<Flow>(this.clock.monotonicMs(), (flow) => this.#dueMs(flow));
    this.#pacer = new EndPacer<Flow>(this.clock, {
      endBatch: (flows) => {
        for (const flow of flows) this.#endDrained(flow);
      },
      rank: ({ id }) => mix32(id),
    });
    this.#state = state;
    this.#slots = ruleSlots(state.configuration);
    this.#judge = new FlowJudge(state);
    this.#takeOver(state);
  }

  /** What decisions are made with now. */
  get state(): ForwardingState {
    return this.#state;
  }

  /** The rules of a configuration: of the present one, or of one that is about to take its place. */
  slotsFor(configuration: Configuration): readonly RuleSlot[] {
    const { digest } = configuration;
    if (digest === this.#state.configuration.digest) return this.#slots;
    if (this.#stagedSlots?.digest !== digest) this.#stagedSlots = { digest, slots: ruleSlots(configuration) };
    return this.#stagedSlots.slots;
  }

  /** The present rule of that name. */
  slotNamed(rule: string): RuleSlot | undefined {
    return this.#slots.find((slot) => slot.rule.name === rule);
  }

  /**
   * Decides by this state from now on, and holds existing flows against it. Flows whose rule has another name now keep
   * going under it; flows whose rule is gone end; flows whose backend is no longer valid meet their rule's flow policy:
   * at once, or, after a drain, one after another. Doing it again changes nothing. Costs O(backends), and O(flows) only
   * for flows of invalid backends, or for all if the configuration changed.
   */
  apply(state: ForwardingState): void {
    const { configuration: before } = this.#state;
    const { configuration } = state;
    const hasChanged = configuration.digest !== before.digest;
    this.#slots = hasChanged ? this.slotsFor(configuration) : this.#slots;
    this.#stagedSlots = undefined;
    this.#takeOver(state);
    const heirs = hasChanged ? this.#heirsOf(before) : undefined;
    if (hasChanged) {
      const backends = configuration.backendPools.flatMap(({ backends }) => backends);
      this.#answering.keepOnly(new Set(backends.map(({ id }) => id)));
    }
    const drained = new Map(
      [...this.#judge.drained()].map(([id, spreadMs]) => [id, { spreadMs, items: [] as Flow[] }]),
    );
    for (const flow of hasChanged ? [...this.table.all()] : this.#suspects()) {
      if (heirs !== undefined && !this.#succeed(flow, heirs.get(flow.rule.name))) continue;
      const verdict = this.#verdictOn(flow);
      if (verdict === undefined) continue;
      const ending =
        verdict.trigger === 'drain-deadline' ? drained.get(flow.placement?.backendId ?? '') : undefined;
      if (ending === undefined || verdict.action === 'persist') this.#enforce(flow, verdict);
      else ending.items.push(flow);
    }
    this.#pacer.replace(drained);
  }

  /** Takes over this worker's shares of caps that hold over all workers; flows above them stay. */
  allow(shares: CapShares): void {
    this.#workerCaps.allow(shares);
    this.#setCaps();
  }

  /** See WorkerPlane.capUses. */
  capUses(): CapUses {
    const uses = new Map<string, CapUse>();
    for (const name of ['tcp', 'udp', 'embryonic'] as const) {
      uses.set(name, { used: this.table.use(name).used, wanting: this.#wanting.delete(name) });
    }
    for (const [id, use] of this.caps.uses()) uses.set(backendCapName(id), use);
    return uses;
  }

  /** Counts something that arrived at a rule: a TCP connection, or the first datagram of a UDP flow. */
  arrived(rule: Rule, protocol: Protocol): void {
    this.traffic.arrivals(rule.name, protocol).arrivals++;
  }

  /** Counts something refused or thrown away. */
  dropped(rule: Rule, protocol: Protocol, reason: DropReason): void {
    this.traffic.countDrop(rule.name, protocol, reason);
    this.#events.dropped(reason);
  }

  /**
   * Takes a flow in, not placed yet, or says why not. The refusal is already counted. `past`: of one that is not new.
   * Evicts UDP flows without an answer where that makes room.
   */
  open(tuple: FiveTuple, slot: RuleSlot, transport: FlowTransport, past?: FlowPast): Flow | DropReason {
    const refusal = this.#makeRoom(tuple, slot.rule);
    if (refusal !== undefined) {
      this.dropped(slot.rule, tuple.protocol, refusal);
      return refusal;
    }
    const id = this.#nextId;
    this.#nextId += this.#options.workers;
    const nowMs = this.clock.monotonicMs();
    const flow = new Flow({ id, tuple, slot, transport, wallMs: this.clock.wallMs(), nowMs, past });
    this.table.add(flow);
    this.#wheel.schedule(flow);
    return flow;
  }

  /** The client of a UDP flow that has not been answered yet has sent something. */
  heardFromClient(flow: Flow): void {
    this.table.heardFromClient(flow);
  }

  /** The true endpoints of a flow became known (PROXY protocol). May be refused: then nothing changed. */
  identify(flow: Flow, tuple: FiveTuple): DropReason | undefined {
    const isKnown = flow.tuple.source.text === tuple.source.text;
    if (!isKnown && this.table.isSourceFull(tuple.protocol, tuple.source.text)) {
      this.dropped(flow.rule, tuple.protocol, 'source-cap');
      return 'source-cap';
    }
    this.table.change(flow, () => (flow.tuple = tuple));
    return undefined;
  }

  /**
   * Puts the flow on a backend, by the present state: counts against that backend's cap and totals. TCP calls this before
   * it connects, and again for a retry; a connection that fails is reported with backendFailed. A UDP flow that is
   * established moves by it. `excluded`: backends that it could not be placed on, where there are any.
   */
  place(flow: Flow, { backendId, endpoint, reason }: NewPlacement, excluded?: ReadonlySet<string>): void {
    const { placement: before, slot, tuple } = flow;
    if (before !== undefined) this.caps.freed(before.backendId, tuple.protocol);
    const epoch = this.#state.revision;
    const ids = excluded === undefined || excluded.size === 0 ? NO_IDS : idsIn(slot.view, excluded);
    const placement = { backendId, endpoint, reason, epoch, excluded: ids };
    this.table.change(flow, () => (flow.placement = placement));
    this.caps.taken(backendId, tuple.protocol);
    this.traffic.enter(flow, flow.rule.name, backendId);
    if (flow.state !== 'embryonic' && before !== undefined) this.#moved(flow, before.backendId);
  }

  /** The flow carries traffic from here on: logged, counted as opened, and off the embryonic budget. */
  establish(flow: Flow): void {
    this.table.change(flow, () => (flow.state = 'established'));
    flow.lastActivityMs = this.clock.monotonicMs();
    this.#wheel.schedule(flow);
    this.#countOpened(flow);
    this.traffic.countSource(flow.rule.name, flow.tuple.protocol, flow.tuple.source);
    if (this.#options.flowEvents) {
      this.#events.push({ type: 'flow-started', atMs: this.clock.wallMs(), flow: this.#record(flow) });
    }
  }

  /** One direction of a TCP flow has ended. */
  halfClosed(flow: Flow): void {
    if (flow.state === 'established') flow.state = 'half-closed';
  }

  /** Keeps a flow without a backend side: held until the embryonic limit (TCP) or idleness (UDP) ends it. */
  blackhole(flow: Flow): void {
    if (flow.tableIndex < 0 || flow.state === 'blackholed') return;
    this.table.change(flow, () => (flow.state = 'blackholed'));
    flow.lastActivityMs = this.clock.monotonicMs();
    this.#wheel.schedule(flow);
    flow.transport.blackhole();
  }

  /** Ends a flow for good and closes its sockets. Idempotent. */
  end(flow: Flow, reason: FlowEndReason, style: CloseStyle): void {
    if (flow.tableIndex < 0) return;
    if (flow.placement !== undefined) this.caps.freed(flow.placement.backendId, flow.tuple.protocol);
    const totals = this.traffic.leave(flow);
    if (totals !== undefined) {
      totals.flowsEnded[reason] = (totals.flowsEnded[reason] ?? 0) + 1;
      if (style === 'reset' && flow.tuple.protocol === 'tcp') totals.resets++;
    }
    this.table.remove(flow);
    this.#wheel.cancel(flow);
    if (this.#options.flowEvents && flow.placement !== undefined) {
      const atMs = this.clock.wallMs();
      this.#events.push({ type: 'flow-ended', atMs, flow: this.#record(flow), end: reason });
    }
    flow.transport.close(style);
  }

  /** The flow's backend has accepted its connection, or sent it a datagram. */
  answered(flow: Flow): void {
    this.table.answered(flow);
    const { placement } = flow;
    if (placement === undefined) return;
    this.#answering.add(placement.backendId, placement.endpoint.port, this.clock.monotonicMs());
  }

  /**
   * What it means that a backend refuses the port of a flow (RST, ICMP port unreachable). `answer`: to the client, for most
   * of the ports that a rule forwards may be closed. `failure`: of the backend, because the rule has but one port, the
   * port was open before, or the backend's probe says so too.
   */
  refused({ placement, slot }: Flow): 'answer' | 'failure' {
    if (placement === undefined) return 'failure';
    const { backendId, endpoint } = placement;
    const nowMs = this.clock.monotonicMs();
    const wasOpen = this.#answering.has(backendId, endpoint.port, nowMs);
    const member = slot.view?.backends.find(({ backend }) => backend.id === backendId);
    if (wasOpen || member?.health === 'down' || forwardsOnePort(slot.rule)) return 'failure';
    if (nowMs - (this.#refusalTold.get(backendId) ?? -Infinity) >= REFUSAL_SPACING_MS) {
      this.#refusalTold.set(backendId, nowMs);
      this.#events.push({ type: 'port-refused', atMs: this.clock.wallMs(), backendId });
    }
    return 'answer';
  }

  /** Traffic found a backend unreachable. */
  backendFailed(rule: Rule, protocol: Protocol, backendId: string, evidence: string): void {
    this.traffic.of(rule.name, backendId, protocol).connectFailures++;
    this.#events.push({ type: 'passive-failure', atMs: this.clock.wallMs(), backendId, evidence });
  }

  /** The flow tries another backend than the one that just failed it. */
  retried(flow: Flow): void {
    if (flow.totals !== undefined) flow.totals.connectRetries++;
  }

  /** Ends what has been idle, or embryonic, for too long. Called every WHEEL_TICK_MS. */
  tick(): void {
    this.#wheel.advance(this.clock.monotonicMs(), (flow) => this.#expire(flow));
    this.#events.tick();
  }

  /** Brings the totals up to date with all live flows. */
  settleAll(): void {
    for (const flow of this.table.all()) this.traffic.settle(flow);
  }

  /** Ends no drained flow any more. */
  stop(): void {
    this.#pacer.stop();
  }

  #takeOver(state: ForwardingState): void {
    this.#state = state;
    this.#judge = new FlowJudge(state);
    for (const slot of this.#slots) slot.view = state.views[state.viewOfRule[slot.index] ?? -1];
    this.#setCaps();
  }

  #setCaps(): void {
    const { limits, backendPools } = this.#state.configuration;
    const caps = this.#workerCaps;
    this.table.setLimits({
      ...limits,
      tcpFlows: caps.shareOf('tcp', limits.tcpFlows),
      udpFlows: caps.shareOf('udp', limits.udpFlows),
      embryonicFlows: caps.shareOf('embryonic', limits.embryonicFlows),
    });
    this.caps.setCaps(backendPools, (id, cap) => caps.shareOf(backendCapName(id), cap));
  }

  /** Why there is no room for a flow of this client, even after evictions; undefined: there is. */
  #makeRoom({ protocol, source }: FiveTuple, rule: Rule): DropReason | undefined {
    const descriptors = descriptorsFor(protocol, rule);
    for (;;) {
      const refusal = this.table.refusal(protocol, source.text, descriptors);
      if (refusal === undefined) return undefined;
      if (refusal === 'table-full') this.#wanting.add(protocol);
      else if (refusal === 'embryonic-full') this.#wanting.add('embryonic');
      // A client at its cap evicts no one: it would be refused nevertheless.
      const evicted = this.table.isSourceFull(protocol, source.text)
        ? undefined
        : this.table.evictable(refusal, protocol);
      if (evicted === undefined) return refusal;
      // An eviction is reported as an overload; only a refusal is counted as a drop.
      this.#events.dropped(refusal);
      this.end(evicted, 'evicted', 'close');
    }
  }

  *#suspects(): Generator<Flow> {
    for (const id of this.table.backendIds()) if (this.#judge.isSuspect(id)) yield* this.table.flowsOn(id);
  }

  /** By name of a rule of the configuration before: the rule that takes over its flows. */
  #heirsOf(before: Configuration): ReadonlyMap<string, RuleSlot> {
    const slots = new Map(this.#slots.map((slot) => [slot.rule.name, slot]));
    const successors = ruleSuccessors(before, this.#state.configuration);
    return new Map([...successors].map(([old, name]) => [old, slots.get(name)!]));
  }

  /** Hands the flow its rule as it is now. False: there is none, and the flow has ended. */
  #succeed(flow: Flow, heir: RuleSlot | undefined): boolean {
    const isRenamed = heir?.rule.name !== flow.rule.name;
    if (heir === undefined || (isRenamed && !heir.rule.protocols.includes(flow.tuple.protocol))) {
      this.end(flow, 'rule-removed', 'reset');
      return false;
    }
    flow.slot = heir;
    if (isRenamed && flow.placement !== undefined) {
      this.traffic.enter(flow, heir.rule.name, flow.placement.backendId);
    }
    // Its idle timeout may be shorter now.
    this.#wheel.schedule(flow);
    return true;
  }

  #verdictOn({ slot, tuple, placement, state }: Flow): Verdict | undefined {
    const { protocol } = tuple;
    return this.#judge.judge(slot.index, { protocol, backendId: placement?.backendId, state });
  }

  #enforce(flow: Flow, { trigger, action }: Verdict): void {
    switch (action) {
      case 'persist':
        if (flow.placement !== undefined && flow.placement.reason !== 'pinned') {
          flow.placement = { ...flow.placement, reason: 'pinned' };
        }
        return;
      case 'rebalance':
        flow.transport.unpin();
        return;
      case 'reset':
        // Every trigger is also the name of the end it leads to.
        this.end(flow, trigger, 'reset');
        return;
      case 'drop':
        this.blackhole(flow);
        return;
    }
  }

  /** Its turn has come; by now it may have finished, or moved. */
  #endDrained(flow: Flow): void {
    if (flow.tableIndex < 0) return;
    const verdict = this.#verdictOn(flow);
    if (verdict?.trigger === 'drain-deadline') this.#enforce(flow, verdict);
  }

  #expire(flow: Flow): void {
    // Ended by what was due before it in the same tick.
    if (flow.tableIndex < 0) return;
    if (flow.state === 'embryonic') {
      this.end(flow, 'embryonic-timeout', 'reset');
      return;
    }
    if (flow.state === 'blackholed') {
      this.end(flow, flow.tuple.protocol === 'udp' ? 'idle' : 'embryonic-timeout', 'close');
      return;
    }
    const action = flow.rule.flowPolicy.idle[flow.tuple.protocol];
    if (action === 'persist') {
      flow.lastActivityMs = this.clock.monotonicMs();
      this.#wheel.schedule(flow);
      return;
    }
    this.end(flow, 'idle', flow.rule.tcpReset && action !== 'drop' ? 'reset' : 'close');
  }

  #dueMs(flow: Flow): number {
    const { protocol } = flow.tuple;
    const isWaiting = flow.state === 'embryonic' || (flow.state === 'blackholed' && protocol === 'tcp');
    if (isWaiting) return flow.lastActivityMs + this.#state.configuration.limits.embryonicTimeoutMs;
    return flow.lastActivityMs + flow.rule.idleTimeoutMs[protocol].value;
  }

  #moved(flow: Flow, fromBackendId: string): void {
    this.#countOpened(flow);
    if (!this.#options.flowEvents || fromBackendId === flow.placement?.backendId) return;
    const atMs = this.clock.wallMs();
    this.#events.push({ type: 'flow-moved', atMs, flow: this.#record(flow), fromBackendId });
  }

  #countOpened({ totals }: Flow): void {
    if (totals === undefined) return;
    totals.flowsOpened++;
    totals.lastFlowAtMs = this.clock.wallMs();
  }

  #record(flow: Flow): ReturnType<typeof flowRecord> {
    return flowRecord(flow, this.clock.monotonicMs());
  }
}

/** In the pool's order, as logs and replays want them. */
function idsIn(view: PoolView | undefined, ids: ReadonlySet<string>): readonly string[] {
  return (view?.backends ?? []).map(({ backend }) => backend.id).filter((id) => ids.has(id));
}
