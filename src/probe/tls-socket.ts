import { isIP, type Socket } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import type { IpAddress } from '../model/address.js';
import { errorCode, errorMessage } from '../model/errors.js';
import type { HttpProbe } from '../model/probe.js';
import { badAnswer, failed, type Verdict } from './evidence.js';
import { destroyOnAbort, settled } from './probe-socket.js';

/**
 * TLS over a probe's connection, no client certificate. The certificate must be of the server name, or of the
 * backend's address where there is none, unless `skipVerify`. Returns the verdict if the handshake fails.
 */
export async function openTls(
  socket: Socket,
  probe: HttpProbe,
  address: IpAddress,
  signal: AbortSignal,
): Promise<TLSSocket | Verdict> {
  const servername = tlsServerName(probe);
  const stream = connect({
    socket,
    // Not dialled: the name the certificate is checked against if there is no servername.
    host: address.text.split('%')[0] ?? '',
    rejectUnauthorized: !probe.skipVerify,
    ALPNProtocols: ['http/1.1'],
    ...(servername === undefined ? {} : { servername }),
    ...(probe.ca === undefined ? {} : { ca: probe.ca }),
  });
  destroyOnAbort(stream, signal);
  try {
    await settled(stream, 'secureConnect');
    return stream;
  } catch (error) {
    stream.destroy();
    const code = errorCode(error);
    // Refused or cut off in mid-handshake: nobody answered. All other errors are about what was answered.
    if (code === undefined && errorMessage(error) === 'closed without an answer') return failed(error, probe);
    if (code === 'ECONNRESET' || code === 'EPIPE') return failed(error, probe);
    return badAnswer(`TLS ${code ?? errorMessage(error)}`);
  }
}

/** The server name to send (RFC 6066, section 3: never an address): the probe's, or its host where that is a name. */
export function tlsServerName(probe: HttpProbe): string | undefined {
  if (probe.serverName !== undefined) return probe.serverName;
  const { host = '' } = probe;
  const name = isIP(host) === 0 ? host.replace(/:\d+$/, '') : '';
  return name === '' || name.startsWith('[') || isIP(name) !== 0 ? undefined : name;
}
