import { request, type IncomingMessage } from 'node:http';
import { connect, isIP, type Socket } from 'node:net';
import { addAbortSignal, type Duplex } from 'node:stream';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import type { ConnectTarget, IpAddress } from '../model/address.js';
import type { HttpProbe, LocalCause, Probe, ProbeResult } from '../model/configuration.js';
import { formatDuration } from '../model/duration.js';
import { errorCode, errorMessage } from '../model/errors.js';
import type { Clock } from '../runtime/clock.js';
import { fromAnyAddress } from '../runtime/machine.js';

/** A result whose duration is not known yet. */
type Verdict = Omit<ProbeResult, 'durationMs'>;

/**
 * Errors that say what this machine lacks or forbids, and nothing about the backend. A bind that fails with EADDRNOTAVAIL
 * is another matter than a connect that does: see causeOf.
 */
const LOCAL_CAUSES: Readonly<Record<string, readonly [LocalCause, evidence: string]>> = {
  EMFILE: ['descriptors', 'this process is out of file descriptors'],
  ENFILE: ['descriptors', 'this machine is out of file descriptors'],
  ENOBUFS: ['memory', 'no socket memory'],
  ENOMEM: ['memory', 'no memory'],
  // With every local port bound, a connect without an address of its own finds no port.
  EADDRNOTAVAIL: ['ports', 'no free local port; set sourceAddress'],
  EADDRINUSE: ['ports', 'no free local port at the source address'],
  EACCES: ['forbidden', 'forbidden by this machine'],
  EPERM: ['forbidden', 'forbidden by this machine'],
};

const FOREIGN_SOURCE: readonly [LocalCause, evidence: string] = [
  'source-address',
  'not an address of this machine; set another sourceAddress',
];

/**
 * Errors of this machine on the way to the backend. They count: flows take the same way, so they do not reach the backend
 * either, and another one may be reached by another interface.
 */
const NO_WAY: Readonly<Record<string, string>> = {
  ENETUNREACH: 'no route to the backend',
  ENETDOWN: 'the network interface is down',
  EINVAL: 'source address and backend do not fit together',
  EAFNOSUPPORT: 'this machine lacks the address family',
};

/** Nothing (useful) came before the timeout. */
export function noAnswer(probe: Probe): Verdict {
  return {
    verdict: 'failure',
    answer: 'silence',
    evidence: `no answer in ${formatDuration(probe.timeoutMs)}`,
  };
}

/** The backend answered, and the answer is bad. */
function badAnswer(evidence: string): Verdict {
  return { verdict: 'failure', answer: 'explicit', evidence };
}

/**
 * The verdict of a probe that ended in an error. A refused connection is an explicit answer to a TCP probe; to an
 * HTTP probe it is silence, as is a reset one: Azure lets only an HTTP status change the state at once.
 */
export function failed(error: unknown, probe: Probe): Verdict {
  const code = errorCode(error);
  if (code === undefined) return { verdict: 'failure', answer: 'silence', evidence: errorMessage(error) };
  const [inconclusive, localProblem] = causeOf(code, error) ?? [undefined, NO_WAY[code]];
  if (localProblem !== undefined) {
    const evidence = `${code} (local problem: ${localProblem})`;
    const verdict: Verdict = { verdict: 'failure', answer: 'silence', evidence };
    return inconclusive === undefined ? verdict : { ...verdict, inconclusive };
  }
  const answer = code === 'ECONNREFUSED' && probe.protocol === 'tcp' ? 'explicit' : 'silence';
  return { verdict: 'failure', answer, evidence: code };
}

/** What keeps the probe on this machine, if that is what the error says. */
function causeOf(code: string, error: unknown): readonly [LocalCause, evidence: string] | undefined {
  return code === 'EADDRNOTAVAIL' && isFrom('bind', error) ? FOREIGN_SOURCE : LOCAL_CAUSES[code];
}

/** Whether a system call failed with it: this one, or any. */
function isFrom(syscall: 'bind' | 'any', error: unknown): boolean {
  if (!(error instanceof Error) || !('syscall' in error)) return false;
  return syscall === 'any' || error.syscall === syscall;
}

/** Asks one backend once. */
export interface ProbeRunner {
  /**
   * Never rejects: whatever goes wrong is a result with evidence. The timeout is the caller's: when `signal` aborts,
   * every socket is destroyed and the promise resolves soon after. Sockets never outlive the promise.
   */
  run(probe: Probe, address: IpAddress, signal: AbortSignal): Promise<ProbeResult>;
}

