import { connect, type Socket, type TcpNetConnectOpts } from 'node:net';
import type { CloseStyle, Flow, FlowTransport } from '../../../flows/flow.js';
import type { IpAddress } from '../../../model/address.js';
import type { BackendPool, TcpOptions } from '../../../model/configuration.js';
import { errorCode, errorMessage } from '../../../model/errors.js';
import type { DropReason } from '../../../model/events.js';
import type { FlowEndReason } from '../../../model/flow.js';
import type { ForwardingState, PoolView } from '../../../model/forwarding.js';
import type { Clock } from '../../../runtime/clock.js';
import { isAdmitted } from '../../../selection/access.js';
import {
  NONE_EXCLUDED,
  backendEndpoint,
  type NoBackend,
  type Picked,
  type Picker,
} from '../../../selection/picker.js';
import type { FlowManager } from '../flow-manager.js';
import type { ListenerBinding } from '../listener.js';
import type { RouteSource } from '../source-address.js';
import type { SourcePortRequest, SourcePorts } from '../source-ports.js';
import { readProxyHeader, writeProxyHeader, type ProxyHeaderOutcome } from './proxy-protocol.js';
import {
  SPLICE_HIGH_WATER_MARK,
  Splice,
  flushBeforeReset,
  resetSocket,
  type LoopTurn,
  type SpliceOwner,
} from './splice.js';

export interface TcpDeps {
  readonly manager: FlowManager;
  readonly picker: Picker;
  readonly sourcePorts: SourcePorts;
  readonly routeSource: RouteSource;
  /** One for all connections of a worker. */
  readonly turn: LoopTurn;
  /** Told when a backend is connected: seconds since the first attempt, those at other backends included. */
  readonly onConnectLatency: (backendId: string, seconds: number) => void;
}

/** What of a blackholed client is read and thrown away, so that its RST is noticed; then it meets a full window. */
const DISCARD_BYTES = 64 * 1024;

const NOBODY: readonly string[] = [];

/** Where a socket finds its connection: listeners are shared functions, not closures for each flow. */
const OWNER = Symbol('owner');

type OwnedSocket = Socket & { [OWNER]?: TcpConnection };

const RESET_CODES: ReadonlySet<string | undefined> = new Set(['ECONNRESET', 'EPIPE', 'ECONNABORTED']);

/**
 * One client connection and, once there is one, its connection to a backend:
 * (PROXY header) -> pick -> connect, at one backend after the other -> splice -> end.
 * The client is not read before a backend is connected, so a retry loses nothing. It owns both sockets.
 */
export class TcpConnection implements FlowTransport, SpliceOwner, UpstreamOwner {
  readonly #deps: TcpDeps;
  readonly #binding: ListenerBinding;
  readonly #client: Socket;
  #tried: ReadonlySet<string> = NONE_EXCLUDED;
  #flow: Flow | undefined;
  #backend: Socket | undefined;
  #splice: Splice | undefined;
  /** Undoes whatever is being waited for. */
  #stopWaiting: () => void = nothing;
  #attempt: { readonly pool: BackendPool; readonly backendId: string } | undefined;
  #firstAttemptAtMs = 0;
  #sidesOpen = 2;
  #failure: FlowEndReason | undefined;
  #closed = false;

  /** The socket must be accepted, paused, and made with SPLICE_HIGH_WATER_MARK. */
  constructor(deps: TcpDeps, binding: ListenerBinding, client: Socket) {
    this.#deps = deps;
    this.#binding = binding;
    this.#client = client;
    this.#watch(client);
  }

