import { createHash } from 'node:crypto';
import { connect } from 'node:net';
import { runAsTool } from './tool-main.js';

/** One HTTP/1.1 GET as wrk sends it, on each port; the body's bytes must be those of the digest. */
export interface HttpCheckOptions {
  readonly host: string;
  readonly ports: readonly number[];
  readonly path: string;
  readonly bodyBytes: number;
  readonly bodySha256: string;
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

async function answerBytes(options: HttpCheckOptions, port: number): Promise<number> {
  const { host, path, bodyBytes, close } = options;
  const socket = connect({ host, port });
  socket.setTimeout(ANSWER_WITHIN_MS, () => socket.destroy(new Error('no answer within 5 s')));
  socket.write(
    `GET ${path} HTTP/1.1\r\nHost: ${host}:${port}\r\n${close ? 'Connection: close\r\n' : ''}\r\n`,
  );
  const answer = await new Promise<Buffer>((resolve, reject) => {
    let received = Buffer.alloc(0);
    socket.on('data', (part) => {
      received = Buffer.concat([received, part]);
      const bodyAt = received.indexOf('\r\n\r\n') + 4;
      if (bodyAt > 3 && received.length - bodyAt >= bodyBytes) resolve(received);
    });
    socket.on('error', reject);
    socket.on('close', () => reject(new Error(`closed after ${received.length} bytes`)));
  });
  socket.destroy();
  const status = answer.toString('latin1', 0, 12);
  if (status !== 'HTTP/1.1 200') throw new Error(`answer ${JSON.stringify(status)}`);
  const digest = createHash('sha256')
    .update(answer.subarray(answer.indexOf('\r\n\r\n') + 4))
    .digest('hex');
  if (digest !== options.bodySha256) throw new Error(`SHA-256 of the body is ${digest}`);
  return answer.length;
}