/**
 * Probes over real sockets, each on a connection of its own that is opened in full and closed in full (Azure: three-way
 * open, four-way close). A TCP probe sends no data but a PROXY header, and a backend that completes the handshake is up,
 * whatever it does then. An HTTP probe is one GET: redirects are not followed, a redirect is a status like any other. The
 * status decides, then the body if one is expected. Bytes that are no HTTP, and a TLS handshake that fails, are explicit
 * answers; a connection refused, reset or closed before a status came is silence.
 */
export function createProbeRunner(deps: { readonly clock: Clock }): ProbeRunner {
  const { clock } = deps;
  return {
    async run(probe, address, signal) {
      const startedMs = clock.monotonicMs();
      const timed = (verdict: Verdict): ProbeResult => ({
        ...verdict,
        durationMs: clock.monotonicMs() - startedMs,
      });
      let stream: Duplex | undefined;
      try {
        const socket = await openProbeSocket(probe, address, signal);
        stream = socket;
        if (probe.protocol === 'https') {
          const opened = await openTls(socket, probe, address, signal);
          if ('verdict' in opened) return timed(signal.aborted ? noAnswer(probe) : opened);
          stream = opened;
        }
        const verdict =
          probe.protocol === 'tcp' ? connected('connected') : await exchange(stream, probe, address, signal);
        const result = timed(verdict);
        await closeGently(stream, signal, clock);
        return result;
      } catch (error) {
        if (signal.aborted) return timed(noAnswer(probe));
        const isOpened = probe.protocol === 'tcp' && resetAfterHandshake(error);
        return timed(isOpened ? connected('connected, then reset') : failed(error, probe));
      } finally {
        stream?.destroy();
      }
    },
  };
}

function connected(evidence: string): Verdict {
  return { verdict: 'success', answer: 'explicit', evidence };
}

/**
 * Whether the connection was open before it was reset. Linux says ECONNREFUSED only of a RST that answers the SYN
 * (net/ipv4/tcp_input.c, tcp_reset). Whether we get to see the open socket first is chance and must not decide.
 */
function resetAfterHandshake(error: unknown): boolean {
  const code = errorCode(error);
  return code === 'ECONNRESET' || code === 'EPIPE';
}

/** How long a probe that has its verdict waits for the other side to close too, so that it sees FIN and not RST. */
const CLOSE_GRACE_MS = 250;

/**
 * Opens the probe's TCP connection and sends its PROXY header. Rejects with the system's error. The socket is the
 * caller's; an abort of `signal` destroys it at any time.
 */
async function openProbeSocket(probe: Probe, address: IpAddress, signal: AbortSignal): Promise<Socket> {
  const from = (source: IpAddress | undefined) => connectFrom(source, probe, address, signal);
  const { sourceAddress } = probe;
  const socket = await (sourceAddress === undefined
    ? fromAnyAddress(() => address, from)
    : from(sourceAddress));
  if (isSelfConnected(socket)) {
    socket.destroy();
    // What a kernel says that does not fall for it.
    throw Object.assign(new Error('connected to itself'), { code: 'ECONNREFUSED' });
  }
  const header = probeProxyHeader(probe);
  if (header.length > 0) socket.write(header);
  return socket;
}

async function connectFrom(
  source: IpAddress | undefined,
  probe: Probe,
  address: IpAddress,
  signal: AbortSignal,
): Promise<Socket> {
  const socket = connect({
    host: address.text,
    port: probe.port,
    family: address.family,
    autoSelectFamily: false,
    allowHalfOpen: true,
    noDelay: true,
    localAddress: source?.text,
  });
  addAbortSignal(signal, socket);
  await settled(socket, 'connect');
  return socket;
}

/** Resolves at the event; rejects if the stream fails or closes first. */
function settled(stream: Duplex, event: string): Promise<void> {
  return new Promise((resolve, reject) => {
    // Stays on after the promise is settled: an error event without a listener ends the process.
    stream.on('error', reject);
    stream.once('close', () => reject(new Error('closed without an answer')));
    stream.once(event, resolve);
  });
}

/**
 * Sends FIN, reads away what still comes and waits for the other side's FIN, at most a quarter of a second; then
 * destroys. Data left unread at the close would make the kernel send RST.
 */
async function closeGently(stream: Duplex, signal: AbortSignal, clock: Clock): Promise<void> {
  if (!stream.destroyed && !signal.aborted) {
    await new Promise<void>((resolve) => {
      const cancelTimer = clock.setTimer(CLOSE_GRACE_MS, resolve);
      const done = () => {
        cancelTimer();
        resolve();
      };
      stream.once('error', done);
      stream.once('end', done);
      stream.once('close', done);
      stream.resume();
      stream.end();
    });
  }
  stream.destroy();
}

