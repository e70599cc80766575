import { BalancerError, errorMessage } from '../../model/errors.js';
import type { ForwardingState } from '../../model/forwarding-state.js';
import type { Clock } from '../../runtime/clock.js';
import type { ApplyReport } from '../data-plane.js';
import { receivedSocket, type ListeningSocket } from '../hand-over.js';
import type { WorkerPlane } from '../worker-plane.js';
import type { Channel } from './channel.js';
import type {
  Call,
  ControlMessage,
  Request,
  SharesMessage,
  WireError,
  WorkerMessage,
  WorkerOptions,
} from './worker-protocol.js';

/** Also how often workers get new shares of caps. */
const PULSE_MS = 250;

export interface PlaneHostDeps {
  readonly channel: Channel;
  readonly clock: Clock;
  readonly createPlane: (options: WorkerOptions) => WorkerPlane;
  /** Called once when the plane has stopped and the process has nothing left to do. */
  readonly onStopped: () => void;
}

/**
 * The data worker's end: answers a RemotePlane's calls with a plane in this process. If the control process dies, the
 * worker lets its TCP flows finish, up to the configured shutdown deadline, and ends; UDP flows end at once, so that
 * a new process can bind their ports.
 */
export class PlaneHost {
  readonly #deps: PlaneHostDeps;
  #plane: WorkerPlane | undefined;
  #isShared = false;
  /** Came before the plane, which takes them over. */
  #inherited: ListeningSocket[] = [];
  /** The last ones; they may come before the plane is there. */
  #shares: SharesMessage | undefined;
  #orphanDeadlineMs = 0;
  #finished = false;
  #cancelPulse: () => void = () => undefined;

  constructor(deps: PlaneHostDeps) {
    this.#deps = deps;
    deps.channel.onMessage((message, handle) => this.#receive(message as ControlMessage, handle));
    deps.channel.onClose(() => void this.#orphaned());
  }

  #receive(message: ControlMessage, handle: unknown): void {
    switch (message.kind) {
      case 'request':
        void this.#serve(message);
        return;
      case 'shares':
        this.#shares = message;
        this.#plane?.allow(message.shares);
        return;
      case 'socket':
        this.#inherited.push(receivedSocket(message, handle));
        // Later ones come just before the verdict on a claim, which has them taken.
        if (this.#plane !== undefined) void this.#plane.inherit(this.#inherited.splice(0));
        return;
      case 'verdicts':
        // For remote-port-gate.ts on the same channel.
        return;
    }
  }

  async #serve({ id, call }: Request): Promise<void> {
    try {
      this.#send({ kind: 'reply', id, value: await this.#perform(call) });
    } catch (error) {
      this.#send({ kind: 'failure', id, error: wireError(error) });
    }
    if (call.method === 'stop') this.#finish();
  }

  #perform(call: Call): Promise<unknown> {
    if (call.method === 'inherited') return Promise.resolve(this.#inherited.length);
    if (call.method === 'start') {
      const plane = this.#deps.createPlane(call.options);
      this.#plane = plane;
      void plane.inherit(this.#inherited);
      this.#inherited = [];
      plane.inheritFlows(call.udpFlows ?? []);
      this.#orphanDeadlineMs = call.state.configuration.shutdownDeadlineMs;
      plane.subscribe((events) => this.#send({ kind: 'events', events }));
      this.#isShared = call.options.workers > 1;
      this.#pulse(plane);
      const starting = plane.start(call.state);
      if (this.#shares !== undefined) plane.allow(this.#shares.shares);
      return starting;
    }
    const plane = this.#plane;
    if (plane === undefined) throw new TypeError(`Call "${call.method}" came before "start"`);
    switch (call.method) {
      case 'prepare':
        return plane.prepare(call.state);
      case 'apply':
        return this.#apply(plane, call.state);
      case 'lend':
        return plane.lend((socket) => {
          if (call.only !== undefined && socket.protocol !== call.only) return;
          const { protocol, address, port } = socket;
          this.#deps.channel.send({ kind: 'socket', protocol, address, port }, socket);
        });
      case 'freezeUdp':
        return plane.freezeUdp();
      case 'thawUdp':
        return plane.thawUdp();
      case 'flows':
        return plane.flows(call.query);
      case 'counters':
        return plane.counters();
      case 'stop':
        return plane.stop(call.deadlineMs, call.udp);
    }
  }

  async #apply(plane: WorkerPlane, state: ForwardingState): Promise<ApplyReport> {
    const report = await plane.apply(state);
    this.#orphanDeadlineMs = state.configuration.shutdownDeadlineMs;
    return report;
  }

  #pulse(plane: WorkerPlane): void {
    this.#cancelPulse = this.#deps.clock.setTimer(PULSE_MS, () => {
      const pulse = {
        kind: 'pulse',
        flows: plane.flowCount(),
        sharesSeen: this.#shares?.sequence ?? 0,
      } as const;
      this.#send(this.#isShared ? { ...pulse, uses: plane.capUses() } : pulse);
      this.#pulse(plane);
    });
  }

  async #orphaned(): Promise<void> {
    // A failed stop must still end the process: nobody is left to tell.
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

  #send(message: WorkerMessage): void {
    this.#deps.channel.send(message);
  }
}

function wireError(error: unknown): WireError {
  if (error instanceof BalancerError) {
    return { message: error.message, code: error.code, source: error.source };
  }
  return { message: errorMessage(error), code: 'LB_INTERNAL', source: 'internal' };
}
