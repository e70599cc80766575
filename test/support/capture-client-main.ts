import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { connect, type Socket as TcpSocket } from 'node:net';
import type { AskedFlow, ClientPlan, FlowAnswer } from './capture-flows.js';

/*
 * A client of the capture lab: one question on each flow, TCP and UDP, each asked exactly once. Standard input: a
 * ClientPlan as JSON; standard output: the answers as JSON, in the order of the flows.
 */

/** Answers of UDP come to the socket of their source port; the first word after the backend's names the flow. */
const udpSockets = new Map<string, Promise<UdpSocket>>();
const tcpSockets = new Set<TcpSocket>();
const waiting = new Map<string, (answer: FlowAnswer) => void>();

function udpSocket({ source, sourcePort }: AskedFlow): Promise<UdpSocket> {
  const key = `${source} ${sourcePort}`;
  const known = udpSockets.get(key);
  if (known !== undefined) return known;
  const opened = new Promise<UdpSocket>((resolve, reject) => {
    const socket = createSocket(source.includes(':') ? 'udp6' : 'udp4');
    socket.on('message', (datagram, { address, port }) => {
      const text = datagram.toString('latin1');
      waiting.get(text.split(' ')[2] ?? '')?.({ text, from: `${address} ${port}` });
    });
    socket.on('error', reject);
    socket.bind({ address: source, port: sourcePort }, () => resolve(socket));
  });
  udpSockets.set(key, opened);
  return opened;
}

async function askUdp(flow: AskedFlow, word: string): Promise<FlowAnswer> {
  const socket = await udpSocket(flow);
  const answered = new Promise<FlowAnswer>((resolve) => waiting.set(word, resolve));
  socket.send(word, flow.port, flow.destination);
  return answered;
}

function askTcp(flow: AskedFlow, word: string): Promise<FlowAnswer> {
  return new Promise((resolve, reject) => {
    const socket = connect({
      host: flow.destination,
      port: flow.port,
      localAddress: flow.source,
      localPort: flow.sourcePort,
    });
    tcpSockets.add(socket);
    socket.once('close', () => tcpSockets.delete(socket));
    socket.on('error', reject);
    socket.once('close', () => reject(new Error('closed without an answer')));
    socket.once('connect', () => socket.write(word));
    socket.once('data', (chunk) => {
      resolve({ text: chunk.toString('latin1'), from: `${flow.destination} ${flow.port}` });
      // RST: no TIME_WAIT is left behind.
      socket.resetAndDestroy();
    });
  });
}

async function answerOf(flow: AskedFlow, index: number, timeoutMs: number): Promise<FlowAnswer> {
  const word = `${flow.protocol}-${index}`;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<FlowAnswer>((resolve) => {
    timer = setTimeout(() => resolve({ error: 'no answer' }), timeoutMs);
  });
  try {
    const asked = flow.protocol === 'tcp' ? askTcp(flow, word) : askUdp(flow, word);
    return await Promise.race([asked, late]);
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  } finally {
    clearTimeout(timer);
    waiting.delete(word);
  }
}

let text = '';
for await (const part of process.stdin.setEncoding('utf8')) text += String(part);
const plan = JSON.parse(text) as ClientPlan;
const answers = new Array<FlowAnswer>(plan.flows.length);
const entries = plan.flows.entries();
await Promise.all(
  Array.from({ length: plan.concurrency }, async () => {
    for (const [index, flow] of entries) answers[index] = await answerOf(flow, index, plan.timeoutMs);
  }),
);
process.stdout.write(JSON.stringify(answers));
for (const socket of tcpSockets) socket.resetAndDestroy();
for (const opened of udpSockets.values()) (await opened.catch(() => undefined))?.close();
