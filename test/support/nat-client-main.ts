import { createSocket } from 'node:dgram';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { errorCode } from '../../src/model/errors.js';
import type { ClientFlow, ClientWork } from './nat-lab.js';

/*
 * A client of the nat lab. Each line of standard input is a ClientWork as JSON, each line of standard output its answers
 * as JSON: the last line that the backend of the flow has said, or the error code, in the order of the flows. Flows of `open`
 * stay open for `ask`.
 */

const AT_ONCE = 50;
const TIMEOUT_MS = 3000;
const kept: TcpFlow[] = [];

interface TcpFlow {
  readonly socket: Socket;
  next: ((line: string) => void) | undefined;
  ended: string | undefined;
}

async function inTime(answer: Promise<string>, timeoutMs: number): Promise<string> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<string>((resolve) => (timer = setTimeout(resolve, timeoutMs, 'timeout')));
  return Promise.race([answer, late]).finally(() => clearTimeout(timer));
}

function openTcp(flow: ClientFlow): TcpFlow {
  const { host, port, source, sourcePort } = flow;
  const socket = connect({ host, port, localAddress: source, localPort: sourcePort, noDelay: true });
  const one: TcpFlow = { socket, next: undefined, ended: undefined };
  const tell = (text: string): void => {
    const { next } = one;
    one.next = undefined;
    next?.(text);
  };
  const end = (text: string): void => {
    one.ended ??= text;
    tell(one.ended);
  };
  socket.setEncoding('utf8');
  socket.on('data', (text: string) => tell(text.trim()));
  socket.on('error', (error) => end(errorCode(error) ?? 'error'));
  socket.on('close', () => end('closed'));
  return one;
}

async function lineOf(flow: TcpFlow, timeoutMs: number): Promise<string> {
  if (flow.ended !== undefined) return flow.ended;
  return inTime(new Promise((resolve) => (flow.next = resolve)), timeoutMs);
}

async function askUdp(flow: ClientFlow, timeoutMs: number): Promise<string> {
  const socket = createSocket(flow.host.includes(':') ? 'udp6' : 'udp4');
  try {
    return await inTime(
      new Promise((resolve) => {
        socket.on('message', (text) => resolve(text.toString().trim()));
        socket.on('error', (error) => resolve(errorCode(error) ?? 'error'));
        socket.bind(
          { port: flow.sourcePort, ...(flow.source === undefined ? {} : { address: flow.source }) },
          () => socket.connect(flow.port, flow.host, () => socket.send('x'.repeat(flow.bytes ?? 1))),
        );
      }),
      timeoutMs,
    );
  } finally {
    socket.close();
  }
}

async function answerOf(flow: ClientFlow, keep: boolean, timeoutMs: number): Promise<string> {
  if (flow.protocol === 'udp') return askUdp(flow, timeoutMs);
  const one = openTcp(flow);
  if (keep) kept.push(one);
  const answer = await lineOf(one, timeoutMs);
  if (flow.endedBy === 'backend' && one.ended === undefined) {
    one.socket.write('bye');
    const last = await lineOf(one, timeoutMs);
    return last === 'closed' ? answer : last;
  }
  if (!keep) one.socket.resetAndDestroy();
  return answer;
}

async function work({ kind, flows = [], timeoutMs = TIMEOUT_MS }: ClientWork): Promise<string[]> {
  if (kind === 'ask' || kind === 'tick') {
    return Promise.all(
      kept.map(async (flow) => {
        const answer = lineOf(flow, timeoutMs);
        flow.socket.write(kind);
        return answer;
      }),
    );
  }
  const answers: string[] = [];
  for (let start = 0; start < flows.length; start += AT_ONCE) {
    const some = flows.slice(start, start + AT_ONCE);
    answers.push(...(await Promise.all(some.map((flow) => answerOf(flow, kind === 'open', timeoutMs)))));
  }
  return answers;
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await work(JSON.parse(line) as ClientWork))}\n`);
}
for (const { socket } of kept) socket.destroy();
