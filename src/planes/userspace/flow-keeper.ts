import { FlowTable } from '../../flows/flow-table.js';
import {
  Flow,
  flowRecord,
  mix32,
  type CloseStyle,
  type FlowPast,
  type FlowTransport,
  type Placement,
} from '../../flows/flow.js';
import { IdleWheel } from '../../flows/idle-wheel.js';
import { EndPacer } from '../../flows/end-pacer.js';
import { FlowJudge, ruleSuccessors, type Verdict } from '../../flows/judge.js';
import { EventBatches, Traffic } from '../../flows/traffic.js';
import type { FiveTuple, Protocol } from '../../model/address.js';
import type { Configuration, Rule } from '../../model/configuration.js';
import type { DropReason, PlaneEvent } from '../../model/events.js';
import type { FlowEndReason } from '../../model/flow.js';
import type { ForwardingState } from '../../model/forwarding.js';
import type { Clock } from '../../runtime/clock.js';
import { backendCapName, type CapShares, type CapUse, type CapUses } from '../contract.js';
import { BackendCaps, WorkerCaps } from './limits.js';

export interface FlowKeeperDeps {
  readonly clock: Clock;
  readonly events: EventQueue;
}

export interface FlowKeeperOptions {
  readonly flowEvents: boolean;
  /** Flow ids are `n * workers + worker`, so that they are unique over all workers. */
  readonly worker: number;
  readonly workers: number;
}

/**
 * The one way in and out of the flow table of a worker. TCP and UDP open, place, move and end their flows here, so
 * that budgets, idle wheel, totals and events can never disagree. It knows no socket: those hang on a flow's
 * transport.
 */
export class FlowKeeper {
  readonly clock: Clock;
  readonly traffic = new Traffic();
  readonly caps = new BackendCaps();
  readonly #events: EventQueue;
  readonly #options: FlowKeeperOptions;
  readonly #table: FlowTable;
  readonly #wheel: IdleWheel<Flow>;
  readonly #shares: WorkerCaps;
  /** Caps of the table that have refused a flow since they were last asked for. */
  readonly #wanting = new Set<string>();
  #state: ForwardingState;
  #nextId: number;

  constructor(deps: FlowKeeperDeps, options: FlowKeeperOptions, state: ForwardingState) {
    this.clock = deps.clock;
    this.#events = deps.events;
    this.#options = options;
    this.#state = state;
    this.#shares = new WorkerCaps(options);
    this.#table = new FlowTable(state.configuration.limits);
    this.#setCaps();
    this.#nextId = options.workers + options.worker;
    this.#wheel = new IdleWheel<Flow>(this.clock.monotonicMs(), (flow) => this.#dueMs(flow));
  }

  /** What decisions are made with now. */
  get state(): ForwardingState {
    return this.#state;
  }

  get table(): FlowTable {
    return this.#table;
  }

  /** Swaps the state that later decisions use. Enforcing flow policy on existing flows is the caller's next step. */
  adopt(state: ForwardingState): void {
    this.#state = state;
    this.#setCaps();
  }

  /** Takes over this worker's shares of caps that hold over all workers; flows above them stay. */
  allow(shares: CapShares): void {
    this.#shares.allow(shares);
    this.#setCaps();
  }

