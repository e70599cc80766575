import type { IpAddress } from '../model/address.js';
import { errorCode } from '../model/errors.js';
import type { ProbeResult, TcpProbe } from '../model/probe.js';
import type { Clock } from '../runtime/clock.js';
import { failed, noAnswer } from './evidence.js';
import { closeGently, openProbeSocket } from './probe-socket.js';

/**
 * Opens a connection in full and closes it in full (Azure: three-way open, four-way close). Sends no data but a PROXY
 * header. A backend that completes the handshake is up, whatever it does then.
 */
export async function probeTcp(
  probe: TcpProbe,
  address: IpAddress,
  signal: AbortSignal,
  clock: Clock,
): Promise<ProbeResult> {
  const startedMs = clock.monotonicMs();
  try {
    const socket = await openProbeSocket(probe, address, signal);
    const durationMs = clock.monotonicMs() - startedMs;
    await closeGently(socket, signal, clock);
    return { verdict: 'success', answer: 'explicit', evidence: 'connected', durationMs };
  } catch (error) {
    const durationMs = clock.monotonicMs() - startedMs;
    if (signal.aborted) return { ...noAnswer(probe), durationMs };
    if (resetAfterHandshake(error)) {
      return { verdict: 'success', answer: 'explicit', evidence: 'connected, then reset', durationMs };
    }
    return { ...failed(error, probe), durationMs };
  }
}

/**
 * Whether the connection was open before it was reset. Linux says ECONNREFUSED only of a RST that answers the SYN
 * (net/ipv4/tcp_input.c, tcp_reset). Whether we get to see the open socket first is chance and must not decide.
 */
function resetAfterHandshake(error: unknown): boolean {
  const code = errorCode(error);
  return code === 'ECONNRESET' || code === 'EPIPE';
}