/**
 * A connect to a local port within the ephemeral range without a listener may be given that very port as its own:
 * TCP's simultaneous open (RFC 9293, 3.5) then joins the socket to itself, and a dead service looks alive.
 */
export function isSelfConnected(
  socket: Pick<Socket, 'localAddress' | 'localPort' | 'remoteAddress' | 'remotePort'>,
): boolean {
  return socket.localPort === socket.remotePort && socket.localAddress === socket.remoteAddress;
}

/**
 * TLS over a probe's connection, no client certificate. The certificate must be of the server name, or of the
 * backend's address where there is none, unless `skipVerify`. Returns the verdict if the handshake fails.
 */
async function openTls(
  socket: Socket,
  probe: HttpProbe,
  address: IpAddress,
  signal: AbortSignal,
): Promise<TLSSocket | Verdict> {
  const stream = connectTls({
    socket,
    // Not dialled: the name the certificate is checked against if there is no servername.
    host: address.text.split('%')[0] ?? '',
    rejectUnauthorized: !probe.skipVerify,
    ALPNProtocols: ['http/1.1'],
    servername: tlsServerName(probe),
    ca: probe.ca,
  });
  addAbortSignal(signal, stream);
  try {
    await settled(stream, 'secureConnect');
    return stream;
  } catch (error) {
    stream.destroy();
    return handshakeFailed(error, probe);
  }
}

/** The verdict of a TLS handshake that ended in an error: of no answer if it was cut off or the system failed. */
export function handshakeFailed(error: unknown, probe: HttpProbe): Verdict {
  const code = errorCode(error);
  if (code === undefined && errorMessage(error) === 'closed without an answer') return failed(error, probe);
  if (code === 'ECONNRESET' || code === 'EPIPE' || isFrom('any', error)) return failed(error, probe);
  return badAnswer(`TLS ${code ?? errorMessage(error)}`);
}

/** The server name to send (RFC 6066, section 3: never an address): the probe's, or its host where that is a name. */
export function tlsServerName(probe: HttpProbe): string | undefined {
  if (probe.serverName !== undefined) return probe.serverName;
  const { host = '' } = probe;
  const name = isIP(host) === 0 ? host.replace(/:\d+$/, '') : '';
  return name === '' || name.startsWith('[') || isIP(name) !== 0 ? undefined : name;
}

/** Sends the request and waits until the verdict is certain, which may be before the body ends. */
function exchange(
  stream: Duplex,
  probe: HttpProbe,
  address: IpAddress,
  signal: AbortSignal,
): Promise<Verdict> {
  return new Promise((resolve) => {
    let answered = false;
    const answer = (response: IncomingMessage) => {
      answered = true;
      response.on('error', () => undefined);
      const verdict = judgeHead(response, probe);
      if (verdict.verdict === 'failure' || probe.expectBody === undefined) resolve(verdict);
      else judgeBody(response, probe, probe.expectBody, signal, verdict, resolve);
      response.resume();
    };
    const get = request({
      // Made by us, so that address, Host header and server name can differ and a PROXY header can go first.
      createConnection: () => stream,
      method: 'GET',
      path: probe.path,
      setHost: false,
      headers: {
        Host: probe.host ?? defaultHost(probe, address),
        'User-Agent': 'haports-probe',
        Accept: '*/*',
        Connection: 'close',
      },
    });
    get.on('response', answer);
    get.on('upgrade', answer);
    get.on('error', (error) => resolve(signal.aborted ? noAnswer(probe) : judgeError(error, probe)));
    // Comes before the rest of a buffered body does: no verdict on a response.
    get.on('close', () => {
      if (!answered) resolve(noAnswer(probe));
    });
    get.end();
  });
}

function judgeHead(response: IncomingMessage, probe: HttpProbe): Verdict {
  const status = response.statusCode ?? 0;
  const evidence = `HTTP ${status}`;
  if (!probe.expectStatus.some(({ first, last }) => first <= status && status <= last)) {
    return badAnswer(evidence);
  }
  return { verdict: 'success', answer: 'explicit', evidence, weight: weightFrom(response, probe) };
}

function judgeBody(
  response: IncomingMessage,
  probe: HttpProbe,
  expected: string,
  signal: AbortSignal,
  success: Verdict,
  resolve: (verdict: Verdict) => void,
): void {
  const search = new BodySearch(expected);
  const lacking = badAnswer(`body lacks ${JSON.stringify(expected)}`);
  response.on('data', (chunk: Buffer) => {
    const outcome = search.add(chunk);
    if (outcome === 'found') resolve(success);
    if (outcome === 'absent') resolve(lacking);
  });
  response.on('end', () => resolve(search.found ? success : lacking));
  response.on('close', () => {
    const evidence = signal.aborted ? noAnswer(probe).evidence : 'closed before the end of the body';
    resolve({ verdict: 'failure', answer: 'silence', evidence });
  });
}

