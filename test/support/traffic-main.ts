import { randomBytes } from 'node:crypto';
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { createServer as createHttpServer } from 'node:http';
import { connect, createServer, type Socket as TcpSocket } from 'node:net';
import { createInterface } from 'node:readline';
import type { Answer, AskOptions, DatagramBurst, Flow, ServePlan, Work } from './traffic.js';

/*
 * The traffic program: each line of standard input is a Work as JSON, each line of standard output its result. Ends
 * with its standard input. A question and its answer are a line of JSON each, over UDP a datagram.
 */

const TICK_MS = 100;
const TIMEOUT_MS = 3000;
const AT_ONCE = 50;
const BACKLOG = 4096;
const BUFFER_BYTES = 2 ** 20;

interface Question {
  readonly id: string;
  readonly verb?: 'tick' | 'bye';
  readonly replyBytes?: number;
}

type Reply = Answer & { readonly id: string };

/** A client's end of a flow. */
interface OpenFlow {
  readonly flow: Flow;
  send(question: Question): void;
  /** Takes the replies, and the reason of the end. */
  onReply: (reply: Partial<Reply>) => void;
  ended?: string;
  /** A TCP flow by RST, which leaves no TIME_WAIT behind, or by FIN. */
  close(how: 'reset' | 'finish'): unknown;
}

const kept: OpenFlow[] = [];
const health = new Map<string, { status: number; asked: number }>();
let questions = 0;

function plain(address = ''): string {
  return address.replace(/^::ffff:/, '');
}

function linesOf(socket: TcpSocket, take: (line: string) => void): void {
  let rest = '';
  socket.setEncoding('latin1').on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    lines.forEach(take);
  });
}

/* Servers: only an open standard input keeps the process alive. */

function serveConnection(socket: TcpSocket, name: string, port: number): void {
  const seen = { address: plain(socket.localAddress), port, client: plain(socket.remoteAddress) };
  const reply = (question: Partial<Question>): string => {
    const { id, replyBytes = 0 } = question;
    const answer = { id, by: name, ...seen, clientPort: socket.remotePort, filler: 'x'.repeat(replyBytes) };
    return `${JSON.stringify(answer)}\n`;
  };
  let timer: NodeJS.Timeout | undefined;
  socket.on('error', () => undefined).on('close', () => clearInterval(timer));
  linesOf(socket, (line) => {
    const question = JSON.parse(line) as Question;
    if (question.verb === 'bye') return void socket.end();
    socket.write(reply(question));
    if (question.verb === 'tick') timer ??= setInterval(() => socket.write(reply({})), TICK_MS);
  });
}

function listenTcp(host: string, port: number, name: string): Promise<void> {
  const server = createServer({ noDelay: true }, (socket) => serveConnection(socket, name, port));
  return new Promise((resolve, reject) => {
    server.unref().once('error', reject).listen({ host, port, backlog: BACKLOG }, resolve);
  });
}

function bindUdp(address: string, port: number, name: string, verbatim: boolean): Promise<void> {
  const socket = createSocket({
    type: address.includes(':') ? 'udp6' : 'udp4',
    recvBufferSize: BUFFER_BYTES,
  });
  socket.on('message', (datagram, from) => {
    const seen = {
      address,
      port,
      client: plain(from.address),
      clientPort: from.port,
      bytes: datagram.length,
    };
    const reply = verbatim
      ? datagram
      : JSON.stringify({ ...(JSON.parse(datagram.toString()) as Question), by: name, ...seen });
    socket.send(reply, from.port, from.address, () => undefined);
  });
  return new Promise((resolve, reject) => {
    socket.unref().once('error', reject).bind({ address, port }, resolve);
  });
}

async function serve({
  name,
  addresses = ['::'],
  ports,
  protocols,
  verbatim = false,
}: ServePlan): Promise<void> {
  for (const address of addresses) {
    const each = ports.flatMap((port) => [
      ...(protocols?.includes('tcp') === false ? [] : [listenTcp(address, port, name ?? address)]),
      ...(protocols?.includes('udp') === false ? [] : [bindUdp(address, port, name ?? address, verbatim)]),
    ]);
    await Promise.all(each);
  }
}

