import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import type { TestContext } from 'node:test';

/** How a connection looked from the backend's side once it was over. */
export interface Seen {
  readonly received: Buffer;
  readonly remoteAddress: string | undefined;
  /** `fin`: the probe closed in order; else the error's code (`ECONNRESET`). */
  readonly end: string;
}

export interface Loopback {
  readonly port: number;
  /** One entry a finished connection, in order of their ends. */
  readonly seen: readonly Seen[];
  /** Resolves when this many connections are over. */
  over(count: number): Promise<readonly Seen[]>;
  /** Connections still open. */
  open(): number;
}

/** Listens on a free loopback port until the test ends. `serve` gets every connection and may ignore it. */
export async function listen(
  t: TestContext,
  serve: (socket: Socket) => unknown,
  address = '127.0.0.1',
): Promise<Loopback> {
  const seen: Seen[] = [];
  const sockets = new Set<Socket>();
  const waiting: (() => void)[] = [];
  const server = createServer({ allowHalfOpen: false }, (socket) => {
    const chunks: Buffer[] = [];
    let end = 'closed without a FIN';
    sockets.add(socket);
    const { remoteAddress } = socket;
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.on('end', () => (end = 'fin'));
    socket.on('error', (error) => (end = 'code' in error ? String(error.code) : error.message));
    socket.on('close', () => {
      sockets.delete(socket);
      seen.push({ received: Buffer.concat(chunks), remoteAddress, end });
      for (const wake of waiting.splice(0)) wake();
    });
    serve(socket);
  });
  const port = await bind(server, address);
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return {
    port,
    seen,
    open: () => sockets.size,
    async over(count) {
      while (seen.length < count) await new Promise<void>((resolve) => waiting.push(resolve));
      return seen;
    },
  };
}

/** Listens on a free port and returns it. */
export async function bind(server: Server, address = '127.0.0.1'): Promise<number> {
  server.listen(0, address);
  await once(server, 'listening');
  const bound = server.address();
  if (bound === null || typeof bound === 'string') throw new Error('Not bound to a port');
  return bound.port;
}

/** A port where nobody listens. */
export async function closedPort(): Promise<number> {
  const server = createServer();
  const port = await bind(server);
  server.close();
  await once(server, 'close');
  return port;
}
