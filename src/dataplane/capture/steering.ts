import type { CapturePlan } from '../../model/capture.js';
import type { Configuration } from '../../model/configuration.js';
import type { KernelReport } from '../../model/kernel-report.js';
import { captureSetup } from '../../nft/capture-setup.js';
import type { KernelSetup } from '../../nft/kernel-setup.js';
import { sameEntry } from '../../nft/routing-entry.js';
import type { PortInUse } from '../../runtime/listening-ports.js';
import type { ListenFailure } from '../data-plane.js';
import { captureInputs, type CaptureInputs } from './capture-inputs.js';

/** What a plane is told of what it keeps in the kernel; the rest of a KernelReport is its own. */
export type KernelStanding = Omit<KernelReport, 'mode' | 'why'>;

/** Keeps one setup in the kernel: the Reconciler, or a test's. */
export interface SetupKeeper {
  /** Rejects with a BalancerError where the kernel would refuse it. */
  check(setup: KernelSetup): Promise<void>;
  /** Whole or not at all; keeps it there from then on. What the instance has left there before goes. */
  install(setup: KernelSetup): Promise<void>;
  /** Takes everything out of the kernel, and stops. */
  remove(): Promise<void>;
  /** Stops, and leaves everything where it is. `install` begins anew. */
  letGo(): Promise<void>;
  report(): KernelStanding;
}

export interface SteeringDeps {
  readonly keeper: SetupKeeper;
  /** See runtime/listening-ports.ts. */
  readonly portsInUse: () => Promise<readonly PortInUse[]>;
  /** Inodes of the sockets of this process and its workers. */
  readonly ownSockets: () => Promise<ReadonlySet<string>>;
}

/** What is to be steered for a configuration, as the machine is now. */
export interface Wanted {
  readonly setup: KernelSetup;
  /** Ports that are not in it, since others have them. */
  readonly failures: readonly ListenFailure[];
  /** Whether no port at all is in it. */
  readonly isEmpty: boolean;
}

/**
 * Brings the frontends of configurations into the kernel, one after another. Routes and addresses only ever come: flows
 * of a frontend that is gone may go on over them. Calls must not overlap.
 */
export class Steering {
  readonly #deps: SteeringDeps;
  readonly #plan: CapturePlan;
  /** Inodes of sockets that are known to be of others. */
  #others: ReadonlySet<string> = new Set();
  #installed: Wanted | undefined;

  constructor(deps: SteeringDeps, plan: CapturePlan) {
    this.#deps = deps;
    this.#plan = plan;
  }

  /** Ports that others have, as when last installed. */
  get failures(): readonly ListenFailure[] {
    return this.#installed?.failures ?? [];
  }

  get isInstalled(): boolean {
    return this.#installed !== undefined;
  }

  /** What the configuration needs. */
  async look(configuration: Configuration): Promise<Wanted> {
    const { input, failures } = await this.#inputs(configuration);
    const isEmpty = input.frontends.every(
      ({ tcpPorts, udpPorts }) => tcpPorts.length + udpPorts.length === 0,
    );
    return { setup: captureSetup(input), failures, isEmpty };
  }

  /** Rejects with a BalancerError where the kernel would refuse it. Changes nothing. */
  async check({ setup }: Wanted): Promise<void> {
    await this.#deps.keeper.check(setup);
  }

  /** Makes the sockets of the data plane possible that it will have; what is steered stays as it is. */
  async prepare({ setup }: Wanted): Promise<void> {
    const present = this.#installed;
    if (present === undefined || setup.routing.every((entry) => hasEntry(present.setup, entry))) return;
    await this.install({ ...present, setup: withRouting(present.setup, setup) });
  }

  async install(wanted: Wanted): Promise<void> {
    const setup =
      this.#installed === undefined ? wanted.setup : withRouting(wanted.setup, this.#installed.setup);
    await this.#deps.keeper.install(setup);
    this.#installed = { ...wanted, setup };
  }

  /** Leaves the kernel to another process; `resume` takes it back. */
  async pause(): Promise<void> {
    await this.#deps.keeper.letGo();
  }

  async resume(): Promise<void> {
    if (this.#installed !== undefined) await this.install(this.#installed);
  }

  /** Looks whether others have come or gone, and steers accordingly. */
  async refresh(configuration: Configuration): Promise<void> {
    const found = await this.look(configuration);
    const isSame = this.isInstalled && JSON.stringify(found.failures) === JSON.stringify(this.failures);
    if (!isSame) await this.install(found);
  }

  /** Looks through the own sockets, of which there may be many, only where something new is in the way. */
  async #inputs(configuration: Configuration): Promise<CaptureInputs> {
    const ports = await this.#deps.portsInUse();
    const inputs = captureInputs(configuration, this.#plan, ports);
    if (inputs.taken.every(({ inode }) => this.#others.has(inode))) return inputs;
    const own = await this.#deps.ownSockets();
    const others = ports.filter(({ inode }) => !own.has(inode));
    const without = captureInputs(configuration, this.#plan, others);
    this.#others = new Set(without.taken.map(({ inode }) => inode));
    return without;
  }
}

type Entry = KernelSetup['routing'][number];

function hasEntry({ routing }: KernelSetup, entry: Entry): boolean {
  return routing.some((other) => sameEntry(other, entry));
}

function withRouting(setup: KernelSetup, more: KernelSetup): KernelSetup {
  return {
    ...setup,
    routing: [...setup.routing, ...more.routing.filter((entry) => !hasEntry(setup, entry))],
  };
}
