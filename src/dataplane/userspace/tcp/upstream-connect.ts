import { connect, type Socket, type TcpNetConnectOpts } from 'node:net';
import type { IpAddress } from '../../../model/address.js';
import type { BackendPool } from '../../../model/configuration.js';
import { errorCode, errorMessage } from '../../../model/errors.js';
import type { DropReason } from '../../../model/events.js';
import type { TcpOptions } from '../../../model/rule.js';
import type { Clock } from '../../../runtime/clock.js';
import type { RouteSource } from '../route-source.js';
import type { SourcePortRequest, SourcePorts } from '../source-ports.js';
import { resetSocket } from './reset-socket.js';
import { SPLICE_HIGH_WATER_MARK } from './splice.js';

/** Another process may hold a port that haports thinks is free; after this many, they are taken to be all gone. */
const MAX_PORT_TRIES = 16;

export interface UpstreamRequest {
  readonly backendId: string;
  readonly endpoint: { readonly address: IpAddress; readonly port: number };
  readonly pool: BackendPool;
  readonly tcp: TcpOptions;
  /** Spreads flows over the pool's source addresses. */
  readonly hash: number;
}

export interface UpstreamDeps {
  readonly clock: Clock;
  readonly sourcePorts: SourcePorts;
  readonly routeSource: RouteSource;
}

export type UpstreamOutcome =
  /** The socket is the receiver's; it has no `error` listener any more. */
  | { readonly kind: 'connected'; readonly socket: Socket }
  /** Another backend may do better. `evidence`: `ECONNREFUSED`, `connect timeout`, ... */
  | { readonly kind: 'backend-failed'; readonly evidence: string }
  /** Not the backend's fault, and another backend would meet the same. */
  | { readonly kind: 'local-fault'; readonly reason: DropReason };

export interface UpstreamOwner {
  attempted(outcome: UpstreamOutcome): void;
}

/** Where a socket finds its attempt: listeners are shared functions, not closures for each flow. */
const ATTEMPT = Symbol('attempt');

type AttemptSocket = Socket & { [ATTEMPT]?: UpstreamConnect };

const PORT_FAULTS: ReadonlySet<string> = new Set(['EADDRINUSE', 'EADDRNOTAVAIL']);
const SHORTAGES: ReadonlySet<string> = new Set(['EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM']);

/** One attempt to connect to one backend, whatever number of local ports it takes. */
export class UpstreamConnect {
  readonly #deps: UpstreamDeps;
  readonly #request: UpstreamRequest;
  readonly #owner: UpstreamOwner;
  /** Still to be tried; none where the kernel chooses. */
  #sources: readonly IpAddress[];
  #kernelChooses: boolean;
  #portTries = 0;
  #socket: Socket | undefined;
  #cancelTimer: () => void = ignore;
  #settled = false;

  /** Does nothing before `start`. */
  constructor(deps: UpstreamDeps, request: UpstreamRequest, owner: UpstreamOwner) {
    this.#deps = deps;
    this.#request = request;
    this.#owner = owner;
    this.#sources = sourcesFor(request);
    this.#kernelChooses = this.#sources.length === 0;
  }

