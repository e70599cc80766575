import type { Cidr, Protocol } from '../../model/address.js';
import type { Configuration } from '../../model/configuration.js';
import type { KernelChanged, KernelReport, KernelState, PlaneEvent } from '../../model/events.js';
import type { FlowRecord } from '../../model/flow.js';
import type { ForwardingState } from '../../model/forwarding.js';
import type { Clock } from '../../runtime/clock.js';
import { SerialQueue } from '../../runtime/queue.js';
import type {
  ApplyReport,
  DataPlane,
  FlowPage,
  FlowQuery,
  PlaneCounters,
  StopReport,
  UdpStop,
} from '../contract.js';
import { Conntrack } from '../netfilter/conntrack.js';
import type { InstanceLock } from '../netfilter/instance-lock.js';
import { Reconciler } from '../netfilter/reconciler.js';
import type { KernelSetup } from '../netfilter/setup.js';
import { floatingSetup } from './ebpf/floating.js';
import { nextHopSetup } from './ebpf/next-hop.js';
import { FlowFinder, instanceFilters } from './enforce.js';
import { prepareMachine, type MachineDeps } from './machine.js';
import type { ConntrackFlows } from './nat/kernel-flows.js';
import { natSetup } from './nat/rules.js';
import { compileProgram, type KernelProgram } from './program.js';
import { Stopping } from './stop.js';
import { KernelUpdater } from './updater.js';

/** What the kernel needs for the mode that is configured. `networks`: of this machine's own links. */
export function setupOf(program: KernelProgram, networks: readonly Cidr[]): KernelSetup {
  switch (program.options.mode) {
    case 'nat':
      return natSetup(program, networks);
    case 'floating-l2':
    case 'floating-routed':
      return floatingSetup(program);
    case 'next-hop':
      return nextHopSetup(program);
  }
}

export interface KernelPlaneDeps extends MachineDeps {
  readonly clock: Clock;
  /** Held while this process writes to the kernel. */
  readonly lock: Pick<InstanceLock, 'take' | 'release'>;
  readonly flows: Pick<ConntrackFlows, keyof ConntrackFlows>;
  /** Of this machine's own links, as they are now. */
  readonly networks: () => readonly Cidr[];
}

export interface KernelPlaneOptions {
  readonly instance: string;
  /** As Reconciler's. */
  readonly pollMs?: number;
}

/**
 * The data plane that the kernel is: this process only tells it what to do, by one nft table, and forwarding continues
 * without it. `reset` of TCP flows is done when either end next sends.
 */
export class KernelPlane implements DataPlane {
  readonly #deps: KernelPlaneDeps;
  readonly #instance: string;
  readonly #reconciler: Reconciler;
  readonly #updater: KernelUpdater;
  readonly #stopping: Stopping;
  readonly #listeners = new Set<(events: readonly PlaneEvent[]) => void>();
  /** Start and applies run one after another. */
  readonly #queue = new SerialQueue();
  #configuration: Configuration | undefined;
  #started = false;
  #stopped: Promise<StopReport> | undefined;

