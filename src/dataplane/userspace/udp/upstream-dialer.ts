import type { Socket } from 'node:dgram';
import type { IpAddress } from '../../../model/address.js';
import type { BackendPool } from '../../../model/configuration.js';
import type { RouteSource } from '../route-source.js';
import type { SourcePortRequest, SourcePorts } from '../source-ports.js';
import { bindNow, connectNow, createDatagramSocket } from './datagram-socket.js';

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
