import { connect, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { IpAddress } from '../model/address.js';
import { errorCode } from '../model/errors.js';
import type { Probe } from '../model/probe.js';
import type { Clock } from '../runtime/clock.js';
import { localCandidates } from '../runtime/local-candidates.js';
import { probeProxyHeader } from './proxy-header.js';

/** How long a probe that has its verdict waits for the other side to close too, so that it sees FIN and not RST. */
const CLOSE_GRACE_MS = 250;

/**
 * Opens the probe's TCP connection and sends its PROXY header. Rejects with the system's error. The socket is the
 * caller's; an abort of `signal` destroys it at any time.
 */
export async function openProbeSocket(
  probe: Probe,
  address: IpAddress,
  signal: AbortSignal,
): Promise<Socket> {
  const socket = await connectFromAnywhere(probe, address, signal);
  if (isSelfConnected(socket)) {
    socket.destroy();
    // What a kernel says that does not fall for it.
    throw Object.assign(new Error('connected to itself'), { code: 'ECONNREFUSED' });
  }
  const header = probeProxyHeader(probe);
  if (header.length > 0) socket.write(header);
  return socket;
}

/**
 * With a listener on every port the kernel finds none for a socket without an address (EADDRNOTAVAIL), but does for one
 * that has an address of which not every port is listened on.
 */
async function connectFromAnywhere(probe: Probe, address: IpAddress, signal: AbortSignal): Promise<Socket> {
  try {
    return await connectFrom(probe.sourceAddress, probe, address, signal);
  } catch (error) {
    if (probe.sourceAddress !== undefined || !isPortShortage(error)) throw error;
    for (const candidate of localCandidates(address)) {
      try {
        return await connectFrom(candidate, probe, address, signal);
      } catch (failure) {
        // That address has no port either: a fully bound frontend's.
        if (!isPortShortage(failure)) throw failure;
      }
    }
    throw error;
  }
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
    ...(source === undefined ? {} : { localAddress: source.text }),
  });
  destroyOnAbort(socket, signal);
  await settled(socket, 'connect');
  return socket;
}

function isPortShortage(error: unknown): boolean {
  const code = errorCode(error);
  return code === 'EADDRNOTAVAIL' || code === 'EADDRINUSE';
}

/** Resolves at the event; rejects if the stream fails or closes first. */
export function settled(stream: Duplex, event: string): Promise<void> {
  return new Promise((resolve, reject) => {
    // Stays on after the promise is settled: an error event nobody listens for ends the process.
    stream.on('error', reject);
    stream.once('close', () => reject(new Error('closed without an answer')));
    stream.once(event, resolve);
  });
}

/** Destroys the stream when the signal aborts, at once if it has already. */
export function destroyOnAbort(stream: Duplex, signal: AbortSignal): void {
  const destroy = () => stream.destroy();
  if (signal.aborted) {
    destroy();
    return;
  }
  signal.addEventListener('abort', destroy, { once: true });
  stream.once('close', () => signal.removeEventListener('abort', destroy));
}

/**
 * Sends FIN, reads away what still comes and waits for the other side's FIN, at most a quarter of a second; then
 * destroys. Data left unread at the close would make the kernel send RST.
 */
export async function closeGently(stream: Duplex, signal: AbortSignal, clock: Clock): Promise<void> {
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
 * A connect to a local port within the ephemeral range where nobody listens may be given that very port as its own:
 * TCP's simultaneous open (RFC 9293, 3.5) then joins the socket to itself, and a dead service looks alive.
 */
export function isSelfConnected(
  socket: Pick<Socket, 'localAddress' | 'localPort' | 'remoteAddress' | 'remotePort'>,
): boolean {
  return socket.localPort === socket.remotePort && socket.localAddress === socket.remoteAddress;
}
