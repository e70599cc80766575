import type { OriginFeed } from '../../model/flow.js';
import type { PlaneEvent } from '../../model/events.js';
import type { ForwardingState } from '../../model/forwarding.js';
import type { CapShares, CapUses } from '../../flows/caps.js';
import { EventQueue } from '../../flows/event-queue.js';
import { FlowManager } from '../../flows/flow-manager.js';
import { flowRecord } from '../../flows/flow.js';
import { WHEEL_TICK_MS } from '../../flows/idle-wheel.js';
import type { Clock } from '../../runtime/clock.js';
import { SerialQueue } from '../../runtime/queue.js';
import type { Hash32 } from '../../selection/flow-hash.js';
import { Picker } from '../../selection/picker.js';
import {
  isDeaf,
  listenFailed,
  type ApplyReport,
  type FlowPage,
  type FlowQuery,
  type ListeningSocket,
  type PlaneCounters,
  type PortGate,
  type StopReport,
  type UdpFlowState,
  type UdpStop,
  type WorkerOptions,
  type WorkerPlane,
} from '../contract.js';
import { descriptorsForFlows } from './descriptors.js';
import { HandoverState } from './handover-state.js';
import { ConnectLatency, LoopDelay } from './latency.js';
import { rendezvousOwner, type OwnAddresses } from './listen-plan.js';
import { ListenerManager } from './listeners.js';
import { DgramSockets } from './sockets/dgram.js';
import { NetSockets } from './sockets/net.js';
import { RouteSource } from './source-address.js';
import { SourcePorts } from './source-ports.js';
import { createTcpListenerFactory } from './tcp/listener.js';
import { UdpListenerRegistry } from './udp/listener.js';

export interface UserspacePlaneDeps {
  readonly clock: Clock;
  readonly hash: Hash32;
  /** The machine's own addresses of a family. */
  readonly ownAddresses: OwnAddresses;
  /** Files and sockets this process may have open; undefined: no limit. */
  readonly descriptorLimit?: number | undefined;
  /** Where captured UDP sockets' datagrams come from. @default there are no captured UDP sockets */
  readonly origins?: OriginFeed;
  /** Asked before each TCP port, where other workers share it. @default no one is asked */
  readonly tcpGate?: PortGate;
}

/** What a plane has between start and stop. */
interface Running {
  readonly manager: FlowManager;
  readonly listeners: ListenerManager;
  readonly sourcePorts: SourcePorts;
  cancelTick: () => void;
}

/** The data plane on net and dgram sockets: one worker's share of it. */
export class UserspacePlane implements WorkerPlane {
  readonly #deps: UserspacePlaneDeps;
  readonly #options: WorkerOptions;
  readonly #events: EventQueue;
  readonly #connectLatency = new ConnectLatency();
  readonly #loopDelay: LoopDelay;
  readonly #handover = new HandoverState();
  #running: Running | undefined;
  #shutdown: Shutdown | undefined;
  /** Start and applies run one after another. */
  readonly #queue = new SerialQueue();