  /** See WorkerPlane.capUses. */
  capUses(): CapUses {
    const uses = new Map<string, CapUse>();
    for (const name of ['tcp', 'udp', 'embryonic'] as const) {
      uses.set(name, { used: this.#table.use(name).used, wanting: this.#wanting.delete(name) });
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

  /** Takes a flow in, not placed yet, or says why not. The refusal is already counted. `past`: of one that is not new. */
  open(tuple: FiveTuple, rule: Rule, transport: FlowTransport, past?: FlowPast): Flow | DropReason {
    const refusal = this.#table.refusal(tuple.protocol, tuple.source.text);
    if (refusal !== undefined) {
      if (refusal === 'table-full') this.#wanting.add(tuple.protocol);
      else if (refusal === 'embryonic-full') this.#wanting.add('embryonic');
      this.dropped(rule, tuple.protocol, refusal);
      return refusal;
    }
    const id = this.#nextId;
    this.#nextId += this.#options.workers;
    const nowMs = this.clock.monotonicMs();
    const flow = new Flow({ id, tuple, rule, transport, wallMs: this.clock.wallMs(), nowMs, past });
    this.#table.add(flow);
    this.#wheel.schedule(flow);
    return flow;
  }

  /** The true endpoints of a flow became known (PROXY protocol). May be refused: then nothing changed. */
  identify(flow: Flow, tuple: FiveTuple): DropReason | undefined {
    const known = flow.tuple.source.text === tuple.source.text;
    if (!known && this.#table.isSourceFull(tuple.protocol, tuple.source.text)) {
      this.dropped(flow.rule, tuple.protocol, 'source-cap');
      return 'source-cap';
    }
    this.#table.change(flow, () => (flow.tuple = tuple));
    return undefined;
  }

  /**
   * Puts the flow on a backend: counts against that backend's cap and totals. TCP calls this before it connects and
   * again for a retry; a connection that fails is told with backendFailed.
   */
  place(flow: Flow, placement: Placement): void {
    this.#release(flow);
    this.#table.change(flow, () => (flow.placement = placement));
    this.caps.taken(placement.backendId, flow.tuple.protocol);
    this.traffic.of(flow.rule.name, placement.backendId, flow.tuple.protocol).flowsActive++;
  }

  /** The flow carries traffic from here on: logged, counted as opened, and off the embryonic budget. */
  establish(flow: Flow): void {
    this.#table.change(flow, () => (flow.state = 'established'));
    flow.lastActivityMs = this.clock.monotonicMs();
    this.#wheel.schedule(flow);
    const { placement, rule, tuple } = flow;
    if (placement !== undefined) this.#countOpened(flow, placement);
    this.traffic.countSource(rule.name, tuple.protocol, tuple.source);
    if (this.#options.flowEvents) {
      this.#events.push({ type: 'flow-started', atMs: this.clock.wallMs(), flow: this.#record(flow) });
    }
  }

  /** The flow's rule as a new configuration has it, under whatever name. A shorter idle timeout holds from now on. */
  adoptRule(flow: Flow, rule: Rule): void {
    const { protocol } = flow.tuple;
    if (rule.name !== flow.rule.name) this.traffic.rename(flow, rule.name);
    const isShorter = rule.idleTimeoutMs[protocol].value < flow.rule.idleTimeoutMs[protocol].value;
    flow.rule = rule;
    if (isShorter) this.#wheel.schedule(flow);
  }

  /** One direction of a TCP flow has ended. */
  halfClosed(flow: Flow): void {
    if (flow.state === 'established') flow.state = 'half-closed';
  }

  /** Moves an established UDP flow to another backend. */
  move(flow: Flow, placement: Placement): void {
    const fromBackendId = flow.placement?.backendId ?? '';
    this.place(flow, placement);
    this.#countOpened(flow, placement);
    if (this.#options.flowEvents && fromBackendId !== placement.backendId) {
      const atMs = this.clock.wallMs();
      this.#events.push({ type: 'flow-moved', atMs, flow: this.#record(flow), fromBackendId });
    }
  }

  /** Keeps a flow without a backend side: held until the embryonic limit (TCP) or idleness (UDP) ends it. */
  blackhole(flow: Flow): void {
    if (flow.slot < 0 || flow.state === 'blackholed') return;
    this.#table.change(flow, () => (flow.state = 'blackholed'));
    flow.lastActivityMs = this.clock.monotonicMs();
    this.#wheel.schedule(flow);
    flow.transport.blackhole();
  }

  /** Ends a flow for good and closes its sockets. Idempotent. */
  end(flow: Flow, reason: FlowEndReason, style: CloseStyle): void {
    if (flow.slot < 0) return;
    const totals = this.#release(flow);
    if (totals !== undefined) {
      totals.flowsEnded[reason] = (totals.flowsEnded[reason] ?? 0) + 1;
      if (style === 'reset' && flow.tuple.protocol === 'tcp') totals.resets++;
    }
    this.#table.remove(flow);
    this.#wheel.cancel(flow);
    if (this.#options.flowEvents && flow.placement !== undefined) {
      const atMs = this.clock.wallMs();
      this.#events.push({ type: 'flow-ended', atMs, flow: this.#record(flow), end: reason });
    }
    flow.transport.close(style);
  }

  /** Traffic found a backend unreachable. */
  backendFailed(flow: Flow, evidence: string): void {
    const backendId = flow.placement?.backendId;
    if (backendId !== undefined) this.backendUnreachable(flow.rule, flow.tuple.protocol, backendId, evidence);
  }

  /** As backendFailed, where a backend is not the one a flow is placed on. */
  backendUnreachable(rule: Rule, protocol: Protocol, backendId: string, evidence: string): void {
    this.traffic.of(rule.name, backendId, protocol).connectFailures++;
    this.#events.push({ type: 'passive-failure', atMs: this.clock.wallMs(), backendId, evidence });
  }

  /** The flow goes on to another backend than the one that just failed it. */
  retried(flow: Flow): void {
    const backendId = flow.placement?.backendId;
    if (backendId === undefined) return;
    this.traffic.of(flow.rule.name, backendId, flow.tuple.protocol).connectRetries++;
  }

  /** Ends what has been idle, or embryonic, for too long. Called every WHEEL_TICK_MS. */
  tick(): void {
    this.#wheel.advance(this.clock.monotonicMs(), (flow) => this.#expire(flow));
    this.#events.tick();
  }

  /** Brings the totals up to date with all live flows. */
  settleAll(): void {
    for (const flow of this.#table.all()) this.traffic.settle(flow);
  }

  #setCaps(): void {
    const { limits, backendPools } = this.#state.configuration;
    this.#table.setLimits({
      ...limits,
      tcpFlows: this.#shares.shareOf('tcp', limits.tcpFlows),
      udpFlows: this.#shares.shareOf('udp', limits.udpFlows),
      embryonicFlows: this.#shares.shareOf('embryonic', limits.embryonicFlows),
    });
    this.caps.setCaps(backendPools, (id, cap) => this.#shares.shareOf(backendCapName(id), cap));
  }

  #expire(flow: Flow): void {
    // Ended by what was due before it in the same tick.
    if (flow.slot < 0) return;
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
    const waiting = flow.state === 'embryonic' || (flow.state === 'blackholed' && protocol === 'tcp');
    if (waiting) return flow.lastActivityMs + this.#state.configuration.limits.embryonicTimeoutMs;
    return flow.lastActivityMs + flow.rule.idleTimeoutMs[protocol].value;
  }

  #countOpened({ rule, tuple }: Flow, { backendId }: Placement): void {
    const totals = this.traffic.of(rule.name, backendId, tuple.protocol);
    totals.flowsOpened++;
    totals.lastFlowAtMs = this.clock.wallMs();
  }

  /** Takes the flow off its present backend's cap and totals. */
  #release(flow: Flow): ReturnType<Traffic['of']> | undefined {
    const { placement } = flow;
    if (placement === undefined) return undefined;
    this.traffic.settle(flow);
    this.caps.freed(placement.backendId, flow.tuple.protocol);
    const totals = this.traffic.of(flow.rule.name, placement.backendId, flow.tuple.protocol);
    totals.flowsActive--;
    return totals;
  }

