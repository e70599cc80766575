import type { IpAddress } from '../../../model/address.js';
import type { ForwardingState } from '../../../model/forwarding.js';
import type { Clock } from '../../../runtime/clock.js';
import { backendEndpoint, ruleAndView, type Picked } from '../../../selection/picker.js';
import {
  DEAF,
  type DatagramHandler,
  type DatagramSocket,
  type DatagramSockets,
  type DatagramSource,
} from '../sockets/datagram-socket.js';
import type { RouteSource } from '../source-address.js';
import {
  portRequest,
  sourcesInTurn,
  type DialTarget,
  type SourcePortRequest,
  type SourcePorts,
} from '../source-ports.js';

/** Where a backend sees a flow come from. */
export interface UdpLocalEnd {
  readonly source: IpAddress;
  readonly sourcePort: number;
}

/** A connected socket that is now the caller's. */
export interface DialledSocket extends UdpLocalEnd {
  readonly socket: DatagramSocket;
  /** The backend's address as the system writes it. */
  readonly peer: string;
}

/** Why there is no socket. `unreachable`: no route leads to the backend; all else is a shortage of this machine. */
export type DialRefusal = 'unreachable' | 'ports-exhausted' | 'descriptors-exhausted' | 'send-failed';

/** Where an upstream gets its socket from. */
export interface Dialer {
  /** Undefined: dial can be called now; else it can when this resolves. It never rejects. */
  ready(target: DialTarget): Promise<void> | undefined;
  /** Binds and connects before it returns. `local`: where a flow of another process left from. */
  dial(
    target: DialTarget,
    options?: { readonly local?: UdpLocalEnd | undefined },
  ): DialledSocket | DialRefusal;
  /** Closes a dialled socket and gives its local end back. Call it once. */
  close(socket: DialledSocket, target: DialTarget): void;
}

/** What uses an upstream. It is not called once it has closed it. */
export interface UpstreamOwner {
  onConnected(to: Upstream): void;
  /** It could not be opened, and is closed. */
  onRefused(refusal: DialRefusal, by: Upstream): void;
  onReply(datagram: Buffer, from: Upstream): void;
  /** The network says that no one listens there, or that the path is barred. */
  onUnreachable(evidence: string, by: Upstream): void;
  /** A datagram was thrown away on this machine. */
  onSendFailed(by: Upstream): void;
}

/** Evidence that no one listens on the port. */
export const PORT_UNREACHABLE = 'ICMP unreachable';

/**
 * What a connected UDP socket makes of ICMP: port (ECONNREFUSED) and protocol (ENOPROTOOPT) unreachable, prohibited
 * (EHOSTUNREACH), or its route has gone (the last two). See icmp_err_convert in Linux' net/ipv4/icmp.c.
 */
const UNREACHABLE: Readonly<Record<string, string>> = {
  ECONNREFUSED: PORT_UNREACHABLE,
  ENOPROTOOPT: 'ENOPROTOOPT',
  EHOSTUNREACH: 'EHOSTUNREACH',
  ENETUNREACH: 'ENETUNREACH',
};

/**
 * A flow's path to one backend: a connected socket of its own. Until the local address is known, what is to be sent
 * waits, within bounds. Start it once; its owner closes it.
 */
export class Upstream implements DatagramHandler {
  readonly target: DialTarget;
  readonly #dialer: Dialer;
  readonly #owner: UpstreamOwner;
  /** Of the flow that it continues; undefined: a local end is chosen. */
  readonly #local: UdpLocalEnd | undefined;
  #dialled: DialledSocket | undefined;
  #waiting: WaitingDatagrams | undefined;
  #heardFrom = false;
  #closed = false;

  constructor(target: DialTarget, dialer: Dialer, owner: UpstreamOwner, local?: UdpLocalEnd) {
    this.target = target;
    this.#local = local;
    this.#dialer = dialer;
    this.#owner = owner;
  }

  /** Undefined until it is connected, and once it is closed. */
  get localEnd(): UdpLocalEnd | undefined {
    return this.#closed ? undefined : this.#dialled;
  }

