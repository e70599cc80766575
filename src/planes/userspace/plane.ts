import { monitorEventLoopDelay, type IntervalHistogram } from 'node:perf_hooks';
import { flowRecord } from '../../flows/flow.js';
import { WHEEL_TICK_MS } from '../../flows/idle-wheel.js';
import { arrivalRow, trafficRow } from '../../flows/traffic.js';
import type { IpAddress } from '../../model/address.js';
import type { PlaneEvent } from '../../model/events.js';
import type { OriginFeed } from '../../model/flow.js';
import type { ForwardingState } from '../../model/forwarding.js';
import type { Clock } from '../../runtime/clock.js';
import type { Hash32 } from '../../selection/flow-hash.js';
import { createPicker } from '../../selection/picker.js';
import {
  isDeaf,
  listenFailed,
  type ApplyReport,
  type CapShares,
  type CapUses,
  type FlowPage,
  type FlowQuery,
  type ListeningSocket,
  type PlaneCounters,
  type PlaneOptions,
  type PortGate,
  type StopReport,
  type UdpFlowState,
  type UdpStop,
  type WorkerPlane,
} from '../contract.js';
import { EventQueue, FlowEnforcement, FlowManager } from './flow-manager.js';
import { ConnectLatency } from './limits.js';
import { rendezvousOwner, type PlanShare } from './listen-plan.js';
import type { ListenerFactory } from './listener.js';
import { ListenerSet, Listening, gatedListeners } from './listeners.js';
import { Inheritance } from './node-handles.js';
import { RouteSource } from './source-address.js';
import { SourcePorts } from './source-ports.js';
import { TransparentSockets, createTcpListenerFactory } from './tcp/listener.js';
import { createUdpListenerFactory } from './udp/listener.js';

export interface UserspacePlaneDeps {
  readonly clock: Clock;
  readonly hash: Hash32;
  /** The machine's own addresses of a family. */
  readonly ownAddresses: (family: 4 | 6) => readonly IpAddress[];
  /** Files and sockets this process may have open; undefined: no limit. */
  readonly descriptorLimit?: number | undefined;
  /** Where captured UDP sockets' datagrams come from. @default there are no captured UDP sockets */
  readonly origins?: OriginFeed;
  /** Asked before each TCP port, where other workers share it. @default nobody is asked */
  readonly tcpGate?: PortGate;
}

export interface UserspacePlaneOptions extends PlaneOptions {
  /** Which of how many workers this is; 0 of 1 where there is one. */
  readonly worker: number;
  readonly workers: number;
}

/** Other workers close a shared socket within the time that it takes them to hear of it. */
const HAND_OVER_MS = 3000;

/** The data plane on net and dgram sockets: one worker's share of it. */
export class UserspacePlane implements WorkerPlane {
  readonly #deps: UserspacePlaneDeps;
  readonly #options: UserspacePlaneOptions;
  readonly #events: EventQueue;
  readonly #connectLatency = new ConnectLatency();
  readonly #loopDelay: LoopDelay;
  readonly #share: PlanShare;
  readonly #inheritance = new Inheritance();
  readonly #transparent: TransparentSockets;
  #running: Running | undefined;
  #shutdown: Shutdown | undefined;
  /** Start and applies run one after another. */
  #queue: Promise<unknown> = Promise.resolve();

  constructor(deps: UserspacePlaneDeps, options: UserspacePlaneOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#events = new EventQueue(deps.clock);
    this.#loopDelay = new LoopDelay(deps.clock);
    const { worker, workers, capture, tcpPorts } = options;
    const ownerOf = rendezvousOwner(deps.hash, workers);
    this.#share = { worker, ownerOf, tcpPorts, ...(capture === undefined ? {} : { capture }) };
    this.#transparent = new TransparentSockets(capture ?? {});
  }

