import { createSocket, type RemoteInfo, type Socket, type SocketOptions } from 'node:dgram';
import type { IpAddress } from '../../../model/address.js';
import type { BackendPool } from '../../../model/configuration.js';
import type { ForwardingState } from '../../../model/forwarding.js';
import type { Clock } from '../../../runtime/clock.js';
import { backendEndpoint, type Picked } from '../../../selection/picker.js';
import type { RouteSource } from '../source-address.js';
import type { SourcePortRequest, SourcePorts } from '../source-ports.js';

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

/** A backend to be reached, and the pool that says from where. */
export interface UpstreamTarget {
  readonly backendId: string;
  readonly endpoint: { readonly address: IpAddress; readonly port: number };
  readonly pool: Pick<BackendPool, 'sourceAddresses' | 'sourcePorts'>;
}

/** Where a backend sees a flow come from. */
export interface LocalEnd {
  readonly source: IpAddress;
  readonly sourcePort: number;
}

/** A connected socket that is now the caller's; once closed, it goes back with `release`. */
export interface ConnectedSocket extends LocalEnd {
  readonly socket: Socket;
  /** The backend's address as the system writes it. */
  readonly peer: string;
}

/** Why there is no socket. `unreachable`: no route leads to the backend; all else is a shortage of this machine. */
export type DialRefusal = 'unreachable' | 'ports-exhausted' | 'descriptors-exhausted' | 'send-failed';

/** Other processes' ports that one dial runs into before it gives up on a source address. */
const MAX_PORT_TRIES = 32;

type BindOutcome = 'next-port' | 'next-source' | Exclude<DialRefusal, 'unreachable'>;

/** What a failed bind means for the dial. `EACCES`: a port below ip_unprivileged_port_start. */
const BIND_OUTCOMES: Readonly<Record<string, BindOutcome>> = {
  EADDRINUSE: 'next-port',
  EACCES: 'next-port',
  EADDRNOTAVAIL: 'next-source',
  EMFILE: 'descriptors-exhausted',
  ENFILE: 'descriptors-exhausted',
  ENOBUFS: 'descriptors-exhausted',
  ENOMEM: 'descriptors-exhausted',
};

export interface UpstreamDialerDeps {
  readonly sourcePorts: Pick<SourcePorts, 'take' | 'claim' | 'release'>;
  readonly routeSource: Pick<RouteSource, 'known' | 'sourceFor'>;
}

/** Opens connected sockets to backends on local addresses and ports of haports' own choice. */
export class UpstreamDialer {
  readonly #deps: UpstreamDialerDeps;
  #dials = 0;

  constructor(deps: UpstreamDialerDeps) {
    this.#deps = deps;
  }

  /** Undefined: dial can be called now; else it can when this resolves. It never rejects. */
  ready(target: UpstreamTarget): Promise<void> | undefined {
    const { address } = target.endpoint;
    if (configuredSources(target).length > 0) return undefined;
    const { routeSource } = this.#deps;
    if (routeSource.known(address) !== undefined) return undefined;
    // Where there is no route, dial finds none known and says so.
    return routeSource.sourceFor(address).then(
      () => undefined,
      () => undefined,
    );
  }

  /** Binds and connects before it returns. */
  dial(target: UpstreamTarget): ConnectedSocket | DialRefusal {
    let refusal: DialRefusal = 'unreachable';
    for (const source of this.#sources(target)) {
      const outcome = this.#dialFrom(source, target);
      if (typeof outcome !== 'string') return outcome;
      refusal = outcome;
    }
    return refusal;
  }

  /** As dial, from a local end that a flow had in another process. */
  dialFrom({ source, sourcePort }: LocalEnd, target: UpstreamTarget): ConnectedSocket | DialRefusal {
    const outcome = connectFrom(source, sourcePort, target);
    if (typeof outcome === 'string') return this.dial(target);
    this.#deps.sourcePorts.claim(portRequest(source, target), sourcePort);
    return outcome;
  }

