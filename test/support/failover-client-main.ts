import { createSocket } from 'node:dgram';
import { connect, type Socket } from 'node:net';

/*
 * A client of the failover tests; its one argument is a FailoverWork as JSON. `hold`: opens flows and keeps them, prints
 * `ready`. `stream`: opens a TCP flow every so often, asks nobody, and prints the NewFlow[] of all when time is over.
 */

export interface HoldWork {
  readonly kind: 'hold';
  readonly host: string;
  readonly port: number;
  readonly sources: readonly string[];
  readonly tcp: number;
  /** Each to a port of its own, from 10,000 on. */
  readonly udp: number;
}

export interface StreamWork {
  readonly kind: 'stream';
  readonly host: string;
  readonly port: number;
  readonly perSecond: number;
  readonly seconds: number;
}

/** When it began, in milliseconds of the wall clock, and which backend answered, or why none did. */
export type NewFlow = readonly [startedAtMs: number, answer: string];

const AT_ONCE = 100;
const TICK_MS = 5;
const ANSWER_MS = 2000;

async function hold(work: HoldWork): Promise<string> {
  for (let done = 0; done < work.tcp; done += AT_ONCE) {
    const count = Math.min(AT_ONCE, work.tcp - done);
    await Promise.all(Array.from({ length: count }, (_, index) => held(work, done + index)));
  }
  const socket = createSocket('udp4');
  // Nobody listens there: refusals are no news.
  socket.on('error', () => undefined);
  for (let index = 0; index < work.udp; index++) {
    await new Promise((sent) => socket.send('x', 10_000 + index, work.host, sent));
  }
  return 'ready';
}

async function held({ host, port, sources }: HoldWork, index: number): Promise<void> {
  const socket = connect({ host, port, localAddress: sources[index % sources.length] });
  await new Promise<void>((resolve, reject) => socket.once('data', () => resolve()).once('error', reject));
  socket.on('error', () => undefined);
}

async function stream({ host, port, perSecond, seconds }: StreamWork): Promise<string> {
  const flows: Promise<NewFlow>[] = [];
  const startMs = performance.now();
  await new Promise<void>((resolve) => {
    const timer = setInterval(() => {
      const elapsedSeconds = (performance.now() - startMs) / 1000;
      const due = Math.min(elapsedSeconds, seconds) * perSecond;
      while (flows.length < due) flows.push(newFlow(host, port));
      if (elapsedSeconds < seconds) return;
      clearInterval(timer);
      resolve();
    }, TICK_MS);
  });
  return JSON.stringify(await Promise.all(flows));
}

async function newFlow(host: string, port: number): Promise<NewFlow> {
  const startedAtMs = Date.now();
  const socket: Socket = connect({ host, port });
  const answer = await new Promise<string>((resolve) => {
    socket.setTimeout(ANSWER_MS, () => resolve('timeout'));
    socket.once('data', (text) => resolve(text.toString().trim()));
    socket.on('error', (error) => resolve((error as NodeJS.ErrnoException).code ?? 'error'));
    socket.once('close', () => resolve('closed'));
  });
  // No TIME_WAIT: the client's ports last.
  socket.resetAndDestroy();
  return [startedAtMs, answer];
}

const work = JSON.parse(process.argv[2] ?? '{}') as HoldWork | StreamWork;
process.stdout.write(`${await (work.kind === 'hold' ? hold(work) : stream(work))}\n`);
if (work.kind === 'hold') setInterval(() => undefined, 60_000);
