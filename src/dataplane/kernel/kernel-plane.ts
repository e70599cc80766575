import { errorMessage } from '../../model/errors.js';
import type { KernelChanged, PlaneEvent } from '../../model/events.js';
import type { Protocol } from '../../model/five-tuple.js';
import type { ForwardingState } from '../../model/forwarding-state.js';
import type { KernelReport } from '../../model/kernel-report.js';
import type { KernelSetup } from '../../nft/kernel-setup.js';
import type { Clock } from '../../runtime/clock.js';
import type {
  ApplyReport,
  DataPlane,
  FlowPage,
  FlowQuery,
  PlaneCounters,
  StopReport,
  UdpStop,
} from '../data-plane.js';
import type { FlowSource } from './flow-source.js';
import { kernelInput, type KernelInput } from './kernel-input.js';

/** Told by the keeper of a setup when it has done something to the kernel, or could not. */
export type OnKernelChange = (change: KernelChanged['change'], evidence?: string) => void;

/** Keeps one setup in the kernel: nft/reconciler.ts, or a test's. */
export interface SetupKeeper {
  /** Rejects with a BalancerError where the kernel would refuse it. */
  check(setup: KernelSetup): Promise<void>;
  /** Whole or not at all; keeps it there from then on. What the instance has left there before goes. */
  install(setup: KernelSetup): Promise<void>;
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

export interface KernelPlaneDeps {
  readonly clock: Clock;
  readonly createKeeper: (onChange: OnKernelChange) => SetupKeeper;
  readonly lock: NameLock;
  readonly flows: FlowSource;
  readonly setupOf: (input: KernelInput) => KernelSetup;
}

/**
 * The data plane that the kernel is: this process only tells it what to do, by one nft table, and forwarding goes on
 * without it.
 */
export class KernelPlane implements DataPlane {
  readonly #deps: KernelPlaneDeps;
  readonly #keeper: SetupKeeper;
  readonly #listeners = new Set<(events: readonly PlaneEvent[]) => void>();
  #state: ForwardingState | undefined;
  #stopped: Promise<StopReport> | undefined;
  /** Start and applies run one after another. */
  #queue: Promise<unknown> = Promise.resolve();

  constructor(deps: KernelPlaneDeps) {
    this.#deps = deps;
    this.#keeper = deps.createKeeper((change, evidence) => this.#changed(change, evidence));
    deps.flows.subscribe((events) => this.#tell(events));
  }

  /** Rejects, with nothing left in the kernel, with `LB_INSTANCE_RUNNING` or `LB_KERNEL_...`. */
  start(state: ForwardingState): Promise<ApplyReport> {
    return this.#inTurn(async () => {
      const { lock, flows } = this.#deps;
      await lock.take();
      try {
        await this.#put(state);
        await flows.start();
        return reportOf(state);
      } catch (error) {
        await this.#keeper.letGo();
        lock.release();
        throw error;
      }
    });
  }

  apply(state: ForwardingState): Promise<ApplyReport> {
    return this.#inTurn(async () => {
      if (this.#stopped === undefined) await this.#put(state);
      return reportOf(state);
    });
  }

  flows(query: FlowQuery): Promise<FlowPage> {
    return this.#deps.flows.page(query);
  }

  async counters(): Promise<PlaneCounters> {
    return {
      ...(await this.#deps.flows.counters()),
      connectSeconds: {},
      sourcePorts: [],
      eventLoopDelaySeconds: [],
      listeners: this.#listening(),
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
      ...this.#keeper.report(),
      mode: modeText(this.#state),
      why: 'The configuration asks for the kernel data plane',
    };
  }

  subscribe(listener: (events: readonly PlaneEvent[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** With `udp: 'at-once'` everything stays in the kernel, which forwards on by it. */
  stop(_deadlineMs: number, udp?: UdpStop): Promise<StopReport> {
    this.#stopped ??= this.#inTurn(async () => {
      const { flows, lock } = this.#deps;
      await flows.stop();
      if (udp === 'at-once') await this.#keeper.letGo();
      // The keeper has told what it could not take away.
      else if (this.#state !== undefined) await this.#keeper.remove().catch(() => undefined);
      lock.release();
      return { finished: 0, reset: 0 };
    });
    return this.#stopped;
  }

  async #put(state: ForwardingState): Promise<void> {
    const { flows, setupOf } = this.#deps;
    const input = kernelInput(state);
    flows.update(state, input);
    await this.#keeper.install(setupOf(input));
    this.#state = state;
  }

  #listening(): PlaneCounters['listeners'] {
    const { frontends = [], rules = [] } = this.#state?.configuration ?? {};
    const isOpen = this.#keeper.report().state === 'in-place';
    return Object.fromEntries(
      frontends.map(({ name }) => {
        const wanted = rules
          .filter(({ frontend }) => frontend === name)
          .reduce((sum, { protocols }) => sum + protocols.length, 0);
        return [name, { open: isOpen ? wanted : 0, wanted }];
      }),
    );
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

/** Nothing listens: a frontend counts once for each protocol that it has a rule for. */
function reportOf({ revision, configuration }: ForwardingState): ApplyReport {
  const count = (protocol: Protocol): number =>
    new Set(
      configuration.rules
        .filter(({ protocols }) => protocols.includes(protocol))
        .map(({ frontend }) => frontend),
    ).size;
  return { revision, listeners: { tcp: count('tcp'), udp: count('udp') }, failures: [] };
}

function modeText(state: ForwardingState | undefined): string {
  const kernel = state?.configuration.kernel;
  if (kernel === undefined) return 'kernel';
  return kernel.mode === 'nat' ? `kernel nat, return by ${kernel.returnPath}` : `kernel ${kernel.mode}`;
}
