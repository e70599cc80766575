import { createSocket, type Socket } from 'node:dgram';
import { percentile } from '../statistics.js';
import { Schedule } from './schedule.js';
import { runAsTool } from './tool-main.js';

/** Datagrams to an echo at a fixed rate, spread over some flows. */
export interface UdpPingOptions {
  readonly host: string;
  readonly port: number;
  readonly flows: number;
  readonly perSecond: number;
  readonly seconds: number;
  /** Bytes of payload, at least 16. */
  readonly bytes: number;
}

/** Latencies in milliseconds, from the moment a datagram was due to its return. */
export interface UdpPingAnswer {
  readonly sent: number;
  readonly lost: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly generatorLagP99Ms: number;
}

/** After the last datagram: what has not come back by then is lost. */
const LOST_AFTER_MS = 500;
/** At the same rate, not measured: the generator's own code has to be compiled first. */
const WARM_UP_SECONDS = 0.5;

await runAsTool((options) => ping(options as UdpPingOptions));

async function ping(options: UdpPingOptions): Promise<UdpPingAnswer> {
  const warmUp = Math.floor(options.perSecond * WARM_UP_SECONDS);
  const total = warmUp + Math.floor(options.perSecond * options.seconds);
  const due = new Float64Array(total);
  const latencies = new Float64Array(total - warmUp);
  let answered = 0;
  let measured = 0;
  let failure: Error | undefined;
  const read = (data: Buffer, flow: number): void => {
    const number = data.readUInt32BE(0);
    // Bytes 4-7 say which flow it is: an answer that took another's way is worse than a lost one.
    if (data.length !== options.bytes || data.readUInt32BE(4) !== flow || number >= total) {
      failure ??= new Error(`datagram ${number} came back wrong on flow ${flow}`);
      return;
    }
    answered++;
    if (number >= warmUp) latencies[measured++] = performance.now() - due[number]!;
  };
  const sockets = await Promise.all(
    Array.from({ length: options.flows }, (_, flow) => openFlow(options, (data) => read(data, flow))),
  );
  const schedule = new Schedule(options.perSecond, total);
  await schedule.run(
    (number, dueMs) => {
      const flow = number % sockets.length;
      const data = Buffer.alloc(options.bytes);
      data.writeUInt32BE(number, 0);
      data.writeUInt32BE(flow, 4);
      due[number] = dueMs;
      sockets[flow]!.send(data);
    },
    () => answered === total || failure !== undefined,
    LOST_AFTER_MS,
  );
  for (const socket of sockets) socket.close();
  if (failure !== undefined) throw failure;
  const sorted = latencies.slice(0, measured).sort();
  return {
    sent: total - warmUp,
    lost: total - warmUp - measured,
    p50Ms: percentile(sorted, 0.5),
    p99Ms: percentile(sorted, 0.99),
    generatorLagP99Ms: schedule.lagP99Ms(warmUp),
  };
}

async function openFlow(options: UdpPingOptions, read: (data: Buffer) => void): Promise<Socket> {
  const socket = createSocket({ type: 'udp4', lookup: (host, _options, answer) => answer(null, host, 4) });
  socket.on('message', read);
  // ECONNREFUSED and the like show as loss.
  socket.on('error', () => undefined);
  await new Promise<void>((resolve) => socket.connect(options.port, options.host, resolve));
  return socket;
}
