import type { Socket } from 'node:net';

export interface Reader {
  readonly chunk: (chunk: Buffer) => void;
  /** Called once. */
  readonly over: (ending: 'fin' | 'reset') => void;
}

/** Sockets to be read carefully must be made with this `highWaterMark`. */
export const CAREFUL = { highWaterMark: 1 } as const;

/**
 * Tells FIN from RST for certain. A flowing Node socket cannot: libuv reports data and RST that come in one poll as data
 * and a clean end. Here reading stops after each chunk and goes on in a later turn of the event loop.
 */
export function readCarefully(socket: Socket, reader: Reader): void {
  let scheduled = false;
  let over = false;
  const pull = (): void => {
    scheduled = false;
    for (;;) {
      const chunk = socket.read() as Buffer | null;
      if (chunk === null) return;
      reader.chunk(chunk);
    }
  };
  const end = (ending: 'fin' | 'reset') => (): void => {
    if (!over) reader.over(ending);
    over = true;
  };
  socket.on('readable', () => {
    if (!scheduled) setImmediate(pull);
    scheduled = true;
  });
  socket.once('end', end('fin'));
  socket.once('error', end('reset'));
}