  constructor(deps: UserspacePlaneDeps, options: WorkerOptions) {
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
    return this.#queue.run(async () => {
      await running.listeners.start(state.configuration);
      this.#shareDescriptors(running);
      this.#handover.discard();
      const report = running.listeners.report(state.revision);
      // One of several cannot judge that: the others may have all that can be bound.
      if (this.#options.workers > 1 || !isDeaf(report)) return report;
      await this.stop(0);
      throw listenFailed(report.failures);
    });
  }

  prepare({ configuration }: ForwardingState): Promise<void> {
    return this.#queue.run(async () => {
      const { manager, listeners } = this.#require();
      if (manager.state.configuration.digest === configuration.digest) listeners.discard();
      else await listeners.stage(configuration);
    });
  }

  apply(state: ForwardingState): Promise<ApplyReport> {
    return this.#queue.run(async () => {
      const { manager, listeners } = this.#require();
      const { configuration, revision } = state;
      if (manager.state.configuration.digest === configuration.digest) {
        // What could not be bound is tried again by timer, not with every probe result.
        listeners.discard();
        manager.apply(state);
      } else {
        await listeners.stage(configuration);
        await listeners.commit(() => manager.apply(state));
      }
      return listeners.report(revision);
    });
  }

  flows(query: FlowQuery): Promise<FlowPage> {
    const nowMs = this.#deps.clock.monotonicMs();
    const page = this.#running?.manager.table.page(query, query.after ?? 0, query.limit);
    const flows = page?.flows.map((flow) => flowRecord(flow, nowMs)) ?? [];
    return Promise.resolve(page?.next === undefined ? { flows } : { flows, next: page.next });
  }

  counters(): Promise<PlaneCounters> {
    const running = this.#running;
    if (running === undefined) return Promise.reject(notStarted());
    const { manager, listeners, sourcePorts } = running;
    const { table, traffic } = manager;
    manager.settleAll();
    return Promise.resolve({
      traffic: traffic.rows(),
      arrivals: traffic.arrivalRows(),
      table: { tcp: table.use('tcp'), udp: table.use('udp'), embryonic: table.use('embryonic') },
      ...(this.#deps.descriptorLimit !== undefined && { descriptors: table.descriptorUse() }),
      connectSeconds: this.#connectLatency.snapshot(),
      sourcePorts: sourcePorts.uses(),
      eventLoopDelaySeconds: [this.#loopDelay.worstSeconds()],
      listeners: listeners.census(),
      workersLost: 0,
    });
  }

  answer(): Promise<void> {
    return Promise.resolve();
  }

  inherit(sockets: readonly ListeningSocket[]): Promise<void> {
    this.#handover.addSockets(sockets);
    return Promise.resolve();
  }

  inheritFlows(flows: readonly UdpFlowState[]): void {
    this.#handover.setFlows(flows);
  }

  lend(onSocket: (socket: ListeningSocket) => void): Promise<void> {
    return this.#queue.run(() => {
      for (const listener of this.#require().listeners.all()) {
        const handle = listener.rawHandle();
        const { protocol, address, port } = listener.binding;
        if (handle !== undefined)
          onSocket({ protocol, address: address.text, port, handle, release: () => undefined });
      }
      return Promise.resolve();
    });
  }

  freezeUdp(): Promise<readonly UdpFlowState[]> {
    const { listeners } = this.#require();
    return Promise.resolve(listeners.all().flatMap((listener) => listener.freeze?.() ?? []));
  }

  thawUdp(): Promise<void> {
    for (const listener of this.#require().listeners.all()) listener.thaw?.();
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
    running.listeners.close();
    this.#shutdown ??= new Shutdown(this.#deps.clock, running.manager);
    if (udp === 'at-once') this.#shutdown.endUdp();
    const report = await this.#shutdown.within(deadlineMs);
    running.cancelTick();
    running.manager.stop();
    running.listeners.destroy();
    this.#events.flush();
    this.#loopDelay.stop();
    return report;
  }

  #run(state: ForwardingState): Running {
    const { clock, hash, descriptorLimit, origins, ownAddresses, tcpGate } = this.#deps;
    const { capture, worker, workers, tcpPorts } = this.#options;
    const events = this.#events;
    const manager = new FlowManager({ clock, events }, this.#options, state);
    const sourcePorts = new SourcePorts({ clock, events }, this.#options);
    const routeSource = new RouteSource({ clock });
    const shared = { manager, picker: new Picker(hash), sourcePorts, routeSource };
    const onConnectLatency = (backendId: string, seconds: number): void => {
      this.#connectLatency.observe(backendId, seconds);
    };
    const tcp = createTcpListenerFactory({ ...shared, sockets: new NetSockets(), onConnectLatency }, capture);
    const isElsewhere = (address: string, port: number): boolean => listeners.isUdpElsewhere(address, port);
    const udp = new UdpListenerRegistry({ ...shared, sockets: new DgramSockets(), isElsewhere, origins });
    const listeners = new ListenerManager(
      {
        ...{ clock, events, factories: { tcp, udp }, handover: this.#handover, ownAddresses, tcpGate },
        slotsFor: (configuration) => manager.slotsFor(configuration),
        learnRoutes: (destinations) => routeSource.learn(destinations),
        inTurn: (work) => this.#queue.run(work),
      },
      {
        share: { worker, ownerOf: rendezvousOwner(hash, workers), tcpPorts, capture },
        ...{ workers, descriptorLimit },
      },
    );
    const running: Running = { manager, listeners, sourcePorts, cancelTick: () => undefined };
    const tick = (): void => {
      running.cancelTick = clock.setTimer(WHEEL_TICK_MS, () => {
        this.#shareDescriptors(running);
        manager.tick();
        tick();
      });
    };
    this.#shareDescriptors(running);
    tick();
    return running;
  }

  /** What listeners, which come and go, and the process itself leave is for flows. */
  #shareDescriptors({ manager, listeners }: Running): void {
    const { descriptorLimit: limit } = this.#deps;
    if (limit === undefined) return;
    const { configuration } = manager.state;
    manager.table.setDescriptorRoom(descriptorsForFlows({ limit, configuration }, listeners.openSockets));
  }

  #require(): Running {
    if (this.#running === undefined) throw notStarted();
    return this.#running;
  }
}

function notStarted(): TypeError {
  return new TypeError('The data plane has not been started');
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
