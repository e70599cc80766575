import type { Socket } from 'node:net';
import type { Clock } from '../../../runtime/clock.js';
import { parseProxyHeader } from './proxy-protocol-parse.js';
import type { ProxyIdentity } from './proxy-protocol-write.js';

export type ProxyHeaderOutcome =
  /** `identity` is missing where the header leaves the socket's own addresses in force. */
  | { readonly kind: 'read'; readonly identity?: ProxyIdentity }
  /** Malformed, not there in time, or the stream ended first. */
  | { readonly kind: 'bad'; readonly error: string };

export interface ProxyHeaderOptions {
  readonly accept: 'v1' | 'v2' | 'any';
  readonly timeoutMs: number;
}

/**
 * Reads the PROXY protocol header off a paused socket, which is paused again afterwards: bytes behind the header are
 * the next to be read from it. Answers once, unless the returned function cancels first. A socket that fails is the
 * caller's to notice.
 */
export function readProxyHeader(
  socket: Socket,
  clock: Clock,
  options: ProxyHeaderOptions,
  answer: (outcome: ProxyHeaderOutcome) => void,
): () => void {
  let held: Buffer = Buffer.alloc(0);

  function stop(): void {
    cancelTimer();
    socket.off('data', onData);
    socket.off('end', onEnd);
    socket.pause();
  }
  function finish(outcome: ProxyHeaderOutcome): void {
    stop();
    answer(outcome);
  }
  function onData(chunk: Buffer): void {
    held = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
    const header = parseProxyHeader(held, options.accept);
    switch (header.kind) {
      case 'incomplete':
        return;
      case 'invalid':
        finish({ kind: 'bad', error: header.error });
        return;
      case 'complete':
        stop();
        if (held.length > header.length) socket.unshift(held.subarray(header.length));
        answer(
          header.identity === undefined ? { kind: 'read' } : { kind: 'read', identity: header.identity },
        );
        return;
    }
  }
  function onEnd(): void {
    finish({ kind: 'bad', error: 'PROXY protocol header must come before the end of the stream' });
  }

  const cancelTimer = clock.setTimer(options.timeoutMs, () => {
    finish({ kind: 'bad', error: `PROXY protocol header must come within ${options.timeoutMs} ms` });
  });
  socket.on('data', onData);
  socket.on('end', onEnd);
  socket.resume();
  return stop;
}