  /** Gives the local port of a socket back that has been closed. Call it once. */
  release({ source, sourcePort }: LocalEnd, target: UpstreamTarget): void {
    this.#deps.sourcePorts.release(portRequest(source, target), sourcePort);
  }

  /**
   * As dial, from a local end that is the caller's towards all ports of the backend: `joinFrom` opens more sockets on
   * it. Once none is left, it goes back with `releaseShared`.
   */
  dialShared(target: UpstreamTarget): ConnectedSocket | DialRefusal {
    let refusal: DialRefusal = 'unreachable';
    for (const source of this.#sources(target)) {
      const outcome = this.#connect(anyPortRequest(source, target), (sourcePort) =>
        this.#join({ source, sourcePort }, target),
      );
      if (typeof outcome !== 'string') return outcome;
      refusal = outcome;
    }
    return refusal;
  }

  /** As dialShared, from a given local end; undefined where that is somebody else's. */
  dialSharedFrom(end: LocalEnd, target: UpstreamTarget): ConnectedSocket | undefined {
    const request = anyPortRequest(end.source, target);
    if (!this.#deps.sourcePorts.claim(request, end.sourcePort)) return undefined;
    const outcome = this.#join(end, target);
    if (typeof outcome !== 'string') return outcome;
    this.#deps.sourcePorts.release(request, end.sourcePort);
    return undefined;
  }

  /** One more socket on a shared end; undefined where it cannot be, since a socket of others goes that very way. */
  joinFrom(end: LocalEnd, target: UpstreamTarget): ConnectedSocket | undefined {
    const outcome = this.#join(end, target);
    return typeof outcome === 'string' ? undefined : outcome;
  }

  releaseShared({ source, sourcePort }: LocalEnd, target: UpstreamTarget): void {
    this.#deps.sourcePorts.release(anyPortRequest(source, target), sourcePort);
  }

  #join(end: LocalEnd, target: UpstreamTarget): ConnectedSocket | BindOutcome | 'unreachable' {
    const { source, sourcePort } = end;
    const { address, port } = target.endpoint;
    // It would be connected to itself.
    if (sourcePort === port && source.text === address.text) return 'next-port';
    const request = portRequest(source, target);
    if (!this.#deps.sourcePorts.claim(request, sourcePort)) return 'next-port';
    const outcome = connectFrom(source, sourcePort, target);
    if (typeof outcome === 'string') this.#deps.sourcePorts.release(request, sourcePort);
    return outcome;
  }

  /** Takes turns at which of several source addresses comes first. */
  #sources(target: UpstreamTarget): readonly IpAddress[] {
    const configured = configuredSources(target);
    if (configured.length === 0) {
      const known = this.#deps.routeSource.known(target.endpoint.address);
      return known === undefined ? [] : [known];
    }
    const first = this.#dials++ % configured.length;
    return [...configured.slice(first), ...configured.slice(0, first)];
  }

  #dialFrom(source: IpAddress, target: UpstreamTarget): ConnectedSocket | DialRefusal {
    return this.#connect(portRequest(source, target), (port) => connectFrom(source, port, target));
  }

  #connect(
    request: SourcePortRequest,
    connect: (sourcePort: number) => ConnectedSocket | BindOutcome | 'unreachable',
  ): ConnectedSocket | DialRefusal {
    const { sourcePorts } = this.#deps;
    for (let tries = 0; tries < MAX_PORT_TRIES; tries++) {
      const port = sourcePorts.take(request);
      if (port === undefined) break;
      const outcome = connect(port);
      if (typeof outcome !== 'string') return outcome;
      sourcePorts.release(request, port);
      if (outcome === 'next-source') return 'send-failed';
      if (outcome !== 'next-port') return outcome;
    }
    return 'ports-exhausted';
  }
}

function portRequest(source: IpAddress, { backendId, endpoint, pool }: UpstreamTarget): SourcePortRequest {
  return {
    protocol: 'udp',
    backendId,
    source,
    destination: endpoint.address,
    destinationPort: endpoint.port,
    ports: pool.sourcePorts,
  };
}

