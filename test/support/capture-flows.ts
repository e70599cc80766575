import type { Protocol } from '../../src/model/address.js';

/** One flow of a client of the capture lab. */
export interface AskedFlow {
  readonly protocol: Protocol;
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly port: number;
}

/** What a client reads from its standard input. */
export interface ClientPlan {
  readonly flows: readonly AskedFlow[];
  /** Flows asked at a time. */
  readonly concurrency: number;
  readonly timeoutMs: number;
}

/** `text`: `<backend address> <port> <the question>`; `from`: `<address> <port>` that the answer came from. */
export type FlowAnswer = { readonly text: string; readonly from: string } | { readonly error: string };

/** What the backend says of itself: its address and the port that it was reached on. */
export interface Reached {
  readonly backend: string;
  readonly port: number;
}

/** Undefined where there was no answer. */
export function reachedBy(answer: FlowAnswer | undefined): Reached | undefined {
  if (answer === undefined || 'error' in answer) return undefined;
  const [backend = '', port = ''] = answer.text.split(' ');
  return { backend, port: Number(port) };
}

/** `count` different ports in random order, `always` among them and `never` not; `random` gives 0 to 1. */
export function randomPorts(
  count: number,
  choice: { readonly always: readonly number[]; readonly never: readonly number[] },
  random: () => number = Math.random,
): readonly number[] {
  const ports = new Set(choice.always);
  while (ports.size < count) {
    const port = 1 + Math.floor(random() * 65_535);
    if (!choice.never.includes(port)) ports.add(port);
  }
  return [...ports];
}
