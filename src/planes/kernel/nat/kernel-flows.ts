import { EventQueue } from '../../../flows/event-queue.js';
import type { Limits } from '../../../model/configuration.js';
import type { PlaneEvent } from '../../../model/events.js';
import type { FlowEndReason } from '../../../model/flow.js';
import type { ForwardingState } from '../../../model/forwarding.js';
import type { Clock } from '../../../runtime/clock.js';
import type { Files } from '../../../runtime/files.js';
import type { Picker } from '../../../selection/picker.js';
import type { FlowPage, FlowQuery } from '../../contract.js';
import { ConntrackFlows } from '../../netfilter/conntrack.js';
import type { Tools } from '../../netfilter/tools.js';
import { FloatingEntries } from '../ebpf/floating-flows.js';
import { TableWatch } from '../ebpf/table-watch.js';
import { INSTANCE_MASK, markTag, type KernelInput } from '../program.js';
import type { EndingFlows, FlowSource } from '../stop.js';
import { FlowLedger, flowCounters, type FlowCounters } from './flow-ledger.js';
import { flowRecord, missingAccounts, type EntrySource, type KernelFlowEntry } from './mirrored-flow.js';
import { StateHistory } from './state-history.js';

export interface FlowMirrorDeps {
  readonly clock: Clock;
  readonly tools: Tools;
  /** Reads the sysctls of conntrack. */
  readonly files: Files;
  readonly picker: Picker;
  /** Where the flows are read from. @default conntrack, by the instance's marks */
  readonly source?: EntrySource;
}

export interface FlowMirrorOptions {
  /** Whether flow-started and flow-ended are wanted. */
  readonly flowEvents: boolean;
}

/** Whoever asks waits no longer than that for the newest figures: he then gets those of before. */
const PATIENCE_MS = 300;

interface Running {
  readonly source: EntrySource;
  readonly refresh: Refresh;
  readonly begun: Promise<void>;
  readonly stop: () => void;
  limits: Limits;
  /** What a flow is that was not told of, but is in a list. */
  discovery: 'adopted' | 'missed';
}

/**
 * The flows that the kernel has, as its events tell of them: by conntrack, or by the flow map where there is no
 * conntrack. Nothing here is on the path of a packet. Bytes, states and idle times are read when somebody asks.
 */
export class FlowMirror implements FlowSource {
  readonly #deps: FlowMirrorDeps;
  readonly #events: EventQueue;
  readonly #history: StateHistory;
  readonly #ledger: FlowLedger;
  readonly #table: TableWatch;
  #running: Running | undefined;
  #input: KernelInput | undefined;
  #gaps = 0;

  constructor(deps: FlowMirrorDeps, options: FlowMirrorOptions) {
    const { clock, picker } = deps;
    this.#deps = deps;
    this.#events = new EventQueue(clock);
    const emit = (event: PlaneEvent): void => this.#events.push(event);
    this.#history = new StateHistory(picker);
    this.#ledger = new FlowLedger({ clock, history: this.#history, emit }, options);
    this.#table = new TableWatch(deps, emit);
  }

  /**
   * By what flows are told from now on. Call it before each change of the kernel. From the first call on flows are
   * followed, so that none is missed.
   */
  update(state: ForwardingState, input: KernelInput): void {
    this.#ledger.rename(this.#history.take(state, input));
    this.#input = input;
    this.#running ??= this.#begin(input, state.configuration.limits);
    this.#running.limits = state.configuration.limits;
  }