  /** Tells the owner that it is connected or refused: before it returns, if the local address is known already. */
  start(): void {
    const ready = this.#local === undefined ? this.#dialer.ready(this.target) : undefined;
    if (ready === undefined) {
      this.#connect();
      return;
    }
    this.#waiting = new WaitingDatagrams();
    void ready.then(() => this.#connect());
  }

  send(datagram: Buffer): void {
    if (this.#closed) return;
    const isTaken = this.#dialled?.socket.send(datagram) ?? this.#waiting?.add(datagram) ?? false;
    if (!isTaken) this.#owner.onSendFailed(this);
  }

  /** Idempotent. The owner hears nothing after it. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#waiting = undefined;
    if (this.#dialled !== undefined) this.#dialer.close(this.#dialled, this.target);
  }

  onDatagram(datagram: Buffer, from: DatagramSource): void {
    // Between bind and connect anyone could have sent here; all of that lies before the first true reply.
    if (!this.#heardFrom) {
      if (from.port !== this.target.endpoint.port || from.address !== this.#dialled?.peer) return;
      this.#heardFrom = true;
    }
    this.#owner.onReply(datagram, this);
  }

  onReceiveError(error: NodeJS.ErrnoException): void {
    const evidence = UNREACHABLE[error.code ?? ''];
    if (evidence === undefined) this.#owner.onSendFailed(this);
    else this.#owner.onUnreachable(evidence, this);
  }

  /** ICMP may be told to either. */
  onSendError(error: NodeJS.ErrnoException): void {
    this.onReceiveError(error);
  }

  #connect(): void {
    if (this.#closed) return;
    const outcome = this.#dialer.dial(this.target, { local: this.#local });
    if (typeof outcome === 'string') {
      this.close();
      this.#owner.onRefused(outcome, this);
      return;
    }
    this.#dialled = outcome;
    outcome.socket.handler = this;
    const waiting = this.#waiting?.takeAll() ?? [];
    this.#waiting = undefined;
    this.#owner.onConnected(this);
    for (const datagram of waiting) this.send(datagram);
  }
}

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
  readonly sockets: DatagramSockets;
  readonly sourcePorts: Pick<SourcePorts, 'take' | 'claim' | 'release'>;
  readonly routeSource: Pick<RouteSource, 'known' | 'sourceFor'>;
}

/** What a dial may ask for. */
export interface UdpDialOptions {
  /** Leave from there. Without `shared`, elsewhere if that cannot be; with it, `ports-exhausted` if it is taken. */
  readonly local?: UdpLocalEnd | undefined;
  /**
   * Leave from a local end that is the caller's towards all ports of the backend: `join` opens more sockets on it. Once
   * none is left, it goes back with `releaseShared`.
   */
  readonly shared?: boolean;
}

/** Opens connected sockets to backends on local addresses and ports of haports' own choice. */
export class UpstreamDialer implements Dialer {
  readonly #deps: UpstreamDialerDeps;
  #dials = 0;

  constructor(deps: UpstreamDialerDeps) {
    this.#deps = deps;
  }

  ready(target: DialTarget): Promise<void> | undefined {
    const { address } = target.endpoint;
    if (target.pool.sourceAddresses.some(({ family }) => family === address.family)) return undefined;
    const { routeSource } = this.#deps;
    if (routeSource.known(address) !== undefined) return undefined;
    // Where there is no route, dial finds none known and says so.
    return routeSource.sourceFor(address).then(
      () => undefined,
      () => undefined,
    );
  }

  dial(target: DialTarget, { local, shared = false }: UdpDialOptions = {}): DialledSocket | DialRefusal {
    if (local !== undefined)
      return shared ? this.#shareFrom(local, target) : this.#continueFrom(local, target);
    let refusal: DialRefusal = 'unreachable';
    for (const source of this.#sources(target)) {
      const outcome = this.#dialFrom(source, target, shared);
      if (typeof outcome !== 'string') return outcome;
      refusal = outcome;
    }
    return refusal;
  }

  /** One more socket on a shared end; `next-port` where a socket of others uses that very tuple. */
  join(end: UdpLocalEnd, target: DialTarget): DialledSocket | BindOutcome | 'unreachable' {
    const { source, sourcePort } = end;
    const { address, port } = target.endpoint;
    // It would be connected to itself.
    if (sourcePort === port && source.text === address.text) return 'next-port';
    const request = portRequest('udp', source, target);
    if (!this.#deps.sourcePorts.claim(request, sourcePort)) return 'next-port';
    const outcome = this.#connectFrom(end, target);
    if (typeof outcome === 'string') this.#deps.sourcePorts.release(request, sourcePort);
    return outcome;
  }

  close({ socket, source, sourcePort }: DialledSocket, target: DialTarget): void {
    socket.close();
    this.#deps.sourcePorts.release(portRequest('udp', source, target), sourcePort);
  }

  releaseShared({ source, sourcePort }: UdpLocalEnd, target: DialTarget): void {
    this.#deps.sourcePorts.release(anyPortRequest(source, target), sourcePort);
  }

  #continueFrom(end: UdpLocalEnd, target: DialTarget): DialledSocket | DialRefusal {
    const outcome = this.#connectFrom(end, target);
    if (typeof outcome === 'string') return this.dial(target);
    this.#deps.sourcePorts.claim(portRequest('udp', end.source, target), end.sourcePort);
    return outcome;
  }

