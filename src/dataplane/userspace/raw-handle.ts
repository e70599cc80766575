import type { Socket } from 'node:dgram';
import type { Server } from 'node:net';

/** What haports uses of the objects that Node keeps under its sockets (lib/internal, stable since Node 10). */
interface RawUdp {
  recvStart(): number;
  recvStop(): number;
}

/** The object under a listening server, which may be sent to another process; undefined where it is not listening. */
export function rawTcp(server: Server): object | undefined {
  const { _handle: handle } = server as Server & { readonly _handle?: object | null };
  return handle ?? undefined;
}

/**
 * The object under a bound socket. `socket._handle` would be the same, and tells of its deprecation on stderr (DEP0112);
 * sending the socket itself would have the receiving process read from it at once.
 */
export function rawUdp(socket: Socket): (RawUdp & object) | undefined {
  const symbol = Object.getOwnPropertySymbols(socket).find(
    ({ description }) => description === 'state symbol',
  );
  if (symbol === undefined) return undefined;
  const { handle } = (socket as unknown as Record<symbol, { readonly handle?: unknown }>)[symbol] ?? {};
  return isRawUdp(handle) ? handle : undefined;
}

/**
 * Listens on what came from another process. In a cluster worker `server.listen(handle)` would ask the cluster for a
 * socket instead; this is what it does everywhere else (lib/net.js: `_listen2`, which servers have had since Node 0.x).
 */
export function listenRaw(server: Server, handle: unknown, backlog: number): void {
  const raw = server as unknown as {
    _handle: unknown;
    _listen2(address: null, port: number, addressType: number, backlog: number): void;
  };
  raw._handle = handle;
  raw._listen2(null, -1, -1, backlog);
}

/**
 * Listens on a descriptor of this process, which is closed with the server. `server.listen({ fd })` would ask the cluster
 * for it in a cluster worker, whatever `exclusive` says (lib/net.js); see listenRaw.
 */
export function listenDescriptor(server: Server, descriptor: number, backlog: number): void {
  const raw = server as unknown as {
    _listen2(address: null, port: null, addressType: null, backlog: number, fd: number): void;
  };
  raw._listen2(null, null, null, backlog, descriptor);
}

/** Binds a socket to what came from another process: it reads from now on. The system's error where that failed. */
export function bindRaw(socket: Socket, handle: unknown): NodeJS.ErrnoException | undefined {
  let failure: NodeJS.ErrnoException | undefined;
  const onError = (error: Error): void => {
    failure = error;
  };
  socket.on('error', onError);
  // Node takes a handle here (lib/dgram.js: `recvStart` is what it looks for); the types do not say so.
  (socket.bind as (handle: unknown) => void).call(socket, handle);
  socket.off('error', onError);
  return failure;
}

function isRawUdp(handle: unknown): handle is RawUdp & object {
  return typeof handle === 'object' && handle !== null && 'recvStart' in handle && 'recvStop' in handle;
}
