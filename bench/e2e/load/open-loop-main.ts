import { createHash } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { percentile } from '../statistics.js';
import { Schedule } from './schedule.js';
import { runAsTool } from './tool-main.js';

/** HTTP requests at a fixed rate, whether or not earlier ones were answered. */
export interface OpenLoopOptions {
  readonly host: string;
  readonly port: number;
  readonly connections: number;
  readonly perSecond: number;
  readonly seconds: number;
  /** Bytes of one answer, headers included, and the SHA-256 of its last `bodyBytes`. */
  readonly answerBytes: number;
  readonly bodyBytes: number;
  readonly bodySha256: string;
}

/** Latencies in milliseconds, from the moment a request was due to the arrival of its last byte. */
export interface OpenLoopAnswer {
  readonly sent: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly p999Ms: number;
  readonly maxMs: number;
  /** How late requests left, 99th percentile: what of the latency is the generator's own. */
  readonly generatorLagP99Ms: number;
}

const GIVE_UP_MS = 5000;
/** At the same rate, not measured: the generator's own code has to be compiled first. */
const WARM_UP_SECONDS = 1;

/** One connection: requests are answered in order, so the n-th answer is that of the n-th request on it. */
interface Lane {
  readonly socket: Socket;
  readonly dueMs: number[];
  answered: number;
  bytes: number;
}

await runAsTool((options) => openLoop(options as OpenLoopOptions));

async function openLoop(options: OpenLoopOptions): Promise<OpenLoopAnswer> {
  const warmUp = Math.floor(options.perSecond * WARM_UP_SECONDS);
  const total = warmUp + Math.floor(options.perSecond * options.seconds);
  const latencies = new Float64Array(total - warmUp);
  let answered = 0;
  let measured = 0;
  let measuredFromMs = Infinity;
  let failure: Error | undefined;
  const bodyIsRight = bodyComparer(options);
  const request = `GET / HTTP/1.1\r\nHost: ${options.host}:${options.port}\r\n\r\n`;
  const lanes = await Promise.all(
    Array.from({ length: options.connections }, () =>
      openLane(
        options,
        (lane, part) => {
          lane.bytes += part.length;
          const nowMs = performance.now();
          while (lane.bytes >= (lane.answered + 1) * options.answerBytes) {
            const dueMs = lane.dueMs[lane.answered++]!;
            answered++;
            if (dueMs >= measuredFromMs) latencies[measured++] = nowMs - dueMs;
          }
          // Where a read ends with an answer, the body is there to be compared; pipelined ones in between are counted.
          if (lane.bytes % options.answerBytes === 0 && !bodyIsRight(part)) failure = new Error('wrong body');
        },
        (error) => (failure ??= error),
      ),
    ),
  );
  const schedule = new Schedule(options.perSecond, total);
  await schedule.run(
    (number, dueMs) => {
      const lane = lanes[number % lanes.length]!;
      if (number === warmUp) measuredFromMs = dueMs;
      lane.dueMs.push(dueMs);
      lane.socket.write(request, 'latin1');
    },
    () => answered === total || failure !== undefined,
    GIVE_UP_MS,
  );
  for (const { socket } of lanes) socket.destroy();
  if (failure !== undefined) throw failure;
  if (answered < total) throw new Error(`${total - answered} of ${total} requests had no answer`);
  latencies.sort();
  return {
    sent: total - warmUp,
    p50Ms: percentile(latencies, 0.5),
    p99Ms: percentile(latencies, 0.99),
    p999Ms: percentile(latencies, 0.999),
    maxMs: percentile(latencies, 1),
    generatorLagP99Ms: schedule.lagP99Ms(warmUp),
  };
}

function openLane(
  options: OpenLoopOptions,
  read: (lane: Lane, part: Buffer) => void,
  failed: (error: Error) => void,
): Promise<Lane> {
  return new Promise((resolve, reject) => {
    const socket = connect({
      ...{ host: options.host, port: options.port, noDelay: true },
      // One buffer for all reads: a new one for each would be collected in the middle of the measurement.
      onread: {
        buffer: Buffer.alloc(64 * 1024),
        callback: (bytes, buffer) => {
          read(lane, (buffer as Buffer).subarray(0, bytes));
          return true;
        },
      },
    });
    const lane: Lane = { socket, dueMs: [], answered: 0, bytes: 0 };
    socket.on('error', (error) => {
      failed(error);
      reject(error);
    });
    socket.on('end', () => failed(new Error('a connection was closed')));
    socket.once('connect', () => resolve(lane));
  });
}

/** Hashing each answer would be most of the work: the body that had the right digest is kept and compared. */
function bodyComparer({ bodyBytes, bodySha256 }: OpenLoopOptions): (part: Buffer) => boolean {
  let right: Buffer | undefined;
  return (part) => {
    const body = part.subarray(Math.max(0, part.length - bodyBytes));
    if (right?.equals(body) === true) return true;
    // A read may begin within the body; then its length is checked and that is all.
    if (body.length < bodyBytes) return true;
    if (createHash('sha256').update(body).digest('hex') !== bodySha256) return false;
    right = Buffer.from(body);
    return true;
  };
}
