import { request, type IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import type { IpAddress } from '../model/address.js';
import { errorCode } from '../model/errors.js';
import type { HttpProbe, ProbeResult } from '../model/probe.js';
import type { Clock } from '../runtime/clock.js';
import { badAnswer, failed, noAnswer, type Verdict } from './evidence.js';
import { BodySearch } from './body-search.js';
import { closeGently, openProbeSocket } from './probe-socket.js';
import { openTls } from './tls-socket.js';

/**
 * One GET over a connection of its own. Redirects are not followed: a redirect is a status like any other. The
 * status decides, then the body if one is expected. Bytes that are no HTTP, and a TLS handshake that fails, are
 * explicit answers; a connection refused, reset or closed before a status came is silence.
 */
export async function probeHttp(
  probe: HttpProbe,
  address: IpAddress,
  signal: AbortSignal,
  clock: Clock,
): Promise<ProbeResult> {
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
    const result = timed(await exchange(stream, probe, address, signal));
    await closeGently(stream, signal, clock);
    return result;
  } catch (error) {
    return timed(signal.aborted ? noAnswer(probe) : failed(error, probe));
  } finally {
    stream?.destroy();
  }
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
  const weight = weightFrom(response, probe);
  return { verdict: 'success', answer: 'explicit', evidence, ...(weight === undefined ? {} : { weight }) };
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