  #record(flow: Flow): ReturnType<typeof flowRecord> {
    return flowRecord(flow, this.clock.monotonicMs());
  }
}

/**
 * Holds flows against newly adopted states. Flows whose rule goes on under another name go with it; flows whose rule is
 * gone end; flows whose backend is no longer valid meet their rule's flow policy: at once, or, after a drain, one
 * after another.
 */
export class FlowEnforcement {
  readonly #keeper: FlowKeeper;
  readonly #pacer: EndPacer<Flow>;
  #judge: FlowJudge;
  #ruleIndexes: ReadonlyMap<string, number>;

  constructor(keeper: FlowKeeper) {
    this.#keeper = keeper;
    this.#judge = new FlowJudge(keeper.state);
    this.#ruleIndexes = ruleIndexes(keeper.state);
    this.#pacer = new EndPacer<Flow>(keeper.clock, {
      endBatch: (flows) => {
        for (const flow of flows) this.#endDrained(flow);
      },
      rank: ({ id }) => mix32(id),
    });
  }

  /**
   * To be called whenever the keeper has adopted a state, with the configuration before it. Doing it again changes
   * nothing. Costs O(backends), and O(flows) only for flows of invalid backends, or for all if the configuration changed.
   */
  enforce(previous: Configuration): void {
    const { state, table } = this.#keeper;
    const judge = new FlowJudge(state);
    this.#judge = judge;
    this.#ruleIndexes = ruleIndexes(state);
    const changed = state.configuration.digest !== previous.digest;
    const successors = changed ? ruleSuccessors(previous, state.configuration) : undefined;
    const flows = changed
      ? [...table.all()]
      : table
          .backendIds()
          .filter((id) => judge.isSuspect(id))
          .flatMap((id) => table.flowsOn(id));
    const drained = new Map(
      [...judge.drained()].map(([id, spreadMs]) => [id, { spreadMs, items: [] as Flow[] }]),
    );
    for (const flow of flows) {
      if (successors !== undefined && !this.#succeed(flow, successors)) continue;
      const verdict = this.#verdictOn(flow);
      const ending =
        verdict?.trigger === 'drain-deadline' ? drained.get(flow.placement?.backendId ?? '') : undefined;
      if (ending !== undefined && verdict?.action !== 'persist') ending.items.push(flow);
      else if (verdict !== undefined) act(this.#keeper, flow, verdict);
    }
    this.#pacer.replace(drained);
  }

  /** Ends nothing any more that is not ended yet. */
  stop(): void {
    this.#pacer.stop();
  }

  /** Hands the flow its rule as it is now. False: there is none, and the flow has ended. */
  #succeed(flow: Flow, successors: ReadonlyMap<string, string>): boolean {
    const name = successors.get(flow.rule.name);
    const rule = this.#keeper.state.configuration.rules[this.#ruleIndexes.get(name ?? '') ?? -1];
    const renamed = name !== flow.rule.name;
    if (rule === undefined || (renamed && !rule.protocols.includes(flow.tuple.protocol))) {
      this.#keeper.end(flow, 'rule-removed', 'reset');
      return false;
    }
    this.#keeper.adoptRule(flow, rule);
    return true;
  }

  #verdictOn({ rule, tuple, placement, state }: Flow): Verdict | undefined {
    const ruleIndex = this.#ruleIndexes.get(rule.name) ?? -1;
    const { protocol } = tuple;
    return this.#judge.judge(ruleIndex, { protocol, backendId: placement?.backendId, state });
  }

  /** Its turn has come; by now it may have finished, or moved. */
  #endDrained(flow: Flow): void {
    if (flow.slot < 0) return;
    const verdict = this.#verdictOn(flow);
    if (verdict?.trigger === 'drain-deadline') act(this.#keeper, flow, verdict);
  }
}

