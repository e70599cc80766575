import { BalancerError } from '../model/errors.js';
import type { ControlEvent, UpgradeOutcome } from '../model/events.js';
import { canHandOver, type DataPlane, type HandOverPlane } from '../planes/contract.js';
import type { Clock } from '../runtime/clock.js';
import type { SuccessorProcess } from '../runtime/peer.js';
import {
  PeerMessages,
  UPGRADE_PROTOCOL,
  type ControlState,
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

export interface SuccessionDeps {
  readonly clock: Clock;
  readonly plane: DataPlane;
  readonly launch: () => SuccessorProcess;
  readonly state: () => ControlState;
  /** Whether a stop has begun. */
  readonly isStopping: () => boolean;
  /** Frees the admin and metrics ports: resolves when they are free. */
  readonly release: () => Promise<void>;
  readonly onEvent: (event: ControlEvent) => void;
}

export interface UpgradeRequest {
  /** How long TCP flows of this process may take to finish; absent: the configured shutdown deadline. */
  readonly deadlineMs?: number;
}

/**
 * Has a new process take this one's place. Until that one serves, this one serves as before: TCP is accepted by both for
 * a moment, UDP waits in the sockets while flows change over.
 */
export class Succession {
  /** Resolves with the request once a new process serves. */
  readonly superseded: Promise<UpgradeRequest>;
  readonly #deps: SuccessionDeps;
  #supersede: (request: UpgradeRequest) => void = () => undefined;
  #isUnderWay = false;
  #isOver = false;

  constructor(deps: SuccessionDeps) {
    this.superseded = new Promise((resolve) => (this.#supersede = resolve));
    this.#deps = deps;
  }

  /** Whether another process has taken this one's place. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /**
   * Resolves when the new process serves; it then waits for the ports that are left. Rejects, and this process keeps
   * serving, with `LB_RESTART_NEEDED` where the plane cannot hand over, `LB_CONFLICT` where an upgrade or a stop is under
   * way, and `LB_UPGRADE_FAILED`.
   */
  async upgrade(request: UpgradeRequest): Promise<UpgradeOutcome> {
    const { clock, isStopping, onEvent, launch, release } = this.#deps;
    const plane = handOverPlane(this.#deps.plane);
    if (isStopping()) throw conflict('A stop is under way');
    if (this.#isUnderWay) throw conflict('An upgrade is under way');
    this.#isUnderWay = true;
    const successor = launch();
    onEvent({ type: 'upgrade-started', pid: successor.pid ?? 0 });
    let outcome: UpgradeOutcome;
    try {
      outcome = await this.#handOver(plane, successor);
      onEvent({ type: 'upgrade-ready', outcome });
    } catch (error) {
      this.#isUnderWay = false;
      successor.kill();
      successor.channel.close();
      await plane.thawUdp().catch(() => undefined);
      onEvent({ type: 'upgrade-failed', error });
      throw error;
    }
    this.#isOver = true;
    this.#supersede(request);
    const released = (): void => {
      successor.channel.send({ kind: 'released' } satisfies PredecessorMessage);
      successor.letGo();
    };
    // The admin API answers the request before it closes.
    clock.setTimer(0, () => void release().finally(released));
    return outcome;
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
    if (this.#deps.isStopping()) throw conflict('A stop is under way');
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

/** The plane, if it can hand over now. */
function handOverPlane(plane: DataPlane): HandOverPlane {
  const whyNot = canHandOver(plane) ? plane.whyNoHandOver?.() : NOTHING_TO_HAND_OVER;
  if (canHandOver(plane) && whyNot === undefined) return plane;
  throw new BalancerError(whyNot ?? NOTHING_TO_HAND_OVER, { code: 'LB_RESTART_NEEDED', source: 'usage' });
}

function conflict(message: string): BalancerError {
  return new BalancerError(message, { code: 'LB_CONFLICT', source: 'usage' });
}

function otherProtocol(found: number): BalancerError {
  const message = `The new version speaks upgrade protocol ${found}, must be ${UPGRADE_PROTOCOL}: only a restart brings it`;
  return new BalancerError(message, { code: 'LB_RESTART_NEEDED', source: 'system' });
}
