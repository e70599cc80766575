import { flowRecord } from '../../flow/flow.js';
import type { IpAddress } from '../../model/address.js';
import type { PlaneEvent } from '../../model/events.js';
import type { ForwardingState } from '../../model/forwarding-state.js';
import { portSetContains } from '../../model/port-set.js';
import type { Clock } from '../../runtime/clock.js';
import type { Hash32 } from '../../selection/hasher.js';
import { createPicker } from '../../selection/picker.js';
import type {
  ApplyReport,
  FlowPage,
  FlowQuery,
  PlaneCounters,
  PlaneOptions,
  StopReport,
  UdpStop,
} from '../data-plane.js';
import { isDeaf, listenFailed } from '../listen-report.js';
import type { CapShares, CapUses, PortGate, WorkerPlane } from '../worker-plane.js';
import { ConnectLatency } from './connect-latency.js';
import { EventQueue } from './event-queue.js';
import { enforceFlowPolicies } from './flow-enforcement.js';
import { FlowKeeper } from './flow-keeper.js';
import { gatedListeners } from './gated-listeners.js';
import {
  ownFailures,
  plannedUdpPorts,
  planListeners,
  type ListenerPlan,
  type PlanShare,
} from './listener-plan.js';
import { ListenerSet } from './listener-set.js';
import { LoopDelay } from './loop-delay.js';
import { RouteSource } from './route-source.js';
import { Running } from './running.js';
import { SourcePorts } from './source-ports.js';
import { Shutdown } from './shutdown.js';
import { createTcpListenerFactory } from './tcp/tcp-listener.js';
import { rendezvousOwner } from './udp-owner.js';
import { createUdpListenerFactory } from './udp/udp-listener.js';

export interface UserspacePlaneDeps {
  readonly clock: Clock;
  readonly hash: Hash32;
  /** The machine's own addresses of a family. */
  readonly ownAddresses: (family: 4 | 6) => readonly IpAddress[];
  /** Files and sockets this process may have open; undefined: no limit. */
  readonly descriptorLimit?: number | undefined;
  /** Asked before each TCP port, where other workers share it. @default nobody is asked */
  readonly tcpGate?: PortGate;
}

export interface UserspacePlaneOptions extends PlaneOptions {
  /** Which of how many workers this is; 0 of 1 where there is one. */
  readonly worker: number;
  readonly workers: number;
}

/** No permission, no descriptors: trying again changes nothing. */
const LASTING_FAILURES: ReadonlySet<string> = new Set(['EACCES', 'EMFILE']);

/** How often ports that could not be bound are tried again. */
const RETRY_LISTEN_MS = 10_000;

/** The data plane on net and dgram sockets: one worker's share of it. */
export class UserspacePlane implements WorkerPlane {
  readonly #deps: UserspacePlaneDeps;
  readonly #options: UserspacePlaneOptions;
  readonly #events: EventQueue;
  readonly #connectLatency = new ConnectLatency();
  readonly #loopDelay: LoopDelay;
  readonly #share: PlanShare;
  #running: Running | undefined;
  #shutdown: Shutdown | undefined;
  /** Start and applies run one after another. */
  #queue: Promise<unknown> = Promise.resolve();

  constructor(deps: UserspacePlaneDeps, options: UserspacePlaneOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#events = new EventQueue(deps.clock);
    this.#loopDelay = new LoopDelay(deps.clock);
    this.#share = { worker: options.worker, ownerOf: rendezvousOwner(deps.hash, options.workers) };
  }

