import { createHash, randomFillSync } from 'node:crypto';
import { once } from 'node:events';
import { connect } from 'node:net';
import { runAsTool } from './tool-main.js';

/** Sends random bytes to an echo and compares SHA-256 of what left with that of what came back. */
export interface TransferOptions {
  readonly host: string;
  readonly port: number;
  readonly mebibytes: number;
}

await runAsTool((options) => transfer(options as TransferOptions));

async function transfer({ host, port, mebibytes }: TransferOptions): Promise<{ readonly bytes: number }> {
  const socket = connect({ host, port, noDelay: true });
  socket.setTimeout(20_000, () => socket.destroy(new Error('nothing moved for 20 s')));
  const [sent, received] = [createHash('sha256'), createHash('sha256')];
  let bytes = 0;
  // The client closes last: nginx, as it is by default, would close both ways with the first FIN.
  const returned = new Promise<void>((resolve, reject) => {
    socket.on('data', (part) => {
      received.update(part);
      bytes += part.length;
      if (bytes >= mebibytes * 1024 * 1024) resolve();
    });
    socket.once('error', reject);
    socket.once('end', () => reject(new Error(`closed after ${bytes} bytes`)));
  });
  returned.catch(() => undefined);
  for (let index = 0; index < mebibytes; index++) {
    const block = randomFillSync(Buffer.allocUnsafe(1024 * 1024));
    sent.update(block);
    if (!socket.write(block)) await once(socket, 'drain');
  }
  await returned;
  socket.destroy();
  const [left, right] = [sent.digest('hex'), received.digest('hex')];
  if (left !== right) throw new Error(`SHA-256 ${left} left, ${right} came back`);
  return { bytes };
}
