import { createServer } from 'node:net';
import { errorCode, errorMessage } from '../../../model/errors.js';

/**
 * Whether this process could listen on a TCP port: undefined, or why not (`EADDRINUSE`, `EACCES` ...). It listens for
 * less than a turn of the event loop and accepts nobody: a client in that moment is refused as it was before.
 */
export function tryTcpPort(address: string, port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error) => resolve(errorCode(error) ?? errorMessage(error)));
    server.once('listening', () => server.close(() => resolve(undefined)));
    server.listen({ host: address, port, backlog: 1, ipv6Only: true });
  });
}