async function answerHealth(address: string, port: number, status: number): Promise<number> {
  const known = health.get(`${address} ${port}`);
  if (known !== undefined) {
    known.status = status;
    return known.asked;
  }
  const state = { status, asked: 0 };
  health.set(`${address} ${port}`, state);
  const server = createHttpServer((_request, response) => {
    state.asked++;
    response.writeHead(state.status).end();
  });
  await new Promise<void>((listening) => server.unref().listen(port, address, listening));
  return 0;
}

/* Clients */

function openTcp(flow: Flow): OpenFlow {
  const { host, port, source, sourcePort } = flow;
  const socket = connect({ host, port, localAddress: source, localPort: sourcePort, noDelay: true });
  const one: OpenFlow = {
    flow,
    send: (question) => void socket.write(`${JSON.stringify(question)}\n`),
    onReply: () => undefined,
    close: (how) => (how === 'reset' ? socket.resetAndDestroy() : socket.destroy()),
  };
  const end = (reason: string): void => {
    one.ended ??= reason;
    one.onReply({ by: one.ended });
  };
  linesOf(socket, (line) => one.onReply(JSON.parse(line) as Reply));
  socket.on('error', (error: NodeJS.ErrnoException) => end(error.code ?? error.message));
  socket.on('close', () => end('closed'));
  return one;
}

async function openUdp(flow: Flow): Promise<OpenFlow> {
  // Flows may have the same port of the client: each socket is connected, and gets only what is its own.
  const socket = createSocket({ type: flow.host.includes(':') ? 'udp6' : 'udp4', reuseAddr: true });
  const one: OpenFlow = {
    flow,
    send: (question) => sendDatagram(socket, one, question),
    onReply: () => undefined,
    close: () => socket.close(),
  };
  const fail = (error: NodeJS.ErrnoException): void => one.onReply({ by: error.code ?? error.message });
  await new Promise<void>((resolve, reject) => {
    socket.once('error', reject);
    const local = {
      port: flow.sourcePort ?? 0,
      ...(flow.source === undefined ? {} : { address: flow.source }),
    };
    socket.bind(local, () =>
      flow.fromAnywhere === true ? resolve() : socket.connect(flow.port, flow.host, resolve),
    );
  });
  socket.removeAllListeners('error').on('error', fail);
  if (flow.verbatim !== true) {
    socket.on('message', (text) => one.onReply(JSON.parse(text.toString()) as Reply));
  }
  return one;
}

function sendDatagram(socket: UdpSocket, { flow, onReply }: OpenFlow, question: Question): void {
  const { bytes = 0, verbatim, fromAnywhere, port, host } = flow;
  const datagram =
    verbatim === true ? randomBytes(bytes) : Buffer.from(JSON.stringify(question).padEnd(bytes));
  if (verbatim === true) {
    socket.removeAllListeners('message').on('message', (text) => {
      onReply({ id: question.id, by: text.equals(datagram) ? 'verbatim' : 'altered' });
    });
  }
  if (fromAnywhere === true) socket.send(datagram, port, host);
  else socket.send(datagram);
}

/** Asks on an open flow. Replies to other questions, and those that a server sends by itself, do not count. */
function answerOf(one: OpenFlow, timeoutMs: number, verb?: 'tick' | 'bye'): Promise<Answer> {
  const question = { id: `${++questions}`, verb, replyBytes: one.flow.replyBytes };
  return new Promise<Answer>((resolve) => {
    const settle = (answer: Answer): void => {
      clearTimeout(timer);
      one.onReply = () => undefined;
      resolve(answer);
    };
    const timer = setTimeout(settle, timeoutMs, { by: 'timeout' });
    if (one.ended !== undefined) {
      settle({ by: one.ended });
      return;
    }
    one.onReply = ({ id, by = '', filler = '', bytes, ...seen }: Partial<Reply> & { filler?: string }) => {
      // The reason of an end comes without an id, what a server sends by itself with its name.
      if (id === undefined && seen.port === undefined) settle({ by });
      else if (id === question.id) {
        const isWhole = filler.length === (question.replyBytes ?? 0);
        settle({
          by: isWhole ? by : 'altered',
          ...seen,
          ...(one.flow.bytes === undefined ? {} : { bytes }),
        });
      }
    };
    one.send(question);
  });
}

