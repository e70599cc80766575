import type { Socket } from 'node:net';

/** Ends a connection with RST. One that is still connecting is dropped; one that is gone is left alone. */
export function resetSocket(socket: Socket): void {
  if (socket.destroyed) return;
  if (socket.connecting) {
    socket.destroy();
    return;
  }
  // Until shutdown() is over, its callback included, libuv refuses to reset (uv_tcp_close_reset, EINVAL), and Node then
  // loses the handle: the connection would stay for ever. It takes a turn of the event loop.
  const shuttingDown = socket.writableEnded && !socket.writableFinished && socket.writableLength === 0;
  if (shuttingDown) socket.once('finish', () => setImmediate(resetSocket, socket));
  else socket.resetAndDestroy();
}