  /** Learns what is there already, once `update` was called. Never rejects. */
  async start(): Promise<void> {
    const running = this.#running;
    if (running === undefined) throw new TypeError('There is no forwarding state yet');
    await Promise.all([running.begun, this.#table.start()]);
    await running.refresh.now();
    running.discovery = 'missed';
  }

  /** What cannot be told of flows for want of a sysctl, a sentence each. Never rejects. */
  async shortcomings(): Promise<readonly string[]> {
    return this.#running?.source.follow === undefined ? [] : missingAccounts(this.#deps.files);
  }

  /** From now on, flows of that kind that a program deletes have ended for that reason; until the next `update`. */
  ending(flows: EndingFlows, reason: FlowEndReason): void {
    this.#history.ending(flows, reason);
  }

  /** The first page is of now, the next ones go on from there. */
  async page(query: FlowQuery): Promise<FlowPage> {
    if (query.after === undefined) await this.#refreshed();
    const { flows, next } = this.#ledger.flows.page(query);
    const nowMs = this.#deps.clock.wallMs();
    const records = flows.map((flow) => flowRecord(flow, nowMs));
    return next === undefined ? { flows: records } : { flows: records, next };
  }

  async freshen(): Promise<void> {
    await this.#running?.refresh.now();
  }

  /** Totals of now: what is older than a second is read again. */
  async counters(): Promise<FlowCounters> {
    await this.#refreshed();
    return flowCounters({
      ledger: this.#ledger,
      ...{ limits: this.#running?.limits, conntrack: this.#table.use, gaps: this.#gaps },
    });
  }

  /** Live flows of TCP and UDP. */
  count(): number {
    return this.#ledger.size;
  }

  /** Entries with that mark, of any protocol, as conntrack has them now; undefined: it could not be found out. */
  async countOf(mark: number): Promise<number | undefined> {
    let count = 0;
    const flows = new ConntrackFlows(this.#deps, { value: mark, mask: 0xffffffff });
    const isWhole = await flows.list((entries) => {
      count += entries.length;
    });
    return isWhole ? count : undefined;
  }

  /**
   * Batches of flow-started, flow-ended, passive-failure and table-pressure, until the returned function is called.
   */
  subscribe(listener: (events: readonly PlaneEvent[]) => void): () => void {
    return this.#events.subscribe(listener);
  }

  /** Tells what it knows, and looks no more. Idempotent. */
  stop(): Promise<void> {
    this.#running?.stop();
    this.#running?.refresh.stop();
    this.#table.stop();
    this.#events.flush();
    return Promise.resolve();
  }

  #begin(input: KernelInput, limits: Limits): Running {
    const source = this.#deps.source ?? this.#sourceOf(input);
    const onEntries = (entries: readonly KernelFlowEntry[]): void => {
      for (const entry of entries) this.#ledger.see(entry, running.limits, running.discovery);
    };
    const refresh = new Refresh(this.#deps.clock, async () => {
      this.#ledger.beginRound();
      const isWhole = await source.list(onEntries);
      if (!isWhole) this.#ledger.abandonRound();
      // To list is what has the kernel remove flows whose time is up: their ends are on their way.
      else if (this.#ledger.endRound(source.follow === undefined ? 'not-told' : 'told') > 0)
        refresh.outdated();
      return isWhole;
    });
    const begun = signal();
    const running: Running = {
      ...{ source, refresh, limits, discovery: 'adopted', begun: begun.reached },
      stop: () => stopFollowing(),
    };
    const stopFollowing = this.#follow(running, begun.reach);
    return running;
  }

  /** The mode never changes in a process. */
  #sourceOf(first: KernelInput): EntrySource {
    const { instance, options } = first;
    if (options.mode === 'floating-l2' || options.mode === 'floating-routed') {
      return new FloatingEntries(this.#deps.tools, () => this.#input ?? first);
    }
    const value = markTag(instance);
    return new ConntrackFlows(this.#deps, { value, mask: INSTANCE_MASK });
  }

  /** `onBegun`: from now on nothing that comes or goes is missed. */
  #follow(running: Running, onBegun: () => void): () => void {
    const { source, refresh } = running;
    if (source.follow === undefined) {
      onBegun();
      return () => undefined;
    }
    let begun = false;
    return source.follow({
      onEntries: (entries) => {
        for (const entry of entries) {
          if (entry.event === 'new') this.#ledger.begin(entry, running.limits);
          else if (entry.event === 'gone') this.#ledger.end(entry);
        }
      },
      onGap: () => {
        if (begun) {
          this.#gaps++;
          refresh.outdated();
        }
        begun = true;
        onBegun();
      },
    });
  }

  async #refreshed(): Promise<void> {
    const { clock } = this.#deps;
    const refresh = this.#running?.refresh;
    if (refresh === undefined) return;
    let cancel = (): void => undefined;
    const patience = new Promise<void>((resolve) => {
      cancel = clock.setTimer(PATIENCE_MS, resolve);
    });
    await Promise.race([refresh.soon(), patience]);
    cancel();
  }
}

/** Something to be waited for that comes once. */
function signal(): { readonly reached: Promise<void>; readonly reach: () => void } {
  let reach = (): void => undefined;
  const reached = new Promise<void>((resolve) => (reach = resolve));
  return { reached, reach };
}

/** Nobody who watches needs it more often. */
const LEAST_INTERVAL_MS = 1000;

/** Of its time, the share that reading may take: a large table is read less often. */
const MOST_SHARE = 1 / 20;

/** Reads something that takes time: one reading at a time, and not again before the last one is old. */
export class Refresh {
  readonly #clock: Clock;
  readonly #read: () => Promise<boolean>;
  #reading: Promise<boolean> | undefined;
  /** One that has yet to begin: for whom the one under way has begun too early. */
  #next: Promise<boolean> | undefined;
  #dueAtMs = Number.NEGATIVE_INFINITY;
  #cancel: (() => void) | undefined;
  #stopped = false;

  /** `read` tells whether it succeeded, and does not reject. */
  constructor(clock: Clock, read: () => Promise<boolean>) {
    this.#clock = clock;
    this.#read = read;
  }

  /** Resolves when what is known is a second old, or a little more where reading takes long. */
  async soon(): Promise<void> {
    if (this.#stopped) return;
    if (this.#reading !== undefined) await this.#reading;
    else if (this.#clock.monotonicMs() >= this.#dueAtMs) await this.#begin();
  }

  /** Reads anew, whatever is known. */
  now(): Promise<boolean> {
    if (this.#stopped) return Promise.resolve(false);
    if (this.#reading === undefined) return this.#begin();
    this.#next ??= this.#reading.then(() => {
      this.#next = undefined;
      return this.#stopped ? false : this.#begin();
    });
    return this.#next;
  }

  /** What is known is wrong: reads anew, but not more often than for whoever asks. Resolves at once. */
  outdated(): void {
    if (this.#stopped || this.#cancel !== undefined) return;
    const waitMs = Math.max(0, this.#dueAtMs - this.#clock.monotonicMs());
    const read = (): void => {
      this.#cancel = undefined;
      void this.now();
    };
    this.#cancel = this.#clock.setTimer(waitMs, read, { unref: true });
  }

  /** The one under way ends; no other begins. */
  stop(): void {
    this.#stopped = true;
    this.#cancel?.();
  }

  #begin(): Promise<boolean> {
    const begunAtMs = this.#clock.monotonicMs();
    this.#reading = this.#read().finally(() => {
      this.#reading = undefined;
      const tookMs = this.#clock.monotonicMs() - begunAtMs;
      this.#dueAtMs = begunAtMs + Math.max(LEAST_INTERVAL_MS, tookMs / MOST_SHARE);
    });
    return this.#reading;
  }
}
