import type { FlowManager } from '../../../flows/flow-manager.js';
import type { CloseStyle, Flow, FlowTransport } from '../../../flows/flow.js';
import type { IpAddress } from '../../../model/address.js';
import type { BackendPool } from '../../../model/configuration.js';
import { errorCode, errorMessage } from '../../../model/errors.js';
import type { DropReason } from '../../../model/events.js';
import type { FlowEndReason } from '../../../model/flow.js';
import { isAdmitted } from '../../../selection/access.js';
import {
  NONE_EXCLUDED,
  backendEndpoint,
  type NoBackend,
  type Picked,
  type Picker,
} from '../../../selection/picker.js';
import type { ByteStream, LocalEnd, StreamHandler, StreamSockets } from '../sockets/byte-stream.js';
import type { RouteSource } from '../source-address.js';
import { portRequest, sourcesInTurn, type DialTarget, type SourcePorts } from '../source-ports.js';
import { parseProxyHeader, writeProxyHeader, type ProxyIdentity } from './proxy-protocol.js';

export interface TcpDeps {
  readonly manager: FlowManager;
  readonly picker: Picker;
  readonly sockets: StreamSockets;
  readonly sourcePorts: SourcePorts;
  readonly routeSource: RouteSource;
  /** Called when a backend is connected: seconds since the first attempt, other backends included. */
  readonly onConnectLatency: (backendId: string, seconds: number) => void;
}

/** What of a blackholed client is read and thrown away, so that its RST is noticed; then it meets a full window. */
const DISCARD_BYTES = 64 * 1024;

/** How long what one side sent before its RST may take to leave this process for the other. */
const FLUSH_MS = 2_000;

/** Once it has left: a moment in which the kernel can send it, for a reset throws away what it still holds. */
const KERNEL_MS = 20;

/** Another process may hold a port that haports thinks is free; after this many, they are taken to be all gone. */
const MAX_PORT_TRIES = 16;

const RESET_CODES: ReadonlySet<string | undefined> = new Set(['ECONNRESET', 'EPIPE', 'ECONNABORTED']);
const PORT_FAULTS: ReadonlySet<string> = new Set(['EADDRINUSE', 'EADDRNOTAVAIL']);
const SHORTAGES: ReadonlySet<string> = new Set(['EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM']);

/** One attempt to connect to one backend, whatever number of local ports it takes. */
interface Attempt extends DialTarget {
  readonly pool: BackendPool;
  /** Still to be tried; none where the kernel chooses. */
  sources: readonly IpAddress[];
  kernelChooses: boolean;
  portTries: number;
}

/**
 * `header`: waits for a PROXY header. `dialling`: tries backends. `spliced`: bytes, back-pressure and FIN pass in both
 * directions. `flushing`: one side was reset; what it sent before is on its way to the other. `blackholed`: the client
 * stays, unanswered.
 */
type Phase = 'header' | 'dialling' | 'spliced' | 'flushing' | 'blackholed' | 'closed';

/**
 * One client connection and, once there is one, its connection to a backend. The client is not read before a backend is
 * connected, so a retry loses nothing. It owns both streams.
 */
export class TcpConnection implements FlowTransport, StreamHandler {
  readonly #deps: TcpDeps;
  readonly #client: ByteStream;
  /** Of the frontend, whatever a PROXY header says. */
  readonly #port: number;
  // Set before anything can be heard of the streams: a Flow needs its transport first.
  #flow!: Flow;
  #phase: Phase = 'dialling';
  /** While dialling, of the attempt under way. */
  #backend: ByteStream | undefined;
  #attempt: Attempt | undefined;
  #tried: ReadonlySet<string> = NONE_EXCLUDED;
  #firstAttemptAtMs = 0;
  /** The header so far, then what the client sent behind it. */
  #early: Buffer | undefined;
  /** A version 2 header with extensions: a backend that is sent version 2 gets it as it came. */
  #extendedHeader: Buffer | undefined;
  #cancelTimer: () => void = nothing;
  #sidesOpen = 2;
  #discarded = 0;
  #failure: FlowEndReason | undefined;

  /** The stream must have been accepted just now. */
  constructor(deps: TcpDeps, client: ByteStream, port: number) {
    this.#deps = deps;
    this.#client = client;
    this.#port = port;
  }

  /** Serves a flow that has been opened with this as its transport. */
  serve(flow: Flow, expectsProxyHeader: boolean): void {
    this.#flow = flow;
    this.#client.handler = this;
    const { proxyProtocol } = flow.rule.frontend;
    if (!expectsProxyHeader || proxyProtocol === undefined) {
      this.#place();
      return;
    }
    this.#phase = 'header';
    this.#setTimer(proxyProtocol.headerTimeoutMs, () => this.#badHeader());
    this.#client.resume();
  }