  constructor(deps: KernelPlaneDeps, options: KernelPlaneOptions) {
    const { clock, flows, tools, networks } = deps;
    const toSetup = (program: KernelProgram): KernelSetup => setupOf(program, networks());
    this.#deps = deps;
    this.#instance = options.instance;
    this.#reconciler = new Reconciler(
      { clock, tools, onChange: (change, evidence) => this.#changed(change, evidence) },
      { ...options, adopts: true },
    );
    this.#updater = new KernelUpdater({
      ...{ clock, flows, reconciler: this.#reconciler, setupOf: toSetup },
      finder: new FlowFinder(new Conntrack({ clock, tools })),
      onDue: () => this.#again(),
    });
    this.#stopping = new Stopping({
      ...{ clock, flows },
      put: (program) => this.#reconciler.want([{ setup: toSetup(program) }], { start: 'trust' }),
    });
    flows.subscribe((events) => this.#emit(events));
  }

  /** Rejects with `LB_INSTANCE_RUNNING` or `LB_KERNEL_...`. What an earlier process has left stays all the same. */
  start(state: ForwardingState): Promise<ApplyReport> {
    return this.#queue.run(async () => {
      const { lock, flows, onWarning } = this.#deps;
      this.#configuration = state.configuration;
      await lock.take();
      try {
        await prepareMachine(this.#deps, compileProgram(state));
        await this.#updater.update(state);
        await flows.start();
        for (const text of await flows.shortcomings()) onWarning(text);
        this.#started = true;
        return applyReport(state);
      } catch (error) {
        await this.#reconciler.release();
        this.#updater.stop();
        await flows.stop();
        lock.release();
        throw error;
      }
    });
  }

  /** Rejects with `LB_KERNEL_...`. What another health wants is tried again until it, or what came after it, is there. */
  apply(state: ForwardingState): Promise<ApplyReport> {
    return this.#queue.run(async () => {
      if (this.#stopped === undefined) await this.#updater.update(state);
      return applyReport(state);
    });
  }

  async flows(query: FlowQuery): Promise<FlowPage> {
    return withPins(await this.#deps.flows.page(query), this.#updater.state);
  }

  async counters(): Promise<PlaneCounters> {
    return {
      ...(await this.#deps.flows.counters()),
      connectSeconds: {},
      sourcePorts: [],
      eventLoopDelaySeconds: [],
      listeners: listening(this.#updater.state, this.#reconciler.report().state),
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
    return {
      ...this.#reconciler.report(),
      mode: modeText(this.#configuration),
      why: 'The configuration asks for the kernel data plane',
    };
  }

  subscribe(listener: (events: readonly PlaneEvent[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** With `udp: 'at-once'` everything stays in the kernel, which forwards by it. */
  stop(deadlineMs: number, udp?: UdpStop): Promise<StopReport> {
    this.#stopping.shorten(deadlineMs);
    this.#stopped ??= this.#queue.run(() => this.#end(udp));
    return this.#stopped;
  }

  async #end(udp: UdpStop | undefined): Promise<StopReport> {
    const { flows, lock } = this.#deps;
    this.#updater.stop();
    const { program } = this.#updater;
    let report: StopReport = { finished: 0, reset: 0 };
    if (udp === 'at-once' || program === undefined || !this.#started) {
      await this.#reconciler.release();
    } else {
      report = await this.#stopping.run(program);
      await this.#reconciler.forget(() => Promise.resolve(instanceFilters(this.#instance)));
      // The reconciler has reported what it could not take away.
      await this.#reconciler.remove().catch(() => undefined);
    }
    await flows.stop();
    lock.release();
    return report;
  }

  /** The present state once more. */
  #again(): void {
    const again = async (): Promise<void> => {
      const { state } = this.#updater;
      if (state !== undefined && this.#stopped === undefined) await this.#updater.update(state);
    };
    // The reconciler has reported a failure, and tries again.
    this.#queue.run(again).catch(() => undefined);
  }

  #changed(change: KernelChanged['change'], evidence: string | undefined): void {
    const atMs = this.#deps.clock.wallMs();
    this.#emit([{ type: 'kernel-changed', atMs, change, evidence, report: this.kernelReport() }]);
  }

  #emit(events: readonly PlaneEvent[]): void {
    for (const listener of this.#listeners) listener(events);
  }
}

/** Nothing listens: a frontend counts once for each protocol that it has a rule for. */
function applyReport({ revision, configuration }: ForwardingState): ApplyReport {
  const count = (protocol: Protocol): number =>
    new Set(
      configuration.rules
        .filter(({ protocols }) => protocols.includes(protocol))
        .map(({ frontend }) => frontend),
    ).size;
  return { revision, listeners: { tcp: count('tcp'), udp: count('udp') }, failures: [] };
}

/** By frontend: protocols that it has rules for, and whether they are in the kernel. */
function listening(state: ForwardingState | undefined, kernel: KernelState): PlaneCounters['listeners'] {
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
function modeText(configuration: Configuration | undefined): string {
  const kernel = configuration?.kernel;
  if (kernel === undefined) return 'kernel';
  return kernel.mode === 'nat' ? `kernel nat, return by ${kernel.returnPath}` : `kernel ${kernel.mode}`;
}

/** Flows of backends that serve no more are where they are since they stay. */
function withPins(page: FlowPage, state: ForwardingState | undefined): FlowPage {
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