/** Towards no port in truth: stands for all ports of the backend. */
function anyPortRequest(source: IpAddress, target: UpstreamTarget): SourcePortRequest {
  return { ...portRequest(source, target), destinationPort: 0 };
}

function configuredSources({ endpoint, pool }: UpstreamTarget): readonly IpAddress[] {
  if (pool.sourceAddresses.length === 0) return pool.sourceAddresses;
  return pool.sourceAddresses.filter(({ family }) => family === endpoint.address.family);
}

function connectFrom(
  source: IpAddress,
  sourcePort: number,
  { endpoint }: UpstreamTarget,
): ConnectedSocket | BindOutcome | 'unreachable' {
  const socket = createDatagramSocket(endpoint.address.family, 'shared');
  const failure = bindNow(socket, source, sourcePort);
  if (failure !== undefined) {
    socket.close();
    return BIND_OUTCOMES[failure.code ?? ''] ?? 'send-failed';
  }
  const peer = connectNow(socket, endpoint.address, endpoint.port);
  if (peer !== undefined) return { socket, peer, source, sourcePort };
  socket.close();
  return 'unreachable';
}

/** Rules times backends times ports may be millions; forgetting them costs little. */
const MOST_TARGETS = 4096;

/** What to dial for picks of one state. Flows to the same port of the same backend share one target. */
export class UpstreamTargets {
  readonly #targets = new Map<number, UpstreamTarget>();
  #state: ForwardingState | undefined;

  /** Throws RangeError where the state contradicts itself: a bug. */
  of(state: ForwardingState, pick: Picked, destinationPort: number): UpstreamTarget {
    if (state !== this.#state) {
      this.#targets.clear();
      this.#state = state;
    }
    // Exact: backends number at most 65,535, rules far less than 2^21.
    const key = (pick.ruleIndex * 65_536 + pick.backendIndex) * 65_536 + destinationPort;
    let target = this.#targets.get(key);
    if (target === undefined) {
      target = targetOf(state, pick, destinationPort);
      if (this.#targets.size >= MOST_TARGETS) this.#targets.clear();
      this.#targets.set(key, target);
    }
    return target;
  }
}

function targetOf(state: ForwardingState, pick: Picked, destinationPort: number): UpstreamTarget {
  const rule = state.configuration.rules[pick.ruleIndex];
  const view = state.views[pick.viewIndex];
  const backend = view?.backends[pick.backendIndex]?.backend;
  if (rule === undefined || view === undefined || backend === undefined) {
    throw new RangeError(`No backend or rule for "${pick.backendId}" in state ${state.revision}`);
  }
  const endpoint = backendEndpoint(rule, backend, rule.frontend.name, destinationPort);
  return { backendId: pick.backendId, endpoint, pool: view.pool };
}

/*
 * All addresses here are literals. Node looks them up nevertheless, for bind and connect, and for every datagram sent
 * on a socket that is not connected. A look-up that answers at once makes all three synchronous.
 */
const answerAtOnce: Readonly<Record<4 | 6, NonNullable<SocketOptions['lookup']>>> = {
  4: (hostname, _options, callback) => callback(null, hostname, 4),
  6: (hostname, _options, callback) => callback(null, hostname, 6),
};

/** `shared`: SO_REUSEADDR, so that many connected sockets can have one local port. */
export type PortUse = 'exclusive' | 'shared';

/** An unbound socket for literal addresses of one family only. Whoever asks for it closes it. */
export function createDatagramSocket(family: 4 | 6, portUse: PortUse): Socket {
  return createSocket({
    type: family === 4 ? 'udp4' : 'udp6',
    ipv6Only: family === 6,
    reuseAddr: portUse === 'shared',
    lookup: answerAtOnce[family],
  });
}

/** Binds before it returns; the system's error where that failed. Port 0: one of the system's choice. */
export function bindNow(socket: Socket, address: IpAddress, port: number): NodeJS.ErrnoException | undefined {
  let failure: NodeJS.ErrnoException | undefined;
  const onError = (error: Error): void => {
    failure = error;
  };
  socket.on('error', onError);
  socket.bind({ address: address.text, port, exclusive: true });
  socket.off('error', onError);
  return failure;
}

/** Connects a bound socket before it returns: the peer's address as the system writes it, undefined if it failed. */
export function connectNow(socket: Socket, address: IpAddress, port: number): string | undefined {
  socket.connect(port, address.text);
  try {
    const peer = socket.remoteAddress().address;
    // The same text is not kept twice.
    return peer === address.text ? address.text : peer;
  } catch {
    // It is emitted as well, later.
    socket.on('error', ignore);
    return undefined;
  }
}

function ignore(): void {
  // Its caller was told already.
}

/** Bytes that may wait in the process for a socket's send buffer. */
const MAX_QUEUED_BYTES = 1_048_576;

/** Sends under way below which the queue cannot be long: most finish within the call. */
const UNSUSPICIOUS_SENDS = 16;

/** Bounds what waits for a socket that does not take datagrams as fast as they come. */
export class SendQueueGuard {
  readonly #socket: Pick<Socket, 'getSendQueueSize'>;
  #underWay = 0;

