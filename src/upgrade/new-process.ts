import { BalancerError } from '../model/errors.js';
import { VERSION } from '../model/version.js';
import { receivedSocket, type ListeningSocket, type UdpFlowState } from '../planes/contract.js';
import type { Clock } from '../runtime/clock.js';
import type { PeerChannel } from '../runtime/peer.js';
import {
  PeerMessages,
  UPGRADE_PROTOCOL,
  type Legacy,
  type PredecessorMessage,
  type SuccessorMessage,
} from './messages.js';

/** The old process keeps the time of the whole upgrade, and closes the channel; this is only so as not to wait for ever. */
const PATIENCE_MS = 600_000;

/** The old process's admin and metrics ports: after that, binding them shows whether they are free. */
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

  /** Asks for what the old process has and knows. The sockets are the caller's. */
  async meet(): Promise<{ readonly legacy: Legacy; readonly sockets: readonly ListeningSocket[] }> {
    this.#send({ kind: 'hello', protocol: UPGRADE_PROTOCOL, version: VERSION });
    const { legacy } = await this.#messages.next('legacy', PATIENCE_MS);
    const { count } = await this.#messages.next('sockets-sent', PATIENCE_MS);
    if (this.#sockets.length !== count) throw incomplete(this.#sockets.length, count);
    return { legacy, sockets: this.#sockets.splice(0) };
  }

  /** Says that all is ready. When it resolves, the old process reads no UDP any more: be quick. */
  async takeOver(): Promise<readonly UdpFlowState[]> {
    this.#send({ kind: 'ready' });
    return (await this.#messages.next('take-over', PATIENCE_MS)).udpFlows;
  }

  /** Says that this process serves. When it resolves, the old one takes nothing any more and has freed its ports. */
  async serving(): Promise<void> {
    this.#send({ kind: 'serving' });
    // What it does not say, it has not survived.
    await this.#messages.next('released', RELEASE_MS).catch(() => undefined);
  }

  /** The old process may end now. */
  leave(): void {
    this.#channel.close();
  }

  /** The old process goes on as if nothing had been. */
  failed(message: string): void {
    for (const socket of this.#sockets.splice(0)) socket.release();
    this.#send({ kind: 'failed', message });
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
