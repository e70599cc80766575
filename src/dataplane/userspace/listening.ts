import type { IpAddress } from '../../model/address.js';
import type { Configuration } from '../../model/configuration.js';
import { portSetContains, type PortSet } from '../../model/port-set.js';
import type { Clock } from '../../runtime/clock.js';
import type { ApplyReport, ListenFailure, PlaneCounters } from '../data-plane.js';
import { cannotAdd } from '../listen-report.js';
import type { EventQueue } from './event-queue.js';
import {
  ownFailures,
  plannedUdpPorts,
  planListeners,
  type ListenerPlan,
  type PlanShare,
} from './listener-plan.js';
import type { Listener } from './listener.js';
import type { ListenerSet } from './listener-set.js';
import { shortageAdvice, socketBudget } from './socket-budget.js';

export interface ListeningDeps {
  readonly clock: Clock;
  readonly events: EventQueue;
  readonly listeners: ListenerSet;
  /** The machine's own addresses of a family. */
  readonly ownAddresses: (family: 4 | 6) => readonly IpAddress[];
  /** Finds out which local addresses lead there, while there are ports left to ask with. Never rejects. */
  readonly learnRoutes: (destinations: readonly IpAddress[]) => Promise<void>;
  /** Runs work when no other change of what is listened on is under way. */
  readonly inTurn: (work: () => Promise<void>) => Promise<void>;
}

export interface ListeningOptions {
  readonly share: PlanShare;
  readonly workers: number;
  /** Descriptors that this process may have open. @default no limit */
  readonly descriptorLimit?: number | undefined;
}

/** No permission, no descriptors: trying again changes nothing. */
const LASTING_FAILURES: ReadonlySet<string> = new Set(['EACCES', 'EMFILE']);

/** One takes a socket, open for some 50 us. */
const MOST_ROUTES_ASKED = 1024;

/** How often ports that could not be bound are tried again. */
const RETRY_LISTEN_MS = 10_000;

/** What a worker listens on, configuration after configuration, and what it cannot listen on. */
export class Listening {
  readonly #deps: ListeningDeps;
  readonly #options: ListeningOptions;
  #plan: ListenerPlan = new Map();
  /** Of the plan, also those that another worker reports. */
  #failures: readonly ListenFailure[] = [];
  /** As the configuration before was left: to go back to it must not fail for what was missing then already. */
  #formerFailures: readonly ListenFailure[] = [];
  #prepared: { readonly digest: string; readonly plan: ListenerPlan } | undefined;
  /** By address, of all workers together. */
  #udpPorts: ReadonlyMap<string, PortSet> = new Map();
  #configuration: Configuration | undefined;
  #closed = false;
  #cancelRetry: () => void = () => undefined;

