import type { Protocol } from '../../model/address.js';
import type { Configuration } from '../../model/configuration.js';
import { BalancerError, errorMessage } from '../../model/errors.js';
import type { KernelChanged, PlaneEvent } from '../../model/events.js';
import type { FlowRecord } from '../../model/flow.js';
import type { ForwardingState } from '../../model/forwarding.js';
import type { KernelReport, KernelState } from '../../model/kernel-report.js';
import { Backoff } from '../../runtime/backoff.js';
import type { Clock } from '../../runtime/clock.js';
import type {
  ApplyReport,
  DataPlane,
  FlowPage,
  FlowQuery,
  PlaneCounters,
  StopReport,
  UdpStop,
} from '../contract.js';
import type { KernelSetup } from '../netfilter/setup.js';
import { KernelChanges, type SetupWriter } from './changes.js';
import { FlowEvictor } from './enforce.js';
import { prepareMachine, type MachineDeps } from './machine.js';
import { kernelInput, type KernelInput } from './program.js';
import { Stopping, type FlowSource } from './stop.js';

/** Told by the keeper of a setup when it has done something to the kernel, or could not. */
export type OnKernelChange = (change: KernelChanged['change'], evidence?: string) => void;

/** Keeps one setup in the kernel: nft/reconciler.ts, or a test's. */
export interface SetupKeeper extends SetupWriter {
  /** Takes everything out of the kernel, and stops. */
  remove(): Promise<void>;
  /** Stops, and leaves everything where it is. */
  letGo(): Promise<void>;
  report(): Omit<KernelReport, 'mode' | 'why'>;
}

/** Held while this process writes to the kernel. */
export interface NameLock {
  /** Rejects with `LB_INSTANCE_RUNNING` where another process has it. */
  take(): Promise<void>;
  release(): void;
}

export interface KernelPlaneDeps extends MachineDeps {
  readonly clock: Clock;
  readonly createKeeper: (onChange: OnKernelChange) => SetupKeeper;
  readonly lock: NameLock;
  readonly flows: FlowSource;
  readonly setupOf: (input: KernelInput) => KernelSetup;
}

/** A tool that fails now may not a moment later: the kernel was short of memory, another program was in its way. */
const PATIENCE_MS = [20, 60];
/** After that, applies have failed, and what they wanted is tried again so often. */
const RETRY = { firstMs: 250, maxMs: 10_000 };

/**
 * The data plane that the kernel is: this process only tells it what to do, by one nft table, and forwarding goes on
 * without it. `reset` of TCP flows is done when either end next sends.
 */
export class KernelPlane implements DataPlane {
  readonly #deps: KernelPlaneDeps;
  readonly #keeper: SetupKeeper;
  readonly #changes: KernelChanges;
  readonly #evictor: FlowEvictor;
  readonly #stopping: Stopping;
  readonly #listeners = new Set<(events: readonly PlaneEvent[]) => void>();
  readonly #retry = new Backoff(RETRY);
  /** Failures of conntrack, and of what was tried again, beside the keeper's own. */
  #failures = 0;
  #lastFailure: KernelReport['lastFailure'];
  /** What the last apply wanted and the kernel has not. */
  #missed: { readonly state: ForwardingState; readonly sinceMs: number } | undefined;
  #configuration: Configuration | undefined;
  #started = false;
  #stopped: Promise<StopReport> | undefined;
  #cancelRetry: () => void = () => undefined;
  /** Start and applies run one after another. */
  #queue: Promise<unknown> = Promise.resolve();

  constructor(deps: KernelPlaneDeps) {
    this.#deps = deps;
    const { clock, flows, tools, setupOf } = deps;
    this.#keeper = deps.createKeeper((change, evidence) => this.#changed(change, evidence));
    this.#evictor = new FlowEvictor({ tools, onFailure: (text) => this.#note(text) });
    this.#changes = new KernelChanges({
      ...{ clock, flows, setupOf, keeper: this.#keeper, evictor: this.#evictor },
      onDue: () => this.#again(),
    });
    const put = (input: KernelInput): Promise<void> => this.#keeper.update(setupOf(input));
    this.#stopping = new Stopping({ clock, flows, put });
    flows.subscribe((events) => this.#tell(events));
    // Counters of flows that open and end, and failed connections, which have their backends probed at once.
    flows.consume();
  }