  start(state: ForwardingState): Promise<ApplyReport> {
    // Not only in its turn: a scrape of the counters may follow at once.
    const running = this.#run(state);
    this.#running = running;
    this.#loopDelay.start();
    return this.#inTurn(async () => {
      this.#plan(running, state);
      const report = await this.#listen(running, state);
      // One of several cannot judge that: the others may have all that can be bound.
      if (this.#options.workers > 1 || !isDeaf(report)) return report;
      await this.stop(0);
      throw listenFailed(report.failures);
    });
  }

  apply(state: ForwardingState): Promise<ApplyReport> {
    return this.#inTurn(async () => {
      const running = this.#require();
      const previous = running.keeper.state;
      running.keeper.adopt(state);
      const sameConfiguration = previous.configuration.digest === state.configuration.digest;
      if (!sameConfiguration) running.listeners.rebind(this.#plan(running, state));
      enforceFlowPolicies(running.keeper, previous.configuration.digest);
      // What could not be bound is tried again by timer, not with every probe result.
      if (sameConfiguration || this.#shutdown !== undefined) {
        return this.#report(running, state);
      }
      return this.#listen(running, state);
    });
  }

  flows(query: FlowQuery): Promise<FlowPage> {
    const running = this.#running;
    if (running === undefined) return Promise.resolve({ flows: [] });
    const { keeper } = running;
    const page = keeper.table.page(query, query.after ?? 0, query.limit);
    const nowMs = this.#deps.clock.monotonicMs();
    const flows = page.flows.map((flow) => flowRecord(flow, nowMs));
    return Promise.resolve(page.next === undefined ? { flows } : { flows, next: page.next });
  }

  counters(): Promise<PlaneCounters> {
    const running = this.#running;
    if (running === undefined) return Promise.reject(notStarted());
    const { keeper, listeners, sourcePorts } = running;
    keeper.settleAll();
    return Promise.resolve({
      traffic: keeper.traffic
        .allTraffic()
        .map((totals) => ({ ...totals, flowsEnded: { ...totals.flowsEnded } })),
      arrivals: keeper.traffic.allArrivals().map((totals) => ({ ...totals, drops: { ...totals.drops } })),
      table: {
        tcp: keeper.table.use('tcp'),
        udp: keeper.table.use('udp'),
        embryonic: keeper.table.use('embryonic'),
      },
      connectSeconds: this.#connectLatency.snapshot(),
      sourcePorts: sourcePorts.uses(),
      eventLoopDelaySeconds: [this.#loopDelay.worstSeconds()],
      listeners: listeners.census(),
      workersLost: 0,
    });
  }

  allow(shares: CapShares): void {
    this.#running?.keeper.allow(shares);
  }

  capUses(): CapUses {
    return this.#running?.keeper.capUses() ?? new Map();
  }

  flowCount(): number {
    return this.#running?.keeper.table.size ?? 0;
  }

  subscribe(listener: (events: readonly PlaneEvent[]) => void): () => void {
    return this.#events.subscribe(listener);
  }

  async stop(deadlineMs: number, udp: UdpStop = 'lame-duck'): Promise<StopReport> {
    const running = this.#running;
    if (running === undefined) return { finished: 0, reset: 0 };
    running.listeners.close();
    this.#shutdown ??= new Shutdown(this.#deps.clock, running.keeper);
    if (udp === 'at-once') this.#shutdown.endUdp();
    const report = await this.#shutdown.within(deadlineMs);
    running.cancelTimers();
    running.listeners.destroy();
    this.#events.flush();
    this.#loopDelay.stop();
    return report;
  }

  #run(state: ForwardingState): Running {
    const { clock, hash } = this.#deps;
    const keeper = new FlowKeeper({ clock, events: this.#events }, this.#options, state);
    const picker = createPicker(hash);
    const sourcePorts = new SourcePorts({ clock, events: this.#events }, this.#options);
    const routeSource = new RouteSource({ clock });
    const shared = { keeper, picker, sourcePorts, routeSource };
    const onConnectLatency = (backendId: string, seconds: number): void => {
      this.#connectLatency.observe(backendId, seconds);
    };
    const { descriptorLimit, tcpGate } = this.#deps;
    const tcp = createTcpListenerFactory({ ...shared, onConnectLatency });
    const isElsewhere = (address: string, port: number): boolean =>
      portSetContains(running.plannedUdpPorts.get(address) ?? [], port);
    const listeners = new ListenerSet(
      {
        tcp: tcpGate === undefined ? tcp : gatedListeners(tcp, tcpGate),
        udp: createUdpListenerFactory({ ...shared, isElsewhere }),
      },
      descriptorLimit === undefined ? {} : { descriptorLimit },
    );
    const running = new Running({ clock, keeper, listeners, sourcePorts });
    return running;
  }

  #plan(running: Running, { configuration }: ForwardingState): ListenerPlan {
    const { ownAddresses } = this.#deps;
    running.plan = planListeners(configuration, ownAddresses, this.#share);
    // One worker knows all UDP sockets as its own.
    if (this.#options.workers > 1) running.plannedUdpPorts = plannedUdpPorts(configuration, ownAddresses);
    return running.plan;
  }

  /** Opens and closes what the plan asks for. */
  async #listen(running: Running, state: ForwardingState): Promise<ApplyReport> {
    running.failures = await running.listeners.apply(running.plan);
    this.#retryListening(running);
    return this.#report(running, state);
  }

  /** An address may arrive later (VRRP) and a port may be freed; a missing permission stays missing. */
  #retryListening(running: Running): void {
    running.cancelRetry();
    if (
      this.#shutdown !== undefined ||
      !running.failures.some(({ errorCode }) => !LASTING_FAILURES.has(errorCode))
    )
      return;
    running.cancelRetry = this.#deps.clock.setTimer(RETRY_LISTEN_MS, () => {
      void this.#inTurn(() => this.#listenAgain(running));
    });
  }

  async #listenAgain(running: Running): Promise<void> {
    if (this.#shutdown !== undefined) return;
    const failuresBefore = ownFailures(running.plan, running.failures).length;
    const { state } = running.keeper;
    this.#plan(running, state);
    const { listeners, failures } = await this.#listen(running, state);
    if (failures.length === failuresBefore) return;
    this.#events.push({
      type: 'listening-changed',
      atMs: this.#deps.clock.wallMs(),
      worker: this.#options.worker,
      listeners,
      failures: failures.length,
    });
  }

  #report({ listeners, plan, failures }: Running, state: ForwardingState): ApplyReport {
    return {
      revision: state.revision,
      listeners: { tcp: listeners.count('tcp'), udp: listeners.count('udp') },
      failures: ownFailures(plan, failures),
    };
  }

  #require(): Running {
    if (this.#running === undefined) throw notStarted();
    return this.#running;
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(work);
    this.#queue = result.catch(() => undefined);
    return result;
  }
}

function notStarted(): TypeError {
  return new TypeError('The data plane has not been started');
}