  close(style: CloseStyle): void {
    if (this.#phase === 'closed') return;
    this.#phase = 'closed';
    this.#cancelTimer();
    this.#attempt = undefined;
    for (const stream of [this.#client, this.#backend]) {
      if (style === 'reset') stream?.reset();
      else stream?.destroy();
    }
  }

  blackhole(): void {
    this.#phase = 'blackholed';
    this.#cancelTimer();
    this.#attempt = undefined;
    this.#backend?.reset();
    this.#backend = undefined;
    this.#client.resume();
  }

  /** A spliced stream cannot be moved; one that is still connecting can. */
  unpin(): void {
    if (this.#phase !== 'dialling') return;
    this.#abandonAttempt();
    this.#place();
  }

  onConnect(stream: ByteStream): void {
    const attempt = this.#attempt;
    if (stream !== this.#backend || attempt === undefined) return;
    if (this.#isConnectedToItself(stream, attempt)) {
      stream.reset();
      this.#attemptFailed('ECONNREFUSED');
    } else this.#splice(stream, attempt);
  }

  onData(stream: ByteStream, chunk: Buffer): void {
    if (this.#phase === 'spliced') this.#forward(stream, chunk);
    else if (this.#phase === 'header') this.#readHeader(chunk);
    else if (this.#phase === 'blackholed') {
      this.#discarded += chunk.length;
      if (this.#discarded >= DISCARD_BYTES) this.#client.pause();
    }
  }

  onEnd(stream: ByteStream): void {
    if (this.#phase === 'header') this.#badHeader();
    if (this.#phase !== 'spliced') return;
    this.#otherOf(stream)?.shutdown();
    this.#deps.manager.halfClosed(this.#flow);
  }

  onDrain(stream: ByteStream): void {
    if (this.#phase === 'spliced') {
      this.#flow.lastActivityMs = this.#deps.manager.clock.monotonicMs();
      this.#otherOf(stream)?.resume();
    } else if (this.#phase === 'flushing') this.#resetSoon();
  }

  /** A side is gone: by RST, or because the kernel gave up on it. What it sent before still goes to the other side. */
  onError(stream: ByteStream, error: Error): void {
    if (this.#phase === 'dialling' && stream === this.#backend) {
      this.#dialFailed(error);
      return;
    }
    if (this.#phase === 'closed' || this.#isFormer(stream)) return;
    const { manager } = this.#deps;
    const reason = endReason(error, stream === this.#client);
    const other = this.#otherOf(stream);
    if (this.#phase !== 'spliced' || other === undefined) {
      manager.end(this.#flow, this.#failure ?? reason, 'reset');
      return;
    }
    this.#phase = 'flushing';
    this.#failure = reason;
    other.pause();
    if (other.waitingBytes === 0) {
      this.#resetSoon();
      return;
    }
    other.notifyDrained();
    this.#setTimer(FLUSH_MS, () => manager.end(this.#flow, reason, 'reset'));
  }

  /** A socket closes by itself when FIN has been received and sent on it; after an error `#failure` is set. */
  onClose(stream: ByteStream): void {
    if (this.#phase === 'closed' || this.#phase === 'flushing' || this.#isFormer(stream)) return;
    if (this.#phase === 'dialling' && stream === this.#backend) return;
    this.#sidesOpen--;
    if (this.#sidesOpen === 0 || this.#phase !== 'spliced')
      this.#deps.manager.end(this.#flow, 'closed', 'gone');
  }

  #readHeader(chunk: Buffer): void {
    const { proxyProtocol } = this.#flow.rule.frontend;
    const bytes = this.#early === undefined ? chunk : Buffer.concat([this.#early, chunk]);
    this.#early = bytes;
    const header = parseProxyHeader(bytes, proxyProtocol?.accept ?? 'any');
    if (header.kind === 'incomplete') return;
    if (header.kind === 'invalid') {
      this.#badHeader();
      return;
    }
    this.#cancelTimer();
    this.#client.pause();
    this.#early = bytes.length > header.length ? bytes.subarray(header.length) : undefined;
    if (header.hasExtensions) this.#extendedHeader = bytes.subarray(0, header.length);
    this.#phase = 'dialling';
    this.#identify(header.identity);
  }

  #identify(identity: ProxyIdentity | undefined): void {
    const { manager } = this.#deps;
    const flow = this.#flow;
    if (identity !== undefined && manager.identify(flow, { protocol: 'tcp', ...identity }) !== undefined) {
      manager.end(flow, 'error', 'reset');
    } else if (!isAdmitted(flow.rule.frontend, flow.tuple.source)) {
      manager.dropped(flow.rule, 'tcp', 'denied');
      manager.end(flow, 'error', 'reset');
    } else this.#place();
  }

  /** Malformed, not there in time, or the stream ended first. */
  #badHeader(): void {
    const { manager } = this.#deps;
    manager.dropped(this.#flow.rule, 'tcp', 'bad-proxy-header');
    manager.end(this.#flow, 'bad-proxy-header', 'reset');
  }

  #place(): void {
    const { manager, picker } = this.#deps;
    const { slot, tuple } = this.#flow;
    const excluded = manager.caps.excluded(this.#tried);
    const pick = picker.pickForRule(manager.state, slot.index, tuple, excluded);
    if (pick.kind === 'none') this.#refuse(pick);
    else this.#dialPicked(pick, excluded);
  }

  #refuse({ cause, action }: NoBackend): void {
    const { manager } = this.#deps;
    const flow = this.#flow;
    if (this.#tried.size > 0) {
      manager.end(flow, 'connect-failed', 'reset');
      return;
    }
    manager.dropped(flow.rule, 'tcp', cause === 'all-excluded' ? 'backends-full' : 'no-backend');
    if (action === 'drop') manager.blackhole(flow);
    else manager.end(flow, 'no-backend', 'reset');
  }

  #dialPicked({ backendId, backendIndex, reason, hash }: Picked, excluded: ReadonlySet<string>): void {
    const { manager, routeSource } = this.#deps;
    const flow = this.#flow;
    const { rule, view } = flow.slot;
    const backend = view?.backends[backendIndex]?.backend;
    if (view === undefined || backend === undefined) throw new RangeError(`No backend "${backendId}"`);
    if (this.#tried.size > 0) manager.retried(flow);
    else if (flow.placement === undefined) this.#firstAttemptAtMs = manager.clock.monotonicMs();
    const endpoint = backendEndpoint(rule, backend, rule.frontend.name, this.#port);
    manager.place(flow, { backendId, endpoint, reason }, excluded);
    const { pool } = rule;
    const sources = sourcesInTurn({ pool, backendId, endpoint }, hash);
    const attempt = { pool, backendId, endpoint, sources, kernelChooses: sources.length === 0, portTries: 0 };
    this.#attempt = attempt;
    this.#setTimer(pool.connectTimeoutMs, () => this.#attemptFailed('connect timeout'));
    if (!attempt.kernelChooses || routeSource.hasPorts(endpoint.address)) this.#dial(attempt);
    else this.#chooseOwnPort(attempt);
  }

  #dial(attempt: Attempt): void {
    if (this.#attempt !== attempt) return;
    if (attempt.kernelChooses) {
      this.#open(attempt, undefined);
      return;
    }
    for (; attempt.portTries < MAX_PORT_TRIES; attempt.sources = attempt.sources.slice(1)) {
      const [source] = attempt.sources;
      if (source === undefined) break;
      const local = this.#takePort(attempt, source);
      if (local === undefined) continue;
      attempt.portTries++;
      this.#open(attempt, local);
      return;
    }
    this.#localFault('ports-exhausted');
  }

  #takePort(attempt: Attempt, source: IpAddress): LocalEnd | undefined {
    const { sourcePorts } = this.#deps;
    const request = portRequest('tcp', source, attempt);
    const port = sourcePorts.take(request);
    if (port === undefined) return undefined;
    return { address: source, port, release: () => sourcePorts.release(request, port) };
  }

  #open({ endpoint }: Attempt, local: LocalEnd | undefined): void {
    const { noDelay, keepAliveMs } = this.#flow.rule.tcp;
    const { address, port } = endpoint;
    this.#backend = this.#deps.sockets.dial({ address, port, local, noDelay, keepAliveMs }, this);
  }

  #dialFailed(error: Error): void {
    const attempt = this.#attempt;
    const code = errorCode(error) ?? errorMessage(error);
    if (attempt === undefined) return;
    if (SHORTAGES.has(code)) this.#localFault('descriptors-exhausted');
    else if (!PORT_FAULTS.has(code)) this.#attemptFailed(code);
    else if (attempt.kernelChooses) {
      this.#deps.routeSource.foundNoPort(attempt.endpoint.address);
      this.#chooseOwnPort(attempt);
    } else {
      // Refused at bind for want of the address, rather than at connect for want of the port: not this machine's.
      const isForeign = code === 'EADDRNOTAVAIL' && 'syscall' in error && error.syscall === 'bind';
      if (isForeign) attempt.sources = attempt.sources.slice(1);
      // After the failed socket's close, which gives its port back.
      setImmediate(() => this.#dial(attempt));
    }
  }

  /** With listeners on every port the kernel finds none for a socket without an address of its own. */
  #chooseOwnPort(attempt: Attempt): void {
    attempt.kernelChooses = false;
    this.#deps.routeSource.sourceFor(attempt.endpoint.address).then(
      (source) => {
        attempt.sources = [source];
        this.#dial(attempt);
      },
      () => {
        if (this.#attempt === attempt) this.#localFault('ports-exhausted');
      },
    );
  }

  /**
   * The kernel may choose the very port that no one listens on, and TCP then connects a socket to itself. Only where it
   * leaves from the backend's own address; asking a socket for its port is a system call that other flows need not pay.
   */
  #isConnectedToItself(stream: ByteStream, { kernelChooses, endpoint }: Attempt): boolean {
    if (!kernelChooses) return false;
    const { address, port } = endpoint;
    const { routeSource } = this.#deps;
    const source = routeSource.known(address);
    // Without an answer the next connection asks its socket.
    if (source === undefined) routeSource.sourceFor(address).catch(nothing);
    else if (source.text !== address.text) return false;
    const local = stream.localEndpoint();
    return local?.port === port && local.address === address.text;
  }

  /** Another backend may do better. `evidence`: `ECONNREFUSED`, `connect timeout`, ... */
  #attemptFailed(evidence: string): void {
    const attempt = this.#attempt;
    if (attempt === undefined) return;
    this.#abandonAttempt();
    const { manager } = this.#deps;
    if (evidence === 'ECONNREFUSED' && manager.refused(this.#flow) === 'answer') {
      manager.end(this.#flow, 'refused', 'reset');
      return;
    }
    const { backendId, pool } = attempt;
    manager.backendFailed(this.#flow.rule, 'tcp', backendId, evidence);
    this.#tried = new Set([...this.#tried, backendId]);
    if (this.#tried.size < pool.connectAttempts) this.#place();
    else manager.end(this.#flow, 'connect-failed', 'reset');
  }

  /** Not the backend's fault, and another backend would meet the same. */
  #localFault(reason: DropReason): void {
    this.#abandonAttempt();
    const { manager } = this.#deps;
    manager.dropped(this.#flow.rule, 'tcp', reason);
    manager.end(this.#flow, 'connect-failed', 'reset');
  }

  #abandonAttempt(): void {
    this.#cancelTimer();
    this.#attempt = undefined;
    this.#backend?.destroy();
    this.#backend = undefined;
  }

  #splice(backend: ByteStream, { pool, backendId }: Attempt): void {
    const { manager, onConnectLatency } = this.#deps;
    const flow = this.#flow;
    this.#cancelTimer();
    this.#cancelTimer = nothing;
    this.#attempt = undefined;
    this.#phase = 'spliced';
    onConnectLatency(backendId, (manager.clock.monotonicMs() - this.#firstAttemptAtMs) / 1000);
    manager.establish(flow);
    manager.answered(flow);
    this.#sendProxyHeader(backend, pool);
    const { noDelay, keepAliveMs } = flow.rule.tcp;
    if (noDelay) this.#client.setNoDelay();
    if (keepAliveMs !== undefined) this.#client.setKeepAlive(keepAliveMs);
    this.#client.resume();
    backend.resume();
    if (this.#early !== undefined) this.#forward(this.#client, this.#early);
    this.#early = undefined;
  }

  #sendProxyHeader(backend: ByteStream, { proxyProtocol }: BackendPool): void {
    if (proxyProtocol === 'none') return;
    const asItCame = proxyProtocol === 'v2' ? this.#extendedHeader : undefined;
    backend.write(asItCame ?? writeProxyHeader(proxyProtocol, this.#flow.tuple));
    this.#extendedHeader = undefined;
  }

  #forward(from: ByteStream, chunk: Buffer): void {
    const flow = this.#flow;
    let to: ByteStream | undefined;
    if (from === this.#client) {
      to = this.#backend;
      flow.bytesToBackend += chunk.length;
      flow.packetsToBackend++;
    } else {
      to = this.#client;
      flow.bytesToClient += chunk.length;
      flow.packetsToClient++;
    }
    flow.lastActivityMs = this.#deps.manager.clock.monotonicMs();
    if (to?.write(chunk) === false) from.pause();
  }

  #resetSoon(): void {
    const reason = this.#failure ?? 'error';
    this.#setTimer(KERNEL_MS, () => this.#deps.manager.end(this.#flow, reason, 'reset'));
  }

  #setTimer(delayMs: number, callback: () => void): void {
    this.#cancelTimer();
    this.#cancelTimer = this.#deps.manager.clock.setTimer(delayMs, callback);
  }

  #otherOf(stream: ByteStream): ByteStream | undefined {
    return stream === this.#client ? this.#backend : this.#client;
  }

  /** Whether this is a stream to a backend that was given up. */
  #isFormer(stream: ByteStream): boolean {
    return stream !== this.#client && stream !== this.#backend;
  }
}

function endReason(error: Error, isClient: boolean): FlowEndReason {
  if (!RESET_CODES.has(errorCode(error))) return 'error';
  return isClient ? 'client-reset' : 'backend-reset';
}

function nothing(): void {
  // There is nothing to undo, or to say.
}