  #shareFrom(end: UdpLocalEnd, target: DialTarget): DialledSocket | DialRefusal {
    const { sourcePorts } = this.#deps;
    const request = anyPortRequest(end.source, target);
    if (!sourcePorts.claim(request, end.sourcePort)) return 'ports-exhausted';
    const outcome = this.join(end, target);
    if (typeof outcome !== 'string') return outcome;
    sourcePorts.release(request, end.sourcePort);
    return 'ports-exhausted';
  }

  #dialFrom(source: IpAddress, target: DialTarget, shared: boolean): DialledSocket | DialRefusal {
    const { sourcePorts } = this.#deps;
    const request = shared ? anyPortRequest(source, target) : portRequest('udp', source, target);
    for (let tries = 0; tries < MAX_PORT_TRIES; tries++) {
      const sourcePort = sourcePorts.take(request);
      if (sourcePort === undefined) break;
      const end = { source, sourcePort };
      const outcome = shared ? this.join(end, target) : this.#connectFrom(end, target);
      if (typeof outcome !== 'string') return outcome;
      sourcePorts.release(request, sourcePort);
      if (outcome === 'next-source') return 'send-failed';
      if (outcome !== 'next-port') return outcome;
    }
    return 'ports-exhausted';
  }

  #connectFrom(
    { source, sourcePort }: UdpLocalEnd,
    { endpoint }: DialTarget,
  ): DialledSocket | BindOutcome | 'unreachable' {
    const socket = this.#deps.sockets.bind({ address: source, port: sourcePort, use: 'shared' }, DEAF);
    if (socket instanceof Error) return BIND_OUTCOMES[socket.code ?? ''] ?? 'send-failed';
    const peer = socket.connect(endpoint.address, endpoint.port);
    if (peer !== undefined) return { socket, peer, source, sourcePort };
    socket.close();
    return 'unreachable';
  }

  /** Takes turns at which of several source addresses comes first. */
  #sources(target: DialTarget): readonly IpAddress[] {
    const configured = sourcesInTurn(target, this.#dials++);
    if (configured.length > 0) return configured;
    const known = this.#deps.routeSource.known(target.endpoint.address);
    return known === undefined ? [] : [known];
  }
}

/** Towards no port in truth: stands for all ports of the backend. */
function anyPortRequest(source: IpAddress, target: DialTarget): SourcePortRequest {
  return { ...portRequest('udp', source, target), destinationPort: 0 };
}

/** Rules times backends times ports may be millions; forgetting them costs little. */
const MOST_TARGETS = 4096;

/** What to dial for picks of one state. Flows to the same port of the same backend share one target. */
export class UpstreamTargets {
  readonly #targets = new Map<number, DialTarget>();
  #state: ForwardingState | undefined;

  /** Throws RangeError where the state contradicts itself: a bug. */
  of(
    state: ForwardingState,
    pick: Pick<Picked, 'ruleIndex' | 'backendIndex' | 'backendId'>,
    destinationPort: number,
  ): DialTarget {
    if (state !== this.#state) {
      this.#targets.clear();
      this.#state = state;
    }
    // Exact: backends number at most 65,535, rules far less than 2^21.
    const key = (pick.ruleIndex * 65_536 + pick.backendIndex) * 65_536 + destinationPort;
    let target = this.#targets.get(key);
    if (target === undefined) {
      const { rule, view } = ruleAndView(state, pick.ruleIndex);
      const backend = view.backends[pick.backendIndex]?.backend;
      if (backend === undefined) throw new RangeError(`No backend "${pick.backendId}"`);
      const endpoint = backendEndpoint(rule, backend, rule.frontend.name, destinationPort);
      target = { backendId: pick.backendId, endpoint, pool: rule.pool };
      if (this.#targets.size >= MOST_TARGETS) this.#targets.clear();
      this.#targets.set(key, target);
    }
    return target;
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
 * Backends that refused traffic, for a second from the first refusal. So each is tried, and reported, at most
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

/** Bounds the memory for datagrams that may have to be sent again, of all UDP flows together. */
export class DatagramBudget {
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
