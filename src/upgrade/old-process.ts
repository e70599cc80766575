import type { Balancer } from '../control/balancer.js';
import type { Drains } from '../control/drains.js';
import type { ProbeHealth } from '../health/tracker.js';
import { BalancerError } from '../model/errors.js';
import type { ControlEvent, UpgradeOutcome } from '../model/events.js';
import { canHandOver, type DataPlane, type HandOverPlane } from '../planes/contract.js';
import type { Clock } from '../runtime/clock.js';
import type { SuccessorProcess } from '../runtime/peer.js';
import {
  PeerMessages,
  UPGRADE_PROTOCOL,
  handoverStateOf,
  type HandoverParts,
  type HandoverState,
  type PredecessorMessage,
  type SuccessorMessage,
} from './messages.js';

/** From its start until it is ready, the new process may take so long. */
const READY_MS = 30_000;

/** More for each socket: three processes pass it on, which takes some 0.6 ms on an idle machine. */
const SOCKET_MS = 4;

/** From the hand-over until it serves: its UDP clients wait meanwhile. */
const SERVING_MS = 20_000;

/** The kernel plane's: all others have sockets. */
const NOTHING_TO_HAND_OVER =
  'The kernel data plane has no sockets to hand over: restart this process instead, and with ' +
  'dataPlane.kernel.onStop "keep" forwarding continues meanwhile';

export interface UpgraderDeps {
  readonly clock: Clock;
  /** Undefined: this plane cannot hand over. */
  readonly plane: HandOverPlane | undefined;
  readonly launch: () => SuccessorProcess;
  readonly state: () => HandoverState;
  /** Whether a stop has begun. */
  readonly isStopping: () => boolean;
  readonly onEvent: (event: ControlEvent) => void;
}

export interface UpgradeRequest {
  /** How long TCP flows of this process may take to finish; absent: the configured shutdown deadline. */
  readonly deadlineMs?: number;
}

/** A new process that serves, and waits for the ports that are left. */
export interface ServingSuccessor {
  readonly outcome: UpgradeOutcome;
  /** Tells it that the admin and metrics ports are free; this process no longer waits for its end. */
  release(): void;
}

/**
 * Has another process take over from this one. Until that one serves, this one serves as before: TCP is accepted
 * by both for a moment, UDP waits in the sockets while flows change over.
 */
export class Upgrader {
  readonly #deps: UpgraderDeps;
  #isUnderWay = false;

  constructor(deps: UpgraderDeps) {
    this.#deps = deps;
  }

  /**
   * Resolves when the new process serves. Rejects, and this process keeps serving, with `LB_RESTART_NEEDED` where the plane
   * cannot hand over, `LB_CONFLICT` where an upgrade or a stop is under way, and `LB_UPGRADE_FAILED`.
   */
  async upgrade(): Promise<ServingSuccessor> {
    const { plane, isStopping, onEvent, launch } = this.#deps;
    const whyNot = plane === undefined ? NOTHING_TO_HAND_OVER : plane.whyNoHandOver?.();
    if (plane === undefined || whyNot !== undefined) {
      throw new BalancerError(whyNot ?? '', { code: 'LB_RESTART_NEEDED', source: 'usage' });
    }
    if (this.#isUnderWay || isStopping()) {
      throw isStopping() ? stopUnderWay() : conflict('An upgrade is under way');
    }
    this.#isUnderWay = true;
    const successor = launch();
    onEvent({ type: 'upgrade-started', pid: successor.pid ?? 0 });
    try {
      const outcome = await this.#handOver(plane, successor);
      onEvent({ type: 'upgrade-ready', outcome });
      return {
        outcome,
        release() {
          successor.channel.send({ kind: 'released' } satisfies PredecessorMessage);
          successor.letGo();
        },
      };
    } catch (error) {
      this.#isUnderWay = false;
      successor.kill();
      successor.channel.close();
      await plane.thawUdp().catch(() => undefined);
      onEvent({ type: 'upgrade-failed', error });
      throw error;
    }
  }

