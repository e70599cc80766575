import { createSocket, type Socket } from 'node:dgram';
import { percentile } from '../statistics.js';
import { runAsTool } from './tool-main.js';

/** UDP flows to an echo, one after the other: the first datagram of each is timed, and one more. */
export interface FirstDatagramOptions {
  readonly host: string;
  readonly port: number;
  readonly flows: number;
  /** The client's address; each flow has a source port of its own, from `firstSourcePort` on. */
  readonly from: string;
  readonly firstSourcePort: number;
}

/** Milliseconds there and back. */
export interface FirstDatagramAnswer {
  readonly firstP50Ms: number;
  readonly firstP99Ms: number;
  readonly laterP50Ms: number;
  readonly lost: number;
}

const LOST_AFTER_MS = 2000;
/** Flows before the first that counts: code has to be compiled at both ends. */
const WARM_UP = 200;

await runAsTool((options) => measure(options as FirstDatagramOptions));

async function measure(options: FirstDatagramOptions): Promise<FirstDatagramAnswer> {
  const [first, later]: [number[], number[]] = [[], []];
  let lost = 0;
  for (let number = 0; number < WARM_UP + options.flows; number++) {
    const socket = await open(options, number);
    const times = [await exchange(socket, `first ${number}`), await exchange(socket, `later ${number}`)];
    socket.close();
    if (number < WARM_UP) continue;
    const [one, two] = times;
    if (one === undefined || two === undefined) {
      lost++;
    } else {
      first.push(one);
      later.push(two);
    }
  }
  const [sortedFirst, sortedLater] = [Float64Array.from(first).sort(), Float64Array.from(later).sort()];
  return {
    firstP50Ms: percentile(sortedFirst, 0.5),
    firstP99Ms: percentile(sortedFirst, 0.99),
    laterP50Ms: percentile(sortedLater, 0.5),
    lost,
  };
}

async function open(options: FirstDatagramOptions, number: number): Promise<Socket> {
  const socket = createSocket({ type: 'udp4', lookup: (host, _options, answer) => answer(null, host, 4) });
  // ECONNREFUSED and the like show as loss.
  socket.on('error', () => undefined);
  const port = options.firstSourcePort + number;
  await new Promise<void>((resolve) => socket.bind({ address: options.from, port }, resolve));
  await new Promise<void>((resolve) => socket.connect(options.port, options.host, resolve));
  return socket;
}

/** Milliseconds until the same text came back; undefined when it was lost. */
function exchange(socket: Socket, text: string): Promise<number | undefined> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => {
      socket.off('message', read);
      resolve(undefined);
    }, LOST_AFTER_MS);
    const startMs = performance.now();
    const read = (data: Buffer): void => {
      if (data.toString('latin1') !== text) return;
      clearTimeout(timer);
      socket.off('message', read);
      resolve(performance.now() - startMs);
    };
    socket.on('message', read);
    socket.send(text);
  });
}
