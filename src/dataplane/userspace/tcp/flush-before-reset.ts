import type { Socket } from 'node:net';
import type { Clock } from '../../../runtime/clock.js';

/** How long what the other side sent before its RST may take to leave this process. */
const FLUSH_MS = 2_000;

/** Once it has left: a moment in which the kernel can send it, for a reset throws away what it still holds. */
const KERNEL_MS = 20;

/**
 * Waits until what was written to a socket that is about to be reset is on its way: bounded, and not longer than it
 * takes. Nothing more is read from it. Calls `done` once, unless the returned function cancels first.
 */
export function flushBeforeReset(socket: Socket, clock: Clock, done: () => void): () => void {
  let cancelTimer = clock.setTimer(FLUSH_MS, finish);

  function cancel(): void {
    cancelTimer();
    socket.off('drain', onFlushed);
    socket.off('finish', onFlushed);
  }
  function finish(): void {
    cancel();
    done();
  }
  function onFlushed(): void {
    cancel();
    cancelTimer = clock.setTimer(KERNEL_MS, finish);
  }

  socket.pause();
  if (socket.writableLength === 0) {
    onFlushed();
  } else {
    socket.on('drain', onFlushed);
    socket.on('finish', onFlushed);
  }
  return cancel;
}
