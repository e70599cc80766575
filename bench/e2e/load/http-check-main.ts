import { connect } from 'node:net';
import { runAsTool } from './tool-main.js';

/** One HTTP/1.1 GET as wrk sends it, on each port; the answer must end in `body` to the byte. */
export interface HttpCheckOptions {
  readonly host: string;
  readonly ports: readonly number[];
  readonly body: string;
  readonly close: boolean;
}

/** Bytes of an answer, headers included, the same on each port. */
export interface HttpCheckAnswer {
  readonly answerBytes: number;
}

const ANSWER_WITHIN_MS = 5000;

await runAsTool((options) => check(options as HttpCheckOptions));

async function check(options: HttpCheckOptions): Promise<HttpCheckAnswer> {
  const sizes = await Promise.all(options.ports.map((port) => answerBytes(options, port)));
  const first = sizes[0] ?? 0;
  if (sizes.some((size) => size !== first)) throw new Error(`answers differ in size: ${sizes.join(', ')}`);
  return { answerBytes: first };
}

async function answerBytes({ host, body, close }: HttpCheckOptions, port: number): Promise<number> {
  const socket = connect({ host, port });
  socket.setTimeout(ANSWER_WITHIN_MS, () => socket.destroy(new Error('no answer within 5 s')));
  socket.write(`GET / HTTP/1.1\r\nHost: ${host}:${port}\r\n${close ? 'Connection: close\r\n' : ''}\r\n`);
  const text = await new Promise<string>((resolve, reject) => {
    let received = '';
    socket.on('data', (part) => {
      received += part.toString('latin1');
      if (received.endsWith(body)) resolve(received);
    });
    socket.on('error', reject);
    socket.on('close', () => reject(new Error(`closed after ${JSON.stringify(received.slice(0, 80))}`)));
  });
  socket.destroy();
  if (!text.startsWith('HTTP/1.1 200 ')) throw new Error(`answer ${JSON.stringify(text.slice(0, 40))}`);
  return text.length;
}
