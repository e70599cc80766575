import type { CapShares, CapUses } from '../../flows/caps.js';
import type { Protocol } from '../../model/address.js';
import type { PlaneEvent } from '../../model/events.js';
import type { ForwardingState } from '../../model/forwarding.js';
import { portSetSize } from '../../model/ports.js';
import type { Clock } from '../../runtime/clock.js';
import type { Channel } from '../../runtime/peer.js';
import type {
  ApplyReport,
  FlowPage,
  FlowQuery,
  ListeningSocket,
  PlaneCounters,
  PortGate,
  StopReport,
  UdpFlowState,
  UdpStop,
  WorkerOptions,
  WorkerPlane,
} from '../contract.js';
import { expose, remote, type Deadlines } from './rpc.js';

/** An address and TCP port that several workers listen on. */
export interface TcpEnd {
  readonly address: string;
  readonly port: number;
}

/** What the control process calls in a data worker. */
export interface WorkerApi {
  /** Before `start`, or just before the answer to a claim: a listening socket of another process. */
  inherit(socket: ListeningSocket): void;
  /** How many sockets have arrived. */
  inherited(): Promise<number>;
  start(
    state: ForwardingState,
    options: WorkerOptions,
    udpFlows: readonly UdpFlowState[],
  ): Promise<ApplyReport>;
  /** See WorkerPlane.prepare. */
  prepare(state: ForwardingState): Promise<void>;
  /** Another configuration is prepared first. */
  apply(state: ForwardingState): Promise<ApplyReport>;
  flows(query: FlowQuery): Promise<FlowPage>;
  counters(): Promise<PlaneCounters>;
  /** What the worker may use of the caps named; `sequence` grows by one with each, and the next pulse confirms it. */
  allow(sequence: number, shares: CapShares): void;
  /** Each socket arrives by `ControlApi.lent` before the answer. `only`: of this protocol. */
  lend(only?: Protocol): Promise<void>;
  freezeUdp(): Promise<readonly UdpFlowState[]>;
  thawUdp(): Promise<void>;
  stop(deadlineMs: number, udp?: UdpStop): Promise<StopReport>;
}

/** Sent several times a second. */
export interface Pulse {
  /** How many flows would be lost if the worker died now. */
  readonly flows: number;
  /** Only where several workers share caps. */
  readonly uses?: CapUses;
  /** Sequence of the last shares that had arrived when `uses` was read; 0: none. */
  readonly sharesSeen: number;
}

/** What a data worker calls in the control process. */
export interface ControlApi {
  events(events: readonly PlaneEvent[]): void;
  pulse(pulse: Pulse): void;
  /** The worker wants to listen there too: for each an error code, or undefined where it may. */
  claim(ends: readonly TcpEnd[]): Promise<readonly (string | undefined)[]>;
  /** The worker has stopped listening there. */
  release(end: TcpEnd): void;
  lent(socket: ListeningSocket): void;
}

/** A worker whose event loop does not turn for this long is stuck: heavy load delays it by a second at most. */
const ANSWER_MS = 10_000;

/** A worker that has not started by then is stuck. */
const START_MS = 60_000;

/** More for each socket that it has to open; a shared one takes some 0.3 ms on an idle machine. */
const SOCKET_MS = 2;

/** A worker that has not stopped this long after its deadline is stuck. */
export const EXIT_GRACE_MS = 2000;

export const WORKER_DEADLINES: Deadlines<WorkerApi> = {
  inherit: 'one-way',
  inherited: START_MS,
  start: (state) => START_MS + openingMs(state),
  prepare: (state) => ANSWER_MS + openingMs(state),
  apply: ANSWER_MS,
  flows: ANSWER_MS,
  counters: ANSWER_MS,
  allow: 'one-way',
  lend: START_MS,
  freezeUdp: ANSWER_MS,
  thawUdp: ANSWER_MS,
  stop: (deadlineMs) => deadlineMs + EXIT_GRACE_MS,
};

const CONTROL_DEADLINES: Deadlines<ControlApi> = {
  events: 'one-way',
  pulse: 'one-way',
  claim: START_MS,
  release: 'one-way',
  lent: 'one-way',
};

function openingMs({ configuration: { rules } }: ForwardingState): number {
  const sockets = rules.reduce((sum, { ports, protocols }) => sum + portSetSize(ports) * protocols.length, 0);
  return sockets * SOCKET_MS;
}

/** Also how often workers get new shares of caps. */
const PULSE_MS = 250;

export interface PlaneHostDeps {
  readonly channel: Channel;
  readonly clock: Clock;
  /** `tcpGate`: asked before listening on a TCP port that other workers share; absent: none is shared. */
  readonly createPlane: (options: WorkerOptions, tcpGate: PortGate | undefined) => WorkerPlane;
  /** Called once when the plane has stopped and the process has nothing left to do. */
  readonly onStopped: () => void;
}

/**
 * The data worker's end: serves the control process's calls with a plane in this process. If the control process dies,
 * the worker lets its TCP flows finish, up to the configured shutdown deadline, and ends; UDP flows end at once, so
 * that a new process can bind their ports.
 */
export class PlaneHost {
  readonly #deps: PlaneHostDeps;
  readonly #control: ControlApi;
  #plane: WorkerPlane | undefined;
  /** They arrived before the plane was created, and are for it. */
  #inherited: ListeningSocket[] = [];
  /** The last ones; they may arrive before the plane is created. */
  #shares: CapShares | undefined;
  #sharesSeen = 0;
  #orphanDeadlineMs = 0;
  #finished = false;
  #cancelPulse: () => void = () => undefined;

