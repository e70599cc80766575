import { flowRecord } from '../../flow/flow.js';
import { WHEEL_TICK_MS } from '../../flow/idle-wheel.js';
import type { IpAddress } from '../../model/address.js';
import { BalancerError } from '../../model/errors.js';
import type { PlaneEvent } from '../../model/events.js';
import type { ForwardingState } from '../../model/forwarding-state.js';
import type { Clock } from '../../runtime/clock.js';
import type { Hash32 } from '../../selection/hasher.js';
import { createPicker } from '../../selection/picker.js';
import type {
  ApplyReport,
  DataPlane,
  FlowPage,
  FlowQuery,
  ListenFailure,
  PlaneCounters,
  PlaneOptions,
  StopReport,
  UdpStop,
} from '../data-plane.js';
import { ConnectLatency } from './connect-latency.js';
import { EventQueue } from './event-queue.js';
import { enforceFlowPolicies } from './flow-enforcement.js';
import { FlowKeeper } from './flow-keeper.js';
import { planListeners } from './listener-plan.js';
import { ListenerSet } from './listener-set.js';
import { LoopDelay } from './loop-delay.js';
import { RouteSource } from './route-source.js';
import { SourcePorts } from './source-ports.js';
import { Shutdown } from './shutdown.js';
import { createTcpListenerFactory } from './tcp/tcp-listener.js';
import { createUdpListenerFactory } from './udp/udp-listener.js';

export interface UserspacePlaneDeps {
  readonly clock: Clock;
  readonly hash: Hash32;
  /** The machine's own addresses of a family. */
  readonly ownAddresses: (family: 4 | 6) => readonly IpAddress[];
  /** Files and sockets this process may have open; undefined: no limit. */
  readonly descriptorLimit?: number | undefined;
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
export class UserspacePlane implements DataPlane {
  readonly #deps: UserspacePlaneDeps;
  readonly #options: UserspacePlaneOptions;
  readonly #events: EventQueue;
  readonly #connectLatency = new ConnectLatency();
  readonly #loopDelay: LoopDelay;
  #running: Running | undefined;
  #shutdown: Shutdown | undefined;
  /** Start and applies run one after another. */
  #queue: Promise<unknown> = Promise.resolve();

  constructor(deps: UserspacePlaneDeps, options: UserspacePlaneOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#events = new EventQueue(deps.clock);
    this.#loopDelay = new LoopDelay(deps.clock);
  }

  start(state: ForwardingState): Promise<ApplyReport> {
    // Not only in its turn: a scrape of the counters may follow at once.
    const running = this.#run(state);
    this.#running = running;
    this.#loopDelay.start();
    return this.#inTurn(async () => {
      const report = await this.#listen(running, state);
      const open = report.listeners.tcp + report.listeners.udp;
      if (open === 0 && report.failures.length > 0) {
        await this.stop(0);
        throw new BalancerError(noListenerMessage(report.failures), {
          code: 'LB_LISTEN_FAILED',
          source: 'system',
        });
      }
      return report;
    });
  }

  apply(state: ForwardingState): Promise<ApplyReport> {
    return this.#inTurn(async () => {
      const running = this.#require();
      const previous = running.keeper.state;
      running.keeper.adopt(state);
      const sameConfiguration = previous.configuration.digest === state.configuration.digest;
      if (!sameConfiguration)
        running.listeners.rebind(planListeners(state.configuration, this.#deps.ownAddresses));
      enforceFlowPolicies(running.keeper, previous.configuration.digest);
      // What could not be bound is tried again by timer, not with every probe result.
      if (sameConfiguration || this.#shutdown !== undefined) {
        return this.#report(running, state, running.failures);
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
    const sourcePorts = new SourcePorts({ clock, events: this.#events });
    const routeSource = new RouteSource({ clock });
    const shared = { keeper, picker, sourcePorts, routeSource };
    const onConnectLatency = (backendId: string, seconds: number): void => {
      this.#connectLatency.observe(backendId, seconds);
    };
    const { descriptorLimit } = this.#deps;
    const listeners = new ListenerSet(
      {
        tcp: createTcpListenerFactory({ ...shared, onConnectLatency }),
        udp: createUdpListenerFactory(shared),
      },
      descriptorLimit === undefined ? {} : { descriptorLimit },
    );
    return new Running(clock, keeper, listeners, sourcePorts);
  }

  async #listen(running: Running, state: ForwardingState): Promise<ApplyReport> {
    const plan = planListeners(state.configuration, this.#deps.ownAddresses);
    running.failures = await running.listeners.apply(plan);
    this.#retryListening(running);
    return this.#report(running, state, running.failures);
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
    const failuresBefore = running.failures.length;
    const { listeners, failures } = await this.#listen(running, running.keeper.state);
    if (failures.length === failuresBefore) return;
    this.#events.push({
      type: 'listening-changed',
      atMs: this.#deps.clock.wallMs(),
      worker: this.#options.worker,
      listeners,
      failures: failures.length,
    });
  }

  #report(running: Running, state: ForwardingState, failures: readonly ListenFailure[]): ApplyReport {
    const { listeners } = running;
    return {
      revision: state.revision,
      listeners: { tcp: listeners.count('tcp'), udp: listeners.count('udp') },
      failures,
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

/** What exists between start and stop. */
class Running {
  readonly keeper: FlowKeeper;
  readonly listeners: ListenerSet;
  readonly sourcePorts: SourcePorts;
  failures: readonly ListenFailure[] = [];
  cancelRetry: () => void = () => undefined;
  #cancelTick: () => void;

  constructor(clock: Clock, keeper: FlowKeeper, listeners: ListenerSet, sourcePorts: SourcePorts) {
    this.keeper = keeper;
    this.listeners = listeners;
    this.sourcePorts = sourcePorts;
    const tick = (): void => {
      keeper.tick();
      this.#cancelTick = clock.setTimer(WHEEL_TICK_MS, tick);
    };
    this.#cancelTick = clock.setTimer(WHEEL_TICK_MS, tick);
  }

  cancelTimers(): void {
    this.#cancelTick();
    this.cancelRetry();
  }
}

function notStarted(): TypeError {
  return new TypeError('The data plane has not been started');
}

function noListenerMessage(failures: readonly ListenFailure[]): string {
  const [first] = failures;
  const example =
    first === undefined
      ? ''
      : `, first ${first.protocol} ${first.address} port ${first.port}: ${first.errorCode}`;
  return `Cannot listen on any of ${failures.length} ports${example}`;
}