function ruleIndexes({ configuration }: ForwardingState): ReadonlyMap<string, number> {
  return new Map(configuration.rules.map(({ name }, index) => [name, index]));
}

function act(keeper: FlowKeeper, flow: Flow, { trigger, action }: Verdict): void {
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
      keeper.end(flow, trigger, 'reset');
      return;
    case 'drop':
      keeper.blackhole(flow);
      return;
  }
}

/** An overload has ended when its reason has not come up for this long. */
const OVERLOAD_QUIET_MS = 1000;

/** Reasons that mean a budget was hit, rather than that somebody sent what is not wanted. */
const OVERLOAD_REASONS: ReadonlySet<DropReason> = new Set<DropReason>([
  'table-full',
  'embryonic-full',
  'source-cap',
  'backends-full',
  'descriptors-exhausted',
  'ports-exhausted',
]);

/** Collects a worker's events and hands them on in batches; turns repeated drops into overload started / ended. */
export class EventQueue {
  readonly #clock: Clock;
  readonly #batches: EventBatches;
  readonly #overloads = new Map<DropReason, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#batches = new EventBatches(clock);
  }

  subscribe(listener: (events: readonly PlaneEvent[]) => void): () => void {
    return this.#batches.subscribe(listener);
  }

  push(event: PlaneEvent): void {
    this.#batches.push(event);
  }

  /** Notes a drop; the first of an overload reason starts an overload. */
  dropped(reason: DropReason): void {
    if (!OVERLOAD_REASONS.has(reason)) return;
    const known = this.#overloads.has(reason);
    this.#overloads.set(reason, this.#clock.monotonicMs());
    if (!known) this.push({ type: 'overload', atMs: this.#clock.wallMs(), phase: 'started', reason });
  }

  /** Ends overloads that have been quiet; called with every tick of the idle wheel. */
  tick(): void {
    for (const [reason, lastMs] of this.#overloads) {
      if (this.#clock.monotonicMs() - lastMs < OVERLOAD_QUIET_MS) continue;
      this.#overloads.delete(reason);
      this.push({ type: 'overload', atMs: this.#clock.wallMs(), phase: 'ended', reason });
    }
  }

  /** Hands on what is there now. */
  flush(): void {
    this.#batches.flush();
  }
}