  /** Answers once, never before this has returned, and never after `cancel`. */
  start(): void {
    const { clock } = this.#deps;
    this.#cancelTimer = clock.setTimer(this.#request.pool.connectTimeoutMs, () => {
      this.#settle({ kind: 'backend-failed', evidence: 'connect timeout' });
    });
    // Only what the kernel does is sure to be answered later.
    if (!this.#kernelChooses) process.nextTick(() => this.#dial());
    else if (this.#deps.routeSource.hasPorts(this.#request.endpoint.address)) this.#dial();
    else process.nextTick(() => this.#chooseOwnPort());
  }

  cancel(): void {
    this.#settled = true;
    this.#cancelTimer();
    this.#socket?.destroy();
  }

  #dial(): void {
    if (this.#settled) return;
    if (this.#kernelChooses) {
      this.#open({});
      return;
    }
    const [source] = this.#sources;
    if (source === undefined || this.#portTries >= MAX_PORT_TRIES) {
      this.#settle({ kind: 'local-fault', reason: 'ports-exhausted' });
      return;
    }
    const ports = this.#portRequest(source);
    const port = this.#deps.sourcePorts.take(ports);
    if (port === undefined) {
      this.#sources = this.#sources.slice(1);
      this.#dial();
      return;
    }
    this.#portTries++;
    const socket = this.#open({ localAddress: source.text, localPort: port });
    socket.once('close', () => this.#deps.sourcePorts.release(ports, port));
  }

  #portRequest(source: IpAddress): SourcePortRequest {
    const { backendId, endpoint, pool } = this.#request;
    return {
      protocol: 'tcp',
      backendId,
      source,
      destination: endpoint.address,
      destinationPort: endpoint.port,
      ports: pool.sourcePorts,
    };
  }

  #open(local: Pick<TcpNetConnectOpts, 'localAddress' | 'localPort'>): AttemptSocket {
    const { endpoint, tcp } = this.#request;
    // Node hands what it does not know itself to the stream; its types leave highWaterMark out.
    const options: TcpNetConnectOpts & { readonly highWaterMark: number } = {
      ...local,
      host: endpoint.address.text,
      port: endpoint.port,
      family: endpoint.address.family,
      autoSelectFamily: false,
      allowHalfOpen: true,
      highWaterMark: SPLICE_HIGH_WATER_MARK,
      noDelay: tcp.noDelay,
      ...(tcp.keepAliveMs === undefined ? {} : { keepAlive: true, keepAliveInitialDelay: tcp.keepAliveMs }),
    };
    const socket: AttemptSocket = connect(options);
    this.#socket = socket;
    socket[ATTEMPT] = this;
    socket.on('error', onError);
    socket.on('connect', onConnect);
    return socket;
  }

  connected(): void {
    const socket = this.#socket;
    if (socket === undefined || this.#settled) return;
    if (this.#isItself(socket)) {
      resetSocket(socket);
      this.#settle({ kind: 'backend-failed', evidence: 'ECONNREFUSED' });
      return;
    }
    socket.off('error', onError);
    socket.off('connect', onConnect);
    this.#socket = undefined;
    this.#settle({ kind: 'connected', socket });
  }

  /**
   * The kernel may choose the very port that nobody listens on, and TCP then connects a socket to itself. Only where it
   * leaves from the backend's own address; asking a socket for its port is a system call that other flows need not pay.
   */
  #isItself(socket: Socket): boolean {
    if (!this.#kernelChooses) return false;
    const { address, port } = this.#request.endpoint;
    const { routeSource } = this.#deps;
    const source = routeSource.known(address);
    if (source === undefined) routeSource.sourceFor(address).catch(ignore);
    else if (source.text !== address.text) return false;
    return socket.localPort === port && socket.localAddress === address.text;
  }

  failed(error: Error): void {
    if (this.#settled) return;
    const code = errorCode(error) ?? errorMessage(error);
    if (PORT_FAULTS.has(code)) {
      // Refused at bind for want of the address, rather than at connect for want of the port: not this machine's.
      if (code === 'EADDRNOTAVAIL' && 'syscall' in error && error.syscall === 'bind')
        this.#sources = this.#sources.slice(1);
      this.#nextPort();
    } else if (SHORTAGES.has(code)) this.#settle({ kind: 'local-fault', reason: 'descriptors-exhausted' });
    else this.#settle({ kind: 'backend-failed', evidence: code });
  }

  #nextPort(): void {
    if (!this.#kernelChooses) {
      // After the failed socket's `close`, which gives its port back.
      setImmediate(() => this.#dial());
      return;
    }
    this.#deps.routeSource.foundNoPort(this.#request.endpoint.address);
    this.#chooseOwnPort();
  }

  /** With listeners on every port the kernel finds none for a socket without an address of its own. */
  #chooseOwnPort(): void {
    this.#kernelChooses = false;
    this.#deps.routeSource.sourceFor(this.#request.endpoint.address).then(
      (source) => {
        this.#sources = [source];
        this.#dial();
      },
      () => this.#settle({ kind: 'local-fault', reason: 'ports-exhausted' }),
    );
  }

  #settle(outcome: UpstreamOutcome): void {
    if (this.#settled) return;
    this.#settled = true;
    this.#cancelTimer();
    this.#socket?.destroy();
    this.#owner.attempted(outcome);
  }
}

/** The pool's source addresses of the backend's family, the flow's own turn first. */
function sourcesFor({ pool, endpoint, hash }: UpstreamRequest): readonly IpAddress[] {
  if (pool.sourceAddresses.length === 0) return pool.sourceAddresses;
  const sources = pool.sourceAddresses.filter(({ family }) => family === endpoint.address.family);
  const first = sources.length === 0 ? 0 : hash % sources.length;
  return [...sources.slice(first), ...sources.slice(0, first)];
}

function onConnect(this: AttemptSocket): void {
  this[ATTEMPT]?.connected();
}

function onError(this: AttemptSocket, error: Error): void {
  this[ATTEMPT]?.failed(error);
}

function ignore(): void {
  // Without an answer the next connection asks its socket.
}