  constructor(socket: Pick<Socket, 'getSendQueueSize'>) {
    this.#socket = socket;
  }

  /** Whether one more would be too many. Asks the socket only when sends have piled up. */
  isFull(): boolean {
    return this.#underWay >= UNSUSPICIOUS_SENDS && this.#socket.getSendQueueSize() >= MAX_QUEUED_BYTES;
  }

  started(): void {
    this.#underWay++;
  }

  finished(): void {
    this.#underWay--;
  }
}

/** Per flow. More than a burst of a request, far less than a flood. */
const MAX_DATAGRAMS = 16;
const MAX_BYTES = 131_072;

/** A few datagrams, in order, until they can be sent. */
export class WaitingDatagrams {
  #datagrams: Buffer[] = [];
  #bytes = 0;

  /** False: there is no room, and the datagram was not taken. */
  add(datagram: Buffer): boolean {
    if (this.#datagrams.length >= MAX_DATAGRAMS || this.#bytes + datagram.length > MAX_BYTES) return false;
    this.#datagrams.push(datagram);
    this.#bytes += datagram.length;
    return true;
  }

  takeAll(): readonly Buffer[] {
    const datagrams = this.#datagrams;
    this.#datagrams = [];
    this.#bytes = 0;
    return datagrams;
  }
}

/** How long a backend that turned a flow away is passed over, unless it answers before. */
const ROUND_MS = 1000;

/**
 * Backends that turned traffic away, for a round of a second from the first. So each is tried, and told of, at most
 * once a second, and one that comes back is found again.
 */
export class FailedBackends {
  readonly #clock: Clock;
  readonly #ids = new Set<string>();
  #roundStartedMs = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Those of the present round. The set changes with time and `add`. */
  present(): ReadonlySet<string> {
    if (this.#ids.size > 0 && this.#clock.monotonicMs() - this.#roundStartedMs >= ROUND_MS) this.#ids.clear();
    return this.#ids;
  }

  /** False: it has failed in this round already. */
  add(backendId: string): boolean {
    const present = this.present();
    if (present.has(backendId)) return false;
    if (present.size === 0) this.#roundStartedMs = this.#clock.monotonicMs();
    this.#ids.add(backendId);
    return true;
  }
}

/** What keeping a datagram costs beyond its bytes, roughly. */
const OVERHEAD_BYTES = 256;

/** Memory for datagrams that may have to be sent again, of all UDP flows together. */
export class HeldMemory {
  readonly #limitBytes: number;
  #usedBytes = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Whether there is room to keep this datagram; if so, `give` it back later. */
  take(datagram: Buffer): boolean {
    const bytes = datagram.length + OVERHEAD_BYTES;
    if (this.#usedBytes + bytes > this.#limitBytes) return false;
    this.#usedBytes += bytes;
    return true;
  }

  give(datagram: Buffer): void {
    this.#usedBytes -= datagram.length + OVERHEAD_BYTES;
  }
}
