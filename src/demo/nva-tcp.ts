import type { Socket } from 'node:net';
import { httpAnswer, looksLikeHttp } from './nva-http.js';

/** An HTTP head longer than this is echoed like anything else. */
const MAX_HEAD_BYTES = 16_384;

/** How long a client may take to close after its page. */
const LINGER_MS = 2000;

/**
 * Serves one TCP connection and owns its socket: a page where the client speaks HTTP, else every chunk comes back
 * as `<name>: <chunk>`. Reads no faster than it can write; echoes until FIN, then sends FIN.
 */
export function serveNvaConnection(name: string, socket: Socket): void {
  const prefix = Buffer.from(`${name}: `);
  let head = Buffer.alloc(0);
  let mode: 'undecided' | 'echo' | 'done' = 'undecided';

  const echo = (chunk: Buffer) => {
    mode = 'echo';
    if (!socket.write(Buffer.concat([prefix, chunk]))) socket.pause();
  };
  socket.setNoDelay(true);
  socket.on('drain', () => socket.resume());
  // A reset by the client is the end of this connection and of nothing else.
  socket.on('error', () => socket.destroy());
  socket.on('data', (chunk: Buffer) => {
    if (mode === 'done') return;
    if (mode === 'echo') {
      echo(chunk);
      return;
    }
    head = Buffer.concat([head, chunk]);
    const text = head.toString('latin1');
    const http = looksLikeHttp(text);
    const isWhole = text.includes('\r\n\r\n');
    if (http === 'no' || (!isWhole && head.length > MAX_HEAD_BYTES)) {
      echo(head);
      return;
    }
    if (http === 'unclear' || !isWhole) return;
    mode = 'done';
    const visit = { port: socket.localPort ?? 0, clientAddress: socket.remoteAddress ?? 'unknown' };
    socket.end(httpAnswer(name, text, visit));
    socket.setTimeout(LINGER_MS, () => socket.destroy());
  });
  socket.on('end', () => {
    if (mode === 'undecided' && head.length > 0) echo(head);
    socket.end();
  });
}