  start(state: ForwardingState): Promise<ApplyReport> {
    // Not only in its turn: a scrape of the counters may follow at once.
    const running = this.#run(state);
    this.#running = running;
    this.#loopDelay.start();
    return this.#inTurn(async () => {
      const { listening } = running;
      listening.adopt(state.configuration);
      await listening.follow();
      this.#inheritance.discard();
      const report = listening.report(state.revision);
      // One of several cannot judge that: the others may have all that can be bound.
      if (this.#options.workers > 1 || !isDeaf(report)) return report;
      await this.stop(0);
      throw listenFailed(report.failures);
    });
  }

  prepare({ configuration }: ForwardingState): Promise<void> {
    return this.#inTurn(async () => {
      const { manager, listening } = this.#require();
      if (this.#shutdown !== undefined) return;
      if (manager.state.configuration.digest === configuration.digest) listening.abandon();
      else await listening.prepare(configuration);
    });
  }

  apply(state: ForwardingState): Promise<ApplyReport> {
    return this.#inTurn(async () => {
      const { manager, listening, enforcement } = this.#require();
      const { configuration: previous } = manager.state;
      const { configuration, revision } = state;
      // What could not be bound is tried again by timer, not with every probe result.
      const opens = previous.digest !== configuration.digest && this.#shutdown === undefined;
      if (opens) {
        await listening.prepare(configuration);
        await listening.handOver();
      } else {
        listening.abandon();
      }
      manager.adopt(state);
      if (previous.digest !== configuration.digest) listening.adopt(configuration);
      enforcement.enforce(previous);
      if (opens) await listening.follow();
      return listening.report(revision);
    });
  }

  flows(query: FlowQuery): Promise<FlowPage> {
    const running = this.#running;
    if (running === undefined) return Promise.resolve({ flows: [] });
    const { manager } = running;
    const page = manager.table.page(query, query.after ?? 0, query.limit);
    const nowMs = this.#deps.clock.monotonicMs();
    const flows = page.flows.map((flow) => flowRecord(flow, nowMs));
    return Promise.resolve(page.next === undefined ? { flows } : { flows, next: page.next });
  }

  counters(): Promise<PlaneCounters> {
    const running = this.#running;
    if (running === undefined) return Promise.reject(notStarted());
    return Promise.resolve({
      ...planeCounters(running),
      connectSeconds: this.#connectLatency.snapshot(),
      eventLoopDelaySeconds: [this.#loopDelay.worstSeconds()],
    });
  }

  answer(): Promise<void> {
    return Promise.resolve();
  }

  inherit(sockets: readonly ListeningSocket[]): Promise<void> {
    this.#inheritance.addSockets(sockets);
    return Promise.resolve();
  }

  inheritFlows(flows: readonly UdpFlowState[]): void {
    this.#inheritance.setFlows(flows);
  }

  lend(onSocket: (socket: ListeningSocket) => void): Promise<void> {
    return this.#inTurn(() => {
      for (const listener of this.#require().listening.listeners()) {
        const handle = listener.rawHandle?.();
        const { protocol, address, port } = listener.binding;
        if (handle !== undefined)
          onSocket({ protocol, address: address.text, port, handle, release: () => undefined });
      }
      return Promise.resolve();
    });
  }

  freezeUdp(): Promise<readonly UdpFlowState[]> {
    const { listening } = this.#require();
    return Promise.resolve(listening.listeners().flatMap((listener) => listener.freeze?.() ?? []));
  }

  thawUdp(): Promise<void> {
    for (const listener of this.#require().listening.listeners()) listener.thaw?.();
    return Promise.resolve();
  }

  allow(shares: CapShares): void {
    this.#running?.manager.allow(shares);
  }

  capUses(): CapUses {
    return this.#running?.manager.capUses() ?? new Map();
  }

  flowCount(): number {
    return this.#running?.manager.table.size ?? 0;
  }

  subscribe(listener: (events: readonly PlaneEvent[]) => void): () => void {
    return this.#events.subscribe(listener);
  }

  async stop(deadlineMs: number, udp: UdpStop = 'lame-duck'): Promise<StopReport> {
    const running = this.#running;
    if (running === undefined) return { finished: 0, reset: 0 };
    this.#transparent.retire();
    running.listening.close();
    this.#shutdown ??= new Shutdown(this.#deps.clock, running.manager);
    if (udp === 'at-once') this.#shutdown.endUdp();
    const report = await this.#shutdown.within(deadlineMs);
    running.cancelTimers();
    running.listening.destroy();
    this.#events.flush();
    this.#loopDelay.stop();
    return report;
  }

  #run(state: ForwardingState): Running {
    const { clock, hash } = this.#deps;
    const manager = new FlowManager({ clock, events: this.#events }, this.#options, state);
    const picker = createPicker(hash);
    const sourcePorts = new SourcePorts({ clock, events: this.#events }, this.#options);
    const routeSource = new RouteSource({ clock });
    const shared = { manager, picker, sourcePorts, routeSource };
    const onConnectLatency = (backendId: string, seconds: number): void => {
      this.#connectLatency.observe(backendId, seconds);
    };
    const { descriptorLimit, origins, ownAddresses, tcpGate } = this.#deps;
    const inheritance = this.#inheritance;
    const transparent = this.#transparent;
    const { capture } = this.#options;
    const tcp = createTcpListenerFactory(
      { ...shared, onConnectLatency },
      { inheritance, transparent, ...(capture === undefined ? {} : { capture }) },
    );
    const isElsewhere = (address: string, port: number): boolean => listening.isUdpElsewhere(address, port);
    const listeners = new ListenerSet(
      {
        clock,
        factories: {
          tcp: tcpGate === undefined ? tcp : gatedUnless(transparent, tcp, tcpGate),
          udp: createUdpListenerFactory({ ...shared, isElsewhere, inheritance, origins }),
        },
      },
      {
        ...(descriptorLimit === undefined ? {} : { descriptorLimit }),
        ...(tcpGate === undefined ? {} : { handOverMs: HAND_OVER_MS }),
      },
    );
    const listening = new Listening(
      {
        ...{ clock, events: this.#events, listeners, ownAddresses },
        learnRoutes: (destinations) => routeSource.learn(destinations),
        inTurn: (work) => this.#inTurn(work),
      },
      { share: this.#share, workers: this.#options.workers, descriptorLimit },
    );
    return new Running({ clock, manager, listening, sourcePorts });
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

/** Sockets that were handed in need no gate, which would try to bind them. */
function gatedUnless(transparent: TransparentSockets, tcp: ListenerFactory, gate: PortGate): ListenerFactory {
  const gated = gatedListeners(tcp, gate);
  return { open: (binding) => (transparent.has(binding) ? tcp : gated).open(binding) };
}

function notStarted(): TypeError {
  return new TypeError('The data plane has not been started');
}

export interface RunningParts {
  readonly clock: Clock;
  readonly manager: FlowManager;
  readonly listening: Listening;
  readonly sourcePorts: SourcePorts;
}

/** What a userspace plane has between start and stop. Its clock ticks from the beginning until cancelTimers. */
export class Running {
  readonly manager: FlowManager;
  readonly listening: Listening;
  readonly sourcePorts: SourcePorts;
  readonly enforcement: FlowEnforcement;
  #cancelTick: () => void;

  constructor({ clock, manager, listening, sourcePorts }: RunningParts) {
    this.manager = manager;
    this.listening = listening;
    this.sourcePorts = sourcePorts;
    this.enforcement = new FlowEnforcement(manager);
    const tick = (): void => {
      manager.tick();
      this.#cancelTick = clock.setTimer(WHEEL_TICK_MS, tick);
    };
    this.#cancelTick = clock.setTimer(WHEEL_TICK_MS, tick);
  }

  cancelTimers(): void {
    this.#cancelTick();
    this.enforcement.stop();
  }
}

/** Copies of all totals of a worker as they are now, but for what others measure. */
export function planeCounters({
  manager,
  listening,
  sourcePorts,
}: Running): Omit<PlaneCounters, 'connectSeconds' | 'eventLoopDelaySeconds'> {
  manager.settleAll();
  const { table, traffic } = manager;
  return {
    traffic: traffic.allTraffic().map(trafficRow),
    arrivals: traffic.allArrivals().map(arrivalRow),
    table: { tcp: table.use('tcp'), udp: table.use('udp'), embryonic: table.use('embryonic') },
    sourcePorts: sourcePorts.uses(),
    listeners: listening.census(),
    workersLost: 0,
  };
}

const WINDOW_MS = 15_000;
const NANOSECONDS = 1e9;

/** How often the loop is asked to come by, in milliseconds. The histogram holds the whole time between two visits. */
const VISIT_MS = 20;

type LoopHistogram = Pick<IntervalHistogram, 'enable' | 'disable' | 'reset' | 'max'>;

/** How late this process's event loop runs: the worst of the present window and the one before, whoever asks how often. */
export class LoopDelay {
  readonly #clock: Clock;
  readonly #histogram: LoopHistogram;
  #previousWorst = 0;
  #cancel: () => void = () => undefined;

  constructor(clock: Clock, histogram: LoopHistogram = monitorEventLoopDelay({ resolution: VISIT_MS })) {
    this.#clock = clock;
    this.#histogram = histogram;
  }

  start(): void {
    this.#histogram.enable();
    this.#nextWindow();
  }

  stop(): void {
    this.#cancel();
    this.#histogram.disable();
  }

  worstSeconds(): number {
    const betweenVisits = Math.max(this.#previousWorst, this.#histogram.max) / NANOSECONDS;
    return Math.max(0, betweenVisits - VISIT_MS / 1000);
  }

  #nextWindow(): void {
    this.#cancel = this.#clock.setTimer(
      WINDOW_MS,
      () => {
        this.#previousWorst = this.#histogram.max;
        this.#histogram.reset();
        this.#nextWindow();
      },
      { unref: true },
    );
  }
}

const CHECK_MS = 50;

/** A UDP flow has no end of its own: while stopping, a second of silence is taken for one. */
const UDP_QUIET_MS = 1000;

/** Lets flows finish until a deadline, then resets the rest. The listeners are closed by then. */
export class Shutdown {
  readonly #clock: Clock;
  readonly #manager: FlowManager;
  readonly #flowsAtStart: number;
  #deadlineMs = Infinity;
  #done: Promise<StopReport> | undefined;
  #wake: (() => void) | undefined;

  constructor(clock: Clock, manager: FlowManager) {
    this.#clock = clock;
    this.#manager = manager;
    this.#flowsAtStart = manager.table.size;
  }

  /** May be called again with a shorter deadline; every call resolves with the one report. */
  within(deadlineMs: number): Promise<StopReport> {
    this.#deadlineMs = Math.min(this.#deadlineMs, this.#clock.monotonicMs() + deadlineMs);
    this.#wake?.();
    this.#done ??= this.#run();
    return this.#done;
  }

  async #run(): Promise<StopReport> {
    for (;;) {
      this.#endUdpQuietSince(this.#clock.monotonicMs() - UDP_QUIET_MS);
      if (this.#manager.table.size === 0) return { finished: this.#flowsAtStart, reset: 0 };
      if (this.#clock.monotonicMs() >= this.#deadlineMs) break;
      await this.#pause();
    }
    let reset = 0;
    for (const flow of this.#manager.table.all()) {
      this.#manager.end(flow, 'shutdown', 'reset');
      reset++;
    }
    return { finished: Math.max(0, this.#flowsAtStart - reset), reset };
  }

  /** Ends all UDP flows now. */
  endUdp(): void {
    this.#endUdpQuietSince(Infinity);
  }

  #endUdpQuietSince(quietSinceMs: number): void {
    for (const flow of this.#manager.table.all()) {
      if (flow.tuple.protocol === 'udp' && flow.lastActivityMs <= quietSinceMs) {
        this.#manager.end(flow, 'shutdown', 'close');
      }
    }
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.#clock.setTimer(CHECK_MS, resolve);
      this.#wake = () => {
        cancel();
        resolve();
      };
    });
  }
}