  /** Serves a flow that has been opened with this as its transport. */
  serve(flow: Flow, expectsProxyHeader: boolean): void {
    this.#flow = flow;
    const { proxyProtocol } = this.#binding.frontend;
    if (!expectsProxyHeader || proxyProtocol === undefined) {
      this.#place(flow);
      return;
    }
    const options = { accept: proxyProtocol.accept, timeoutMs: proxyProtocol.headerTimeoutMs };
    this.#stopWaiting = readProxyHeader(this.#client, this.#deps.manager.clock, options, (outcome) => {
      this.#stopWaiting = nothing;
      this.#identify(flow, outcome);
    });
  }

  close(style: CloseStyle): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stopWaiting();
    this.#splice?.stop();
    for (const socket of [this.#client, this.#backend]) {
      if (style === 'reset' && socket !== undefined) resetSocket(socket);
      else socket?.destroy();
    }
  }

  blackhole(): void {
    this.#stopWaiting();
    this.#stopWaiting = nothing;
    this.#splice?.stop();
    this.#splice = undefined;
    const backend = this.#backend;
    this.#backend = undefined;
    if (backend !== undefined) resetSocket(backend);
    let discarded = 0;
    this.#client.on('data', (chunk: Buffer) => {
      discarded += chunk.length;
      if (discarded >= DISCARD_BYTES) this.#client.pause();
    });
    this.#client.resume();
  }

  unpin(): void {
    // A spliced stream cannot be moved: flow policy never asks it of TCP.
  }

  #identify(flow: Flow, outcome: ProxyHeaderOutcome): void {
    const { manager } = this.#deps;
    if (outcome.kind === 'bad') {
      manager.dropped(flow.rule, 'tcp', 'bad-proxy-header');
      manager.end(flow, 'bad-proxy-header', 'reset');
      return;
    }
    if (outcome.identity !== undefined) {
      if (manager.identify(flow, { protocol: 'tcp', ...outcome.identity }) !== undefined) {
        manager.end(flow, 'error', 'reset');
        return;
      }
    }
    if (!isAdmitted(this.#binding.frontend, flow.tuple.source)) {
      manager.dropped(flow.rule, 'tcp', 'denied');
      manager.end(flow, 'error', 'reset');
      return;
    }
    this.#place(flow);
  }

  #place(flow: Flow): void {
    const { manager, picker } = this.#deps;
    const { state } = manager;
    const ruleIndex = this.#ruleIndexOf(flow, state);
    if (ruleIndex < 0) {
      manager.end(flow, 'rule-removed', 'reset');
      return;
    }
    const excluded = manager.caps.excluded('tcp', this.#tried);
    const pick = picker.pickForRule(state, ruleIndex, flow.tuple, excluded);
    if (pick.kind === 'none') this.#refuse(flow, pick);
    else this.#placeOn(flow, state, pick, excluded);
  }

  /** The binding follows every apply until its listener is closed; then the rule may have another index, or none. */
  #ruleIndexOf(flow: Flow, { configuration: { rules } }: ForwardingState): number {
    const { ruleIndex } = this.#binding;
    if (rules[ruleIndex]?.name === flow.rule.name) return ruleIndex;
    return rules.findIndex(({ name }) => name === flow.rule.name);
  }

  #refuse(flow: Flow, { cause, action }: NoBackend): void {
    const { manager } = this.#deps;
    if (this.#tried.size > 0) {
      manager.end(flow, 'connect-failed', 'reset');
      return;
    }
    manager.dropped(flow.rule, 'tcp', cause === 'all-excluded' ? 'backends-full' : 'no-backend');
    if (action === 'drop') manager.blackhole(flow);
    else manager.end(flow, 'no-backend', 'reset');
  }

  #placeOn(flow: Flow, state: ForwardingState, pick: Picked, excluded: ReadonlySet<string>): void {
    const { manager } = this.#deps;
    const view = state.views[pick.viewIndex];
    const backend = view?.backends[pick.backendIndex]?.backend;
    if (view === undefined || backend === undefined) {
      throw new RangeError(`No backend "${pick.backendId}" in forwarding state ${state.revision}`);
    }
    const { pool } = view;
    if (this.#tried.size === 0) this.#firstAttemptAtMs = manager.clock.monotonicMs();
    else manager.retried(flow);
    const endpoint = backendEndpoint(flow.rule, backend, flow.rule.frontend.name, this.#binding.port);
    manager.place(flow, {
      backendId: pick.backendId,
      endpoint,
      reason: pick.reason,
      epoch: state.revision,
      excluded: excluded.size === 0 ? NOBODY : membersAmong(view, excluded),
    });
    const { sourcePorts, routeSource } = this.#deps;
    const attempt = new UpstreamConnect(
      { clock: manager.clock, sourcePorts, routeSource },
      { backendId: pick.backendId, endpoint, pool, tcp: flow.rule.tcp, hash: pick.hash },
      this,
    );
    this.#attempt = { pool, backendId: pick.backendId };
    this.#stopWaiting = () => attempt.cancel();
    attempt.start();
  }

  attempted(outcome: UpstreamOutcome): void {
    const flow = this.#flow;
    const attempt = this.#attempt;
    if (flow === undefined || attempt === undefined) return;
    this.#stopWaiting = nothing;
    const { manager } = this.#deps;
    switch (outcome.kind) {
      case 'connected':
        this.#connected(flow, attempt.pool, attempt.backendId, outcome.socket);
        return;
      case 'local-fault':
        manager.dropped(flow.rule, 'tcp', outcome.reason);
        manager.end(flow, 'connect-failed', 'reset');
        return;
      case 'backend-failed':
        manager.backendFailed(flow, outcome.evidence);
        this.#tried = new Set([...this.#tried, attempt.backendId]);
        if (this.#tried.size < attempt.pool.connectAttempts) this.#place(flow);
        else manager.end(flow, 'connect-failed', 'reset');
        return;
    }
  }

  finPassed(): void {
    if (this.#flow !== undefined) this.#deps.manager.halfClosed(this.#flow);
  }

  #connected(flow: Flow, pool: BackendPool, backendId: string, backend: Socket): void {
    const { manager, turn, onConnectLatency } = this.#deps;
    this.#backend = backend;
    this.#watch(backend);
    onConnectLatency(backendId, (manager.clock.monotonicMs() - this.#firstAttemptAtMs) / 1000);
    manager.establish(flow);
    if (pool.proxyProtocol !== 'none') backend.write(writeProxyHeader(pool.proxyProtocol, flow.tuple));
    const { noDelay, keepAliveMs } = flow.rule.tcp;
    if (noDelay) this.#client.setNoDelay(true);
    if (keepAliveMs !== undefined) this.#client.setKeepAlive(true, keepAliveMs);
    this.#splice = new Splice(this.#client, backend, flow, { clock: manager.clock, turn }, this);
    this.#splice.start();
  }

  #watch(side: OwnedSocket): void {
    side[OWNER] = this;
    side.on('error', onSideError);
    side.on('close', onSideClose);
  }

  /** A side is gone: by RST, or because the kernel gave up on it. What it sent before still goes to the other side. */
  sideFailed(side: Socket, error: Error): void {
    const flow = this.#flow;
    if (this.#closed || flow === undefined || this.#isFormer(side)) return;
    const { manager } = this.#deps;
    const reason = endReason(error, side === this.#client);
    const other = side === this.#client ? this.#backend : this.#client;
    if (this.#splice === undefined || other === undefined || this.#failure !== undefined) {
      manager.end(flow, this.#failure ?? reason, 'reset');
      return;
    }
    this.#failure = reason;
    this.#splice.stop();
    this.#stopWaiting = flushBeforeReset(other, manager.clock, () => manager.end(flow, reason, 'reset'));
  }

  /** A socket closes by itself when FIN has been received and sent on it; after an error `#failure` is set. */
  sideClosed(side: Socket): void {
    const flow = this.#flow;
    if (this.#closed || flow === undefined || this.#failure !== undefined || this.#isFormer(side)) return;
    this.#sidesOpen--;
    if (this.#sidesOpen === 0 || this.#splice === undefined) this.#deps.manager.end(flow, 'closed', 'gone');
  }

  /** Whether this is the backend's socket from before the flow was blackholed. */
  #isFormer(side: Socket): boolean {
    return side !== this.#client && side !== this.#backend;
  }
}

function onSideError(this: OwnedSocket, error: Error): void {
  this[OWNER]?.sideFailed(this, error);
}

function onSideClose(this: OwnedSocket): void {
  this[OWNER]?.sideClosed(this);
}

/** In the pool's order, as logs and replays want them. */
function membersAmong({ backends }: PoolView, ids: ReadonlySet<string>): readonly string[] {
  return backends.map(({ backend }) => backend.id).filter((id) => ids.has(id));
}

function endReason(error: Error, isClient: boolean): FlowEndReason {
  if (!RESET_CODES.has(errorCode(error))) return 'error';
  return isClient ? 'client-reset' : 'backend-reset';
}

function nothing(): void {
  // There is nothing to undo.
}

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