function judgeError(error: unknown, probe: HttpProbe): Verdict {
  const code = errorCode(error);
  if (code?.startsWith('HPE_') === true) return badAnswer(`not HTTP (${code})`);
  if (code === 'ECONNRESET' && error instanceof Error && error.message === 'socket hang up') {
    return { verdict: 'failure', answer: 'silence', evidence: 'closed without an answer' };
  }
  return failed(error, probe);
}

function weightFrom(response: IncomingMessage, probe: HttpProbe): number | undefined {
  if (probe.weightFromProbeHeader === undefined) return undefined;
  const text = response.headers[probe.weightFromProbeHeader.toLowerCase()];
  if (typeof text !== 'string' || !/^\d{1,3}$/.test(text)) return undefined;
  const weight = Number(text);
  return weight <= 256 ? weight : undefined;
}

/** A zone means something on this machine only and is not sent (RFC 6874, section 4). */
function defaultHost(probe: HttpProbe, address: IpAddress): string {
  const [literal = ''] = address.text.split('%');
  const host = address.family === 6 ? `[${literal}]` : literal;
  const standardPort = probe.protocol === 'http' ? 80 : 443;
  return probe.port === standardPort ? host : `${host}:${probe.port}`;
}

/** A probe looks at no more of a body than this. */
export const BODY_LIMIT_BYTES = 64 * 1024;

/** Looks for a text (as UTF-8) in the first 64 KiB of a body that comes in pieces of any size. */
export class BodySearch {
  readonly #expected: Buffer;
  readonly #seen = Buffer.allocUnsafe(BODY_LIMIT_BYTES);
  #length = 0;
  #found: boolean;

  constructor(expected: string) {
    this.#expected = Buffer.from(expected, 'utf8');
    this.#found = this.#expected.length === 0;
  }

  get found(): boolean {
    return this.#found;
  }

  /** Takes the next piece. `absent`: the limit is reached without a match. */
  add(chunk: Uint8Array): 'found' | 'absent' | 'more' {
    if (this.#found) return 'found';
    const taken = chunk.subarray(0, BODY_LIMIT_BYTES - this.#length);
    // A match that ends in this piece may begin before it; all earlier starts have been ruled out.
    const from = Math.max(0, this.#length - this.#expected.length + 1);
    this.#seen.set(taken, this.#length);
    this.#length += taken.length;
    this.#found = this.#seen.subarray(from, this.#length).includes(this.#expected);
    if (this.#found) return 'found';
    return this.#length === BODY_LIMIT_BYTES ? 'absent' : 'more';
  }
}

/** Source: PROXY protocol (haproxy.org/download/3.0/doc/proxy-protocol.txt), section 2.1, "UNKNOWN". */
const V1_UNKNOWN = Buffer.from('PROXY UNKNOWN\r\n', 'latin1');

/** Section 2.2: the signature, then version 2 with command LOCAL, family UNSPEC, no addresses. */
const V2_LOCAL = Buffer.from([
  0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x20, 0x00, 0x00, 0x00,
]);

/** What a probe sends first: a header that says "from the balancer itself". Empty for `none`. */
function probeProxyHeader(probe: Probe): Uint8Array {
  if (probe.sendProxy === 'none') return new Uint8Array(0);
  return probe.sendProxy === 'v1' ? V1_UNKNOWN : V2_LOCAL;
}

/**
 * Tries a TCP connection and resets it at once, which leaves nothing behind on either side.
 *
 * @returns `connected`, `refused`, another error's code, or `silence` when the time is up. Never rejects.
 */
export function connectOnce(
  { to, port, fromPort, fromAddress }: ConnectTarget,
  timeoutMs: number,
): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({
      ...{ host: to.text, port },
      ...{ localPort: fromPort, localAddress: fromAddress?.text },
    });
    const end = (answer: string): void => {
      clearTimeout(timer);
      // Of a connection that is being opened it would wait for the end of that.
      if (socket.connecting) socket.destroy();
      else socket.resetAndDestroy();
      resolve(answer);
    };
    const timer = setTimeout(end, timeoutMs, 'silence');
    socket.once('connect', () => end('connected'));
    socket.on('error', (error) => {
      const code = errorCode(error) ?? 'error';
      end(code === 'ECONNREFUSED' ? 'refused' : code);
    });
  });
}
