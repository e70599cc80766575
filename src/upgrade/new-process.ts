import { BalancerError, errorMessage } from '../model/errors.js';
import { VERSION } from '../model/version.js';
import { receivedSocket, type ListeningSocket, type UdpFlowState } from '../planes/contract.js';
import type { Clock } from '../runtime/clock.js';
import type { PeerChannel } from '../runtime/peer.js';
import {
  PeerMessages,
  UPGRADE_PROTOCOL,
  type ControlState,
  type PredecessorMessage,
  type SuccessorMessage,
} from './messages.js';

/** The old process limits the whole upgrade and closes the channel; this only keeps the wait from being endless. */
const MESSAGE_LIMIT_MS = 600_000;

/** For the old process's admin and metrics ports: after that, binding them shows whether they are free. */
const RELEASE_MS = 5000;

/** The process whose place this one takes, as this one sees it. Its methods are called in their order, once each. */
export class Predecessor {
  readonly #channel: PeerChannel;
  readonly #messages: PeerMessages<PredecessorMessage>;
  readonly #sockets: ListeningSocket[] = [];

  constructor(clock: Clock, channel: PeerChannel) {
    this.#channel = channel;
    this.#messages = new PeerMessages(clock, channel, (message, handle) => {
      if (message.kind === 'socket') this.#sockets.push(receivedSocket(message, handle));
    });
    channel.onClose(() => this.#messages.end('The old process has closed the channel'));
  }

  /** Asks for the sockets and the state of the old process. The caller owns the sockets. */
  async meet(): Promise<{ readonly state: ControlState; readonly sockets: readonly ListeningSocket[] }> {
    this.#send({ kind: 'hello', protocol: UPGRADE_PROTOCOL, version: VERSION });
    const { state } = await this.#messages.next('state', MESSAGE_LIMIT_MS);
    const { count } = await this.#messages.next('sockets-sent', MESSAGE_LIMIT_MS);
    if (this.#sockets.length !== count) throw incomplete(this.#sockets.length, count);
    return { state, sockets: this.#sockets.splice(0) };
  }

  /** Says that all is ready. Once it resolves, the old process no longer reads UDP, so be quick. */
  async takeOver(): Promise<readonly UdpFlowState[]> {
    this.#send({ kind: 'ready' });
    return (await this.#messages.next('take-over', MESSAGE_LIMIT_MS)).udpFlows;
  }

  /** Says that this process serves. When it resolves, the old one takes nothing new and has freed its ports. */
  async serving(): Promise<void> {
    this.#send({ kind: 'serving' });
    // Without an answer the old process has died, and its ports are free.
    await this.#messages.next('released', RELEASE_MS).catch(() => undefined);
  }

  /** The old process may end now. */
  leave(): void {
    this.#channel.close();
  }

  /** The old process serves as before. */
  failed(error: unknown): void {
    for (const socket of this.#sockets.splice(0)) socket.release();
    this.#send({ kind: 'failed', message: errorMessage(error) });
    this.#channel.close();
  }

  #send(message: SuccessorMessage): void {
    this.#channel.send(message);
  }
}

function incomplete(found: number, sent: number): BalancerError {
  const message = `${found} listening sockets have come, must be ${sent}`;
  return new BalancerError(message, { code: 'LB_UPGRADE_FAILED', source: 'system' });
}
