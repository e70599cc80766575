import type { RemoteInfo, Socket } from 'node:dgram';
import { SendQueueGuard } from './send-queue-guard.js';
import type {
  ConnectedSocket,
  DialRefusal,
  LocalEnd,
  UpstreamDialer,
  UpstreamTarget,
} from './upstream-dialer.js';
import { WaitingDatagrams } from './waiting-datagrams.js';

/** Where an upstream gets its socket from. */
export type UpstreamSource = Pick<UpstreamDialer, 'ready' | 'dial' | 'dialFrom' | 'release'>;

/** Who uses an upstream. It is not called once it has closed it. */
export interface UpstreamOwner {
  onConnected(to: Upstream): void;
  /** It could not be opened, and is closed. */
  onRefused(refusal: DialRefusal, by: Upstream): void;
  onReply(datagram: Buffer, from: Upstream): void;
  /** The network says that nobody listens there, or that the way is barred. */
  onUnreachable(evidence: string, by: Upstream): void;
  /** A datagram was thrown away on this machine. */
  onSendFailed(by: Upstream): void;
}

/**
 * What a connected UDP socket makes of ICMP: port (ECONNREFUSED) and protocol (ENOPROTOOPT) unreachable, prohibited
 * (EHOSTUNREACH), or its route has gone (the last two). See icmp_err_convert in Linux' net/ipv4/icmp.c.
 */
const UNREACHABLE: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'ICMP unreachable',
  ENOPROTOOPT: 'ICMP unreachable',
  EHOSTUNREACH: 'EHOSTUNREACH',
  ENETUNREACH: 'ENETUNREACH',
};

/** Where a socket finds its upstream: listeners are shared functions, not closures for each flow. */
const UPSTREAM = Symbol('upstream');

type UpstreamSocket = Socket & { [UPSTREAM]?: Upstream };

/**
 * The way to one backend: a connected socket of its own. Until the local address is known, what is to be sent waits,
 * within bounds. Start it once; its owner closes it.
 */
export class Upstream {
  readonly target: UpstreamTarget;
  readonly #dialer: UpstreamSource;
  readonly #owner: UpstreamOwner;
  /** Whose place it takes; undefined: a local end is chosen. */
  readonly #localEnd: LocalEnd | undefined;
  readonly #onSent = (error: Error | null): void => {
    this.#queue?.finished();
    if (error !== null) this.failed(error);
  };
  #connected: ConnectedSocket | undefined;
  #queue: SendQueueGuard | undefined;
  #waiting: WaitingDatagrams | undefined;
  #heardFrom = false;
  #closed = false;

  constructor(target: UpstreamTarget, dialer: UpstreamSource, owner: UpstreamOwner, localEnd?: LocalEnd) {
    this.target = target;
    this.#localEnd = localEnd;
    this.#dialer = dialer;
    this.#owner = owner;
  }

  /** Undefined until it is connected, and once it is closed. */
  get localEnd(): LocalEnd | undefined {
    return this.#closed ? undefined : this.#connected;
  }

  /** Tells the owner that it is connected or refused: before it returns, if the local address is known already. */
  start(): void {
    const ready = this.#localEnd === undefined ? this.#dialer.ready(this.target) : undefined;
    if (ready === undefined) {
      this.#connect();
      return;
    }
    this.#waiting = new WaitingDatagrams();
    void ready.then(() => this.#connect());
  }

  send(datagram: Buffer): void {
    if (this.#closed) return;
    if (this.#connected === undefined) {
      if (this.#waiting?.add(datagram) !== true) this.#owner.onSendFailed(this);
    } else if (this.#queue?.isFull() === true) {
      this.#owner.onSendFailed(this);
    } else {
      this.#queue?.started();
      this.#connected.socket.send(datagram, this.#onSent);
    }
  }

  /** Idempotent. The owner hears nothing after it. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#waiting = undefined;
    const connected = this.#connected;
    if (connected === undefined) return;
    connected.socket.close();
    this.#dialer.release(connected, this.target);
  }

  #connect(): void {
    if (this.#closed) return;
    const outcome =
      this.#localEnd === undefined
        ? this.#dialer.dial(this.target)
        : this.#dialer.dialFrom(this.#localEnd, this.target);
    if (typeof outcome === 'string') {
      this.close();
      this.#owner.onRefused(outcome, this);
      return;
    }
    this.#connected = outcome;
    this.#queue = new SendQueueGuard(outcome.socket);
    const socket: UpstreamSocket = outcome.socket;
    socket[UPSTREAM] = this;
    socket.on('message', onMessage);
    socket.on('error', onError);
    const waiting = this.#waiting?.takeAll() ?? [];
    this.#waiting = undefined;
    this.#owner.onConnected(this);
    for (const datagram of waiting) this.send(datagram);
  }

  /** Its socket's listeners call these two. */
  received(datagram: Buffer, from: RemoteInfo): void {
    if (this.#closed) return;
    // Between bind and connect anybody could have sent here; all of that lies before the first true reply.
    if (!this.#heardFrom) {
      if (from.port !== this.target.endpoint.port || from.address !== this.#connected?.peer) return;
      this.#heardFrom = true;
    }
    this.#owner.onReply(datagram, this);
  }

  failed(error: NodeJS.ErrnoException): void {
    if (this.#closed) return;
    const evidence = UNREACHABLE[error.code ?? ''];
    if (evidence === undefined) this.#owner.onSendFailed(this);
    else this.#owner.onUnreachable(evidence, this);
  }
}

function onMessage(this: UpstreamSocket, datagram: Buffer, from: RemoteInfo): void {
  this[UPSTREAM]?.received(datagram, from);
}

function onError(this: UpstreamSocket, error: Error): void {
  this[UPSTREAM]?.failed(error);
}