  /** Rejects with `LB_INSTANCE_RUNNING` or `LB_KERNEL_...`. What a process before has left goes on all the same. */
  start(state: ForwardingState): Promise<ApplyReport> {
    return this.#inTurn(async () => {
      const { lock, flows, onWarning } = this.#deps;
      this.#configuration = state.configuration;
      await lock.take();
      try {
        await prepareMachine(this.#deps, kernelInput(state));
        await this.#putPatiently(state);
        await flows.start();
        for (const text of await flows.shortcomings()) onWarning(text);
        this.#started = true;
        return applyReport(state);
      } catch (error) {
        await this.#keeper.letGo();
        this.#changes.stop();
        await flows.stop();
        lock.release();
        throw error;
      }
    });
  }

  /** Rejects with `LB_KERNEL_...`. What another health wants is tried again until it, or what came after it, is there. */
  apply(state: ForwardingState): Promise<ApplyReport> {
    return this.#inTurn(async () => {
      if (this.#stopped !== undefined) return applyReport(state);
      const isKnown = this.#changes.state?.configuration.digest === state.configuration.digest;
      try {
        await this.#putPatiently(state);
      } catch (error) {
        this.#fell(isKnown ? state : this.#changes.state, errorMessage(error));
        throw error;
      }
      this.#recovered();
      return applyReport(state);
    });
  }

  async flows(query: FlowQuery): Promise<FlowPage> {
    return withPins(await this.#deps.flows.page(query), this.#changes.state);
  }

  async counters(): Promise<PlaneCounters> {
    return {
      ...(await this.#deps.flows.counters()),
      connectSeconds: {},
      sourcePorts: [],
      eventLoopDelaySeconds: [],
      listeners: listening(this.#changes.state, this.#keeper.report().state),
      workersLost: 0,
    };
  }

  answer(): Promise<void> {
    return Promise.resolve();
  }

  flowCount(): number {
    return this.#deps.flows.count();
  }

  kernelReport(): KernelReport {
    const report = this.#keeper.report();
    const missed = this.#missed;
    const lastFailure = latestFailure(report.lastFailure, this.#lastFailure);
    return {
      ...report,
      ...(missed === undefined ? {} : { state: 'failing', sinceMs: missed.sinceMs }),
      failures: report.failures + this.#failures,
      ...(lastFailure === undefined ? {} : { lastFailure }),
      mode: modeText(this.#configuration),
      why: 'The configuration asks for the kernel data plane',
    };
  }

  subscribe(listener: (events: readonly PlaneEvent[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** With `udp: 'at-once'` everything stays in the kernel, which forwards on by it. */
  stop(deadlineMs: number, udp?: UdpStop): Promise<StopReport> {
    this.#stopping.shorten(deadlineMs);
    this.#stopped ??= this.#inTurn(() => this.#end(udp));
    return this.#stopped;
  }

  async #end(udp: UdpStop | undefined): Promise<StopReport> {
    const { flows, lock } = this.#deps;
    this.#cancelRetry();
    this.#changes.stop();
    const input = this.#changes.input;
    let report: StopReport = { finished: 0, reset: 0 };
    if (udp === 'at-once' || input === undefined || !this.#started) {
      await this.#keeper.letGo();
    } else {
      report = await this.#stopping.run(input);
      await this.#evictor.evictAll(input.instance);
      // The keeper has told what it could not take away.
      await this.#keeper.remove().catch(() => undefined);
    }
    await flows.stop();
    lock.release();
    return report;
  }

  async #putPatiently(state: ForwardingState): Promise<void> {
    for (const delayMs of PATIENCE_MS) {
      try {
        await this.#changes.put(state);
        return;
      } catch (error) {
        if (isFinal(error)) throw error;
        this.#note(errorMessage(error));
        await new Promise<void>((resolve) => this.#deps.clock.setTimer(delayMs, resolve));
      }
    }
    await this.#changes.put(state);
  }

  /** The present state once more. */
  #again(): void {
    void this.#inTurn(async () => {
      const state = this.#missed?.state ?? this.#changes.state;
      if (state === undefined || this.#stopped !== undefined) return;
      try {
        await this.#putPatiently(state);
        this.#recovered();
      } catch (error) {
        this.#fell(state, errorMessage(error));
      }
    });
  }

  #fell(state: ForwardingState | undefined, text: string): void {
    this.#note(text);
    const isNews = this.#missed === undefined;
    if (state !== undefined) {
      this.#missed = { state, sinceMs: this.#missed?.sinceMs ?? this.#deps.clock.wallMs() };
      this.#cancelRetry();
      this.#cancelRetry = this.#deps.clock.setTimer(this.#retry.nextMs(), () => this.#again(), {
        unref: true,
      });
    }
    if (isNews) this.#changed('failed', text);
  }

  #recovered(): void {
    this.#cancelRetry();
    this.#retry.reset();
    if (this.#missed === undefined) return;
    this.#missed = undefined;
    this.#changed('repaired', 'What could not be written before was written now');
  }

  #note(text: string): void {
    this.#failures++;
    this.#lastFailure = { atMs: this.#deps.clock.wallMs(), text };
  }

  #changed(change: KernelChanged['change'], evidence: string | undefined): void {
    const event: KernelChanged = {
      ...{ type: 'kernel-changed', atMs: this.#deps.clock.wallMs(), change, report: this.kernelReport() },
      ...(evidence === undefined ? {} : { evidence }),
    };
    this.#tell([event]);
  }

  #tell(events: readonly PlaneEvent[]): void {
    for (const listener of this.#listeners) listener(events);
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#queue.then(work);
    this.#queue = turn.catch((error: unknown) => errorMessage(error));
    return turn;
  }
}

