import type { Socket } from 'node:net';

/** Ends a connection with RST. One that is still connecting is dropped; one that is gone is left alone. */
export function resetSocket(socket: Socket): void {
  if (socket.destroyed) return;
  if (socket.connecting) {
    socket.destroy();
    return;
  }
  // While shutdown() waits for its turn in the event loop libuv refuses to reset (uv_tcp_close_reset, EINVAL), and Node
  // then loses the handle: the connection would stay for ever.
  const shuttingDown = socket.writableEnded && !socket.writableFinished && socket.writableLength === 0;
  if (shuttingDown) socket.once('finish', () => resetSocket(socket));
  else socket.resetAndDestroy();
}