  constructor(deps: ListeningDeps, options: ListeningOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /**
   * Opens what the configuration adds to the present one, without serving anybody there yet. Rejects, and nothing has
   * changed, where that fails. Doing it again changes nothing; preparing another undoes it.
   */
  async prepare(configuration: Configuration): Promise<void> {
    const { digest } = configuration;
    if (this.#prepared?.digest === digest) return;
    const plan = this.#planOf(configuration);
    this.#prepared = { digest, plan };
    await this.#deps.learnRoutes(backendsOf(configuration));
    const wasMissing = new Set(this.#formerFailures.map(endOf));
    const failures = await this.#deps.listeners.prepare(plan, (binding) =>
      wasMissing.has(endOf({ ...binding, address: binding.address.text })),
    );
    this.#check(failures, configuration);
  }

  /** The last step that can fail, see ListenerSet.handOver: to be followed by `adopt` at once. */
  async handOver(): Promise<void> {
    const failures = await this.#deps.listeners.handOver();
    // What was closed for it and could not be opened again is missing now.
    if (failures.length > 0) await this.follow();
    this.#check(failures);
  }

  abandon(): void {
    this.#prepared = undefined;
    this.#deps.listeners.abandon();
  }

  /** Listeners that stay serve this configuration from now on. */
  adopt(configuration: Configuration): void {
    const { digest, plan } = this.#prepared ?? {};
    this.#prepared = undefined;
    this.#formerFailures = this.#failures;
    this.#setPlan(configuration, digest === configuration.digest ? plan : undefined);
    this.#deps.listeners.rebind(this.#plan);
  }

  /** Closes what the adopted configuration does not have, opens and serves all of what it has that can be. */
  async follow(): Promise<void> {
    if (this.#configuration !== undefined) await this.#deps.learnRoutes(backendsOf(this.#configuration));
    this.#failures = await this.#deps.listeners.apply(this.#plan);
    this.#retry();
  }

  /** Takes no new flows any more. */
  close(): void {
    this.#closed = true;
    this.#cancelRetry();
    this.#prepared = undefined;
    this.#deps.listeners.close();
  }

  destroy(): void {
    this.close();
    this.#deps.listeners.destroy();
  }

  /** What is open and serves. */
  listeners(): readonly Listener[] {
    return this.#deps.listeners.all();
  }

  report(revision: number): ApplyReport {
    const { listeners } = this.#deps;
    return {
      revision,
      listeners: { tcp: listeners.count('tcp'), udp: listeners.count('udp') },
      failures: ownFailures(this.#plan, this.#failures),
    };
  }

  census(): PlaneCounters['listeners'] {
    return this.#deps.listeners.census();
  }

  /** Whether some worker listens on this UDP endpoint. One alone knows all UDP sockets as its own. */
  isUdpElsewhere(address: string, port: number): boolean {
    return portSetContains(this.#udpPorts.get(address) ?? [], port);
  }

  #setPlan(configuration: Configuration, plan = this.#planOf(configuration)): void {
    this.#configuration = configuration;
    this.#plan = plan;
    if (this.#options.workers > 1) {
      this.#udpPorts = plannedUdpPorts(configuration, this.#deps.ownAddresses);
    }
  }

  #planOf(configuration: Configuration): ListenerPlan {
    return planListeners(configuration, this.#deps.ownAddresses, this.#options.share);
  }

  #check(failures: readonly ListenFailure[], configuration?: Configuration): void {
    if (failures.length === 0) return;
    this.#prepared = undefined;
    const isShort = failures.some(({ errorCode }) => errorCode === 'EMFILE');
    throw cannotAdd(failures, isShort ? this.#advice(configuration) : undefined);
  }

  /** Undefined where the configuration would fit once the present one has gone. */
  #advice(configuration: Configuration | undefined): string | undefined {
    if (configuration === undefined) return undefined;
    const { share, workers, descriptorLimit: limit } = this.#options;
    const { capture, tcpPorts } = share;
    const { ownAddresses } = this.#deps;
    const request = { configuration, workers, limit, ownAddresses, ...(capture && { capture }) };
    const { shortage } = socketBudget({ ...request, tcpPorts: tcpPorts ?? 'shared' });
    if (shortage === undefined) return undefined;
    const isOtherForm = workers > 1 && tcpPorts !== socketBudget(request).tcpPorts;
    const help = shortageAdvice(shortage);
    return isOtherForm ? `${help}; a restart or upgrade would give each TCP port to one worker` : help;
  }

  /** An address may arrive later (VRRP) and a port may be freed; a missing permission stays missing. */
  #retry(): void {
    this.#cancelRetry();
    if (this.#closed || this.#failures.every(({ errorCode }) => LASTING_FAILURES.has(errorCode))) return;
    this.#cancelRetry = this.#deps.clock.setTimer(RETRY_LISTEN_MS, () => {
      void this.#deps.inTurn(() => this.#followAgain());
    });
  }

  async #followAgain(): Promise<void> {
    const configuration = this.#configuration;
    if (this.#closed || configuration === undefined) return;
    // What is prepared must not be served yet.
    if (this.#prepared !== undefined) {
      this.#retry();
      return;
    }
    const failuresBefore = ownFailures(this.#plan, this.#failures).length;
    this.#setPlan(configuration);
    await this.follow();
    const { listeners, failures } = this.report(0);
    if (failures.length === failuresBefore) return;
    const { clock, events } = this.#deps;
    events.push({
      type: 'listening-changed',
      atMs: clock.wallMs(),
      worker: this.#options.share.worker,
      listeners,
      failures: failures.length,
    });
  }
}

/** The first of them: far more than there are routes. */
function backendsOf({ backendPools }: Configuration): readonly IpAddress[] {
  return backendPools
    .flatMap(({ backends }) => backends.map(({ address }) => address))
    .slice(0, MOST_ROUTES_ASKED);
}

function endOf({ protocol, address, port }: Pick<ListenFailure, 'protocol' | 'address' | 'port'>): string {
  return `${protocol} ${address} ${port}`;
}