  async #handOver(plane: HandOverPlane, { pid, channel, exited }: SuccessorProcess): Promise<UpgradeOutcome> {
    const { clock, state } = this.#deps;
    const startedMs = clock.monotonicMs();
    const left = (limitMs: number): number => Math.max(0, startedMs + limitMs - clock.monotonicMs());
    const messages = new PeerMessages<SuccessorMessage>(clock, channel, () => undefined);
    const send = (message: PredecessorMessage): void => channel.send(message);
    void exited.then((how) =>
      messages.end(`The new process ended before it served (${how}): its output says why`),
    );

    const { protocol, version } = await messages.next('hello', left(READY_MS));
    if (protocol !== UPGRADE_PROTOCOL) throw otherProtocol(protocol);
    send({ kind: 'state', state: state() });
    let sockets = 0;
    await plane.lend((socket) => {
      sockets++;
      channel.send(
        { kind: 'socket', protocol: socket.protocol, address: socket.address, port: socket.port },
        socket,
      );
    });
    send({ kind: 'sockets-sent', count: sockets });
    await messages.next('ready', left(READY_MS + sockets * SOCKET_MS));
    if (this.#deps.isStopping()) throw stopUnderWay();
    const readyMs = clock.monotonicMs();
    const udpFlows = await plane.freezeUdp();
    send({ kind: 'take-over', udpFlows });
    await messages.next('serving', SERVING_MS);
    const servingMs = clock.monotonicMs();
    return {
      pid: pid ?? 0,
      version,
      sockets,
      udpFlows: udpFlows.length,
      durationMs: servingMs - startedMs,
      udpPauseMs: servingMs - readyMs,
    };
  }
}

function stopUnderWay(): BalancerError {
  return conflict('A stop is under way');
}

function conflict(message: string): BalancerError {
  return new BalancerError(message, { code: 'LB_CONFLICT', source: 'usage' });
}

function otherProtocol(found: number): BalancerError {
  const message = `The new version speaks upgrade protocol ${found}, must be ${UPGRADE_PROTOCOL}: only a restart brings it`;
  return new BalancerError(message, { code: 'LB_RESTART_NEEDED', source: 'system' });
}

export interface SuccessionDeps extends Pick<UpgraderDeps, 'clock' | 'launch' | 'onEvent'> {
  readonly plane: DataPlane;
  readonly balancer: Balancer;
  readonly health: ProbeHealth;
  readonly drains: () => Drains;
  /** Frees what only one process can have: resolves when all of it is free. */
  readonly release: () => Promise<void>;
}

/** The old process's side: has a new process launched, and is superseded by it. */
export class Succession {
  /** Resolves with the request once a new process serves. */
  readonly superseded: Promise<UpgradeRequest>;
  readonly #deps: SuccessionDeps;
  readonly #upgrader: Upgrader;
  #resolve: (request: UpgradeRequest) => void = () => undefined;
  #isOver = false;

  constructor(deps: SuccessionDeps) {
    const { clock, plane, balancer, health, launch, onEvent } = deps;
    this.superseded = new Promise((resolve) => (this.#resolve = resolve));
    this.#deps = deps;
    const parts = (): HandoverParts => ({
      clock,
      overrides: balancer.overrides,
      health,
      drains: deps.drains(),
    });
    this.#upgrader = new Upgrader({
      ...{ clock, launch, onEvent },
      plane: canHandOver(plane) ? plane : undefined,
      state: () => handoverStateOf(parts()),
      isStopping: () => balancer.stopping,
    });
  }

  /** Whether another process has taken this one's place. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** See Upgrader.upgrade. */
  async upgrade(request: UpgradeRequest): Promise<UpgradeOutcome> {
    const { clock, release } = this.#deps;
    const successor = await this.#upgrader.upgrade();
    this.#isOver = true;
    this.#resolve(request);
    // The admin API answers the request before it closes.
    clock.setTimer(0, () => void release().finally(() => successor.release()));
    return successor.outcome;
  }
}