/** Whether trying again is of no use. */
function isFinal(error: unknown): boolean {
  return error instanceof BalancerError && error.code !== 'LB_KERNEL_FAILED';
}

/** Nothing listens: a frontend counts once for each protocol that it has a rule for. */
export function applyReport({ revision, configuration }: ForwardingState): ApplyReport {
  const count = (protocol: Protocol): number =>
    new Set(
      configuration.rules
        .filter(({ protocols }) => protocols.includes(protocol))
        .map(({ frontend }) => frontend),
    ).size;
  return { revision, listeners: { tcp: count('tcp'), udp: count('udp') }, failures: [] };
}

/** By frontend: protocols that it has rules for, and whether they are in the kernel. */
export function listening(
  state: ForwardingState | undefined,
  kernel: KernelState,
): PlaneCounters['listeners'] {
  const { frontends = [], rules = [] } = state?.configuration ?? {};
  return Object.fromEntries(
    frontends.map(({ name }) => {
      const protocols = rules
        .filter(({ frontend }) => frontend.name === name)
        .flatMap((rule) => rule.protocols);
      const wanted = new Set(protocols).size;
      return [name, { open: kernel === 'in-place' ? wanted : 0, wanted }];
    }),
  );
}

/** `kernel nat, return by route`. */
export function modeText(configuration: Configuration | undefined): string {
  const kernel = configuration?.kernel;
  if (kernel === undefined) return 'kernel';
  return kernel.mode === 'nat' ? `kernel nat, return by ${kernel.returnPath}` : `kernel ${kernel.mode}`;
}

export function latestFailure(
  a: KernelReport['lastFailure'],
  b: KernelReport['lastFailure'],
): KernelReport['lastFailure'] {
  return (a?.atMs ?? 0) > (b?.atMs ?? 0) ? a : (b ?? a);
}

/** Flows of backends that serve no more are where they are since they stay. */
export function withPins(page: FlowPage, state: ForwardingState | undefined): FlowPage {
  if (state === undefined) return page;
  const { configuration, views, viewOfRule } = state;
  const serving = new Map(
    configuration.rules.map(({ name }, index) => {
      const backends = views[viewOfRule[index] ?? -1]?.backends ?? [];
      const ids = backends.filter((member) => member.serving).map(({ backend }) => backend.id);
      return [name, new Set(ids)];
    }),
  );
  const isPinned = ({ rule, backendId, reason }: FlowRecord): boolean =>
    reason === 'hash' && serving.get(rule)?.has(backendId) === false;
  return {
    ...page,
    flows: page.flows.map((flow) => (isPinned(flow) ? { ...flow, reason: 'pinned' } : flow)),
  };
}