  constructor(deps: PlaneHostDeps) {
    const { channel, clock } = deps;
    this.#deps = deps;
    this.#control = remote<ControlApi>(channel, CONTROL_DEADLINES, { clock });
    expose<WorkerApi>(channel, {
      inherit: (socket) => this.#inherit(socket),
      inherited: () => Promise.resolve(this.#inherited.length),
      start: (state, options, udpFlows) => this.#start(state, options, udpFlows),
      prepare: (state) => this.#started('prepare').prepare(state),
      apply: (state) => this.#apply(state),
      flows: (query) => this.#started('flows').flows(query),
      counters: () => this.#started('counters').counters(),
      allow: (sequence, shares) => this.#allow(sequence, shares),
      lend: (only) =>
        this.#started('lend').lend((socket) => {
          if (only === undefined || socket.protocol === only) this.#control.lent(socket);
        }),
      freezeUdp: () => this.#started('freezeUdp').freezeUdp(),
      thawUdp: () => this.#started('thawUdp').thawUdp(),
      stop: (deadlineMs, udp) => this.#stop(deadlineMs, udp),
    });
    channel.onClose(() => void this.#orphaned());
  }

  #started(method: string): WorkerPlane {
    if (this.#plane === undefined) throw new TypeError(`Call "${method}" came before "start"`);
    return this.#plane;
  }

  #inherit(socket: ListeningSocket): void {
    this.#inherited.push(socket);
    // Later ones arrive just before the answer to a claim, which has them taken.
    if (this.#plane !== undefined) void this.#plane.inherit(this.#inherited.splice(0));
  }

  #allow(sequence: number, shares: CapShares): void {
    this.#sharesSeen = sequence;
    this.#shares = shares;
    this.#plane?.allow(shares);
  }

  #start(
    state: ForwardingState,
    options: WorkerOptions,
    udpFlows: readonly UdpFlowState[],
  ): Promise<ApplyReport> {
    const isShared = options.workers > 1;
    const tcpGate = isShared && options.tcpPorts !== 'owned' ? new ControlPortGate(this.#control) : undefined;
    const plane = this.#deps.createPlane(options, tcpGate);
    this.#plane = plane;
    void plane.inherit(this.#inherited.splice(0));
    plane.inheritFlows(udpFlows);
    this.#orphanDeadlineMs = state.configuration.shutdownDeadlineMs;
    plane.subscribe((events) => this.#control.events(events));
    this.#pulse(plane, isShared);
    const starting = plane.start(state);
    if (this.#shares !== undefined) plane.allow(this.#shares);
    return starting;
  }

  async #apply(state: ForwardingState): Promise<ApplyReport> {
    const report = await this.#started('apply').apply(state);
    this.#orphanDeadlineMs = state.configuration.shutdownDeadlineMs;
    return report;
  }

  async #stop(deadlineMs: number, udp?: UdpStop): Promise<StopReport> {
    try {
      return await this.#started('stop').stop(deadlineMs, udp);
    } finally {
      // The answer is sent before the process ends.
      setImmediate(() => this.#finish());
    }
  }

  #pulse(plane: WorkerPlane, isShared: boolean): void {
    this.#cancelPulse = this.#deps.clock.setTimer(PULSE_MS, () => {
      const pulse = { flows: plane.flowCount(), sharesSeen: this.#sharesSeen };
      this.#control.pulse(isShared ? { ...pulse, uses: plane.capUses() } : pulse);
      this.#pulse(plane, isShared);
    });
  }

  async #orphaned(): Promise<void> {
    // A stop that fails ends the process all the same: there is no process left to report to.
    await this.#plane?.stop(this.#orphanDeadlineMs, 'at-once').catch(() => undefined);
    this.#finish();
  }

  #finish(): void {
    // A second stop, or the loss of the channel after a stop, ends nothing more.
    if (this.#finished) return;
    this.#finished = true;
    this.#cancelPulse();
    this.#deps.onStopped();
  }
}

interface Waiting {
  readonly end: TcpEnd;
  readonly resolve: (errorCode: string | undefined) => void;
}

/** Asks the control process's SharedPortArbiter; puts the claims of one turn together in one call. */
export class ControlPortGate implements PortGate {
  readonly #control: Pick<ControlApi, 'claim' | 'release'>;
  #collected: Waiting[] = [];

  constructor(control: Pick<ControlApi, 'claim' | 'release'>) {
    this.#control = control;
  }

  claim(address: string, port: number): Promise<string | undefined> {
    return new Promise((resolve) => {
      if (this.#collected.length === 0) queueMicrotask(() => void this.#ask());
      this.#collected.push({ end: { address, port }, resolve });
    });
  }

  release(address: string, port: number): void {
    this.#control.release({ address, port });
  }

  async #ask(): Promise<void> {
    const waiting = this.#collected;
    this.#collected = [];
    // A worker that cannot ask any more must not listen: an orphan takes no new flows.
    const refused = waiting.map(() => 'EPIPE');
    const errorCodes = await this.#control.claim(waiting.map(({ end }) => end)).catch(() => refused);
    for (const [index, { resolve }] of waiting.entries()) resolve(errorCodes[index]);
  }
}
