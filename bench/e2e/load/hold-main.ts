import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import { runAsTool } from './tool-main.js';

/** Opens flows, one exchange on each with its content checked, and holds them until the process ends. */
export interface HoldOptions {
  readonly protocol: 'tcp' | 'udp';
  readonly host: string;
  readonly port: number;
  readonly flows: number;
  /** Client addresses, used in turn. */
  readonly from: readonly string[];
  /** Flows being opened at a time. */
  readonly concurrency: number;
}

export interface HoldAnswer {
  readonly opened: number;
  readonly failed: number;
  /** From the first exchange to the last; UDP sockets are made before. */
  readonly seconds: number;
}

const ANSWER_WITHIN_MS = 5000;

await runAsTool((options) => hold(options as HoldOptions));

async function hold(options: HoldOptions): Promise<HoldAnswer> {
  const make = options.protocol === 'tcp' ? tcpFlow : await udpFlows(options);
  let [next, opened, failed] = [0, 0, 0];
  const startMs = performance.now();
  const worker = async (): Promise<void> => {
    while (next < options.flows) {
      const number = next++;
      if (await make(options, number)) opened++;
      else failed++;
    }
  };
  await Promise.all(Array.from({ length: options.concurrency }, worker));
  return { opened, failed, seconds: (performance.now() - startMs) / 1000 };
}

function tokenOf(number: number): string {
  return `flow ${String(number).padStart(10, '0')}`;
}

function tcpFlow(options: HoldOptions, number: number): Promise<boolean> {
  const localAddress = options.from[number % options.from.length];
  const socket = connect({
    host: options.host,
    port: options.port,
    ...(localAddress === undefined ? {} : { localAddress }),
  });
  const token = tokenOf(number);
  return new Promise((resolve) => {
    let text = '';
    socket.setTimeout(ANSWER_WITHIN_MS, () => socket.destroy());
    socket.once('connect', () => socket.write(token));
    socket.on('data', (part) => {
      text += part.toString('latin1');
      if (text.length < token.length) return;
      socket.setTimeout(0);
      resolve(text === token);
    });
    socket.on('error', () => undefined);
    socket.once('close', () => resolve(false));
  });
}

/** UDP sockets are made first, so that the time is that of the balancer, not of the client's sockets. */
async function udpFlows(options: HoldOptions): Promise<(o: HoldOptions, number: number) => Promise<boolean>> {
  const sockets = await Promise.all(
    Array.from({ length: options.flows }, async (_, number) => {
      const socket = createSocket({ type: 'udp4', lookup: (host, _o, answer) => answer(null, host, 4) });
      socket.on('error', () => undefined);
      const address = options.from[number % options.from.length];
      await new Promise<void>((resolve, reject) => {
        socket.once('error', reject);
        socket.bind({ port: 0, ...(address === undefined ? {} : { address }), exclusive: true }, resolve);
      });
      await new Promise<void>((resolve) => socket.connect(options.port, options.host, resolve));
      return socket;
    }),
  );
  return (_options, number) =>
    new Promise((resolve) => {
      const token = tokenOf(number);
      const socket = sockets[number];
      const late = setTimeout(() => resolve(false), ANSWER_WITHIN_MS);
      socket?.once('message', (data) => {
        clearTimeout(late);
        resolve(data.toString('latin1') === token);
      });
      socket?.send(token);
    });
}