async function askOne(flow: Flow, timeoutMs: number, keep?: (one: OpenFlow) => void): Promise<Answer> {
  let one: OpenFlow;
  try {
    one = flow.protocol === 'tcp' ? openTcp(flow) : await openUdp(flow);
  } catch (error) {
    return { by: (error as NodeJS.ErrnoException).code ?? String(error) };
  }
  const answer = await answerOf(one, timeoutMs);
  if (keep !== undefined) {
    keep(one);
  } else if (flow.endedBy === 'server' && one.ended === undefined) {
    const last = await answerOf(one, timeoutMs, 'bye');
    return last.by === 'closed' ? answer : last;
  } else {
    one.close('reset');
  }
  return answer;
}

async function ask(
  flows: readonly Flow[],
  keep: boolean,
  { timeoutMs = TIMEOUT_MS, atOnce = AT_ONCE, perSecond }: AskOptions,
): Promise<readonly Answer[]> {
  const answers: Promise<Answer>[] = [];
  const open: OpenFlow[] = [];
  const begin = (index: number): Promise<Answer> =>
    (answers[index] = askOne(flows[index]!, timeoutMs, keep ? (one) => (open[index] = one) : undefined));
  if (perSecond === undefined) {
    const indices = flows.keys();
    const work = async (): Promise<void> => {
      for (const index of indices) await begin(index);
    };
    await Promise.all(Array.from({ length: atOnce }, work));
  } else {
    await atRate(flows.length, perSecond, (index) => {
      const atMs = Date.now();
      answers[index] = begin(index).then((answer) => ({ ...answer, atMs }));
    });
  }
  const all = await Promise.all(answers);
  // In the order of the flows, without those that could not even be opened.
  kept.push(...open.filter(Boolean));
  return all;
}

/** As the end of this process would. */
function close(): null {
  for (const one of kept.splice(0)) one.close('finish');
  return null;
}

/** Calls back with 0, 1, ... at a rate, whatever comes of it. */
function atRate(count: number, perSecond: number, call: (index: number) => void): Promise<void> {
  const startMs = performance.now();
  let done = 0;
  return new Promise((resolve) => {
    const step = (): void => {
      const due = Math.min(count, 1 + Math.floor(((performance.now() - startMs) * perSecond) / 1000));
      while (done < due) call(done++);
      if (done < count) setTimeout(step, 1);
      else resolve();
    };
    step();
  });
}

async function burst({ host, firstPort, count, perSecond }: DatagramBurst): Promise<number> {
  const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4');
  // Without a server there: refusals are no news.
  socket.on('error', () => undefined);
  const startMs = performance.now();
  const sent: Promise<unknown>[] = [];
  await atRate(count, perSecond, (index) => {
    sent.push(new Promise((done) => socket.send('x', firstPort + index, host, done)));
  });
  await Promise.all(sent);
  socket.close();
  return Math.round(performance.now() - startMs);
}

async function run(work: Work): Promise<unknown> {
  switch (work.kind) {
    case 'ask':
      return ask(work.flows, work.keep, work);
    case 'again':
      return Promise.all(
        kept.map((one) => answerOf(one, work.timeoutMs ?? TIMEOUT_MS, work.tick ? 'tick' : undefined)),
      );
    case 'close':
      return close();
    case 'serve':
      return serve(work).then(() => null);
    case 'health':
      return answerHealth(work.address, work.port, work.status);
    case 'burst':
      return burst(work);
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await run(JSON.parse(line) as Work))}\n`);
}
close();
