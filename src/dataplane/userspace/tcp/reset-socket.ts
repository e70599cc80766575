import type { Socket } from 'node:net';

/** Ends a connection with RST. One that is still connecting is dropped; one that is gone is left alone. */
export function resetSocket(socket: Socket): void {
  if (socket.destroyed) return;
  if (socket.connecting) {
    socket.destroy();
    return;
  }
  // While shutdown() waits for its turn in the event loop, libuv refuses to reset (uv_tcp_close_reset, EINVAL) and
  // Node would then lose the handle. It is done before the next turn ends.
  const shuttingDown = socket.writableEnded && !socket.writableFinished && socket.writableLength === 0;
  if (shuttingDown) socket.once('finish', () => resetSocket(socket));
  else socket.resetAndDestroy();
}
