import { connect } from 'node:net';
import type { IpAddress } from '../model/address.js';
import { errorCode } from '../model/errors.js';

export interface KnockTarget {
  readonly to: IpAddress;
  readonly port: number;
  readonly fromPort?: number;
  readonly fromAddress?: IpAddress;
}

/**
 * Tries a TCP connection and resets it at once, which leaves nothing behind on either side.
 *
 * @returns `connected`, `refused`, another error's code, or `silence` when the time is up. Never rejects.
 */
export function knock({ to, port, fromPort, fromAddress }: KnockTarget, timeoutMs: number): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({
      ...{ host: to.text, port },
      ...(fromPort === undefined ? {} : { localPort: fromPort }),
      ...(fromAddress === undefined ? {} : { localAddress: fromAddress.text }),
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
