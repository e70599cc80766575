import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { within } from './deadline.js';

/** A question that a client asks. */
export interface Flow {
  readonly protocol: 'tcp' | 'udp';
  readonly host: string;
  readonly port: number;
  readonly source?: string;
  readonly sourcePort?: number;
  /** Who ends a TCP flow that does not stay open: the client by a reset, or the server by closing it. @default 'client' */
  readonly endedBy?: 'client' | 'server';
  /** Of a datagram at least. */
  readonly bytes?: number;
  /** Of a TCP answer at least. */
  readonly replyBytes?: number;
  /** Takes the answer to a datagram from any address: of a server on all of them. @default false */
  readonly fromAnywhere?: boolean;
  /** The datagram has exactly `bytes`, and the server sends back the same: see ServePlan. */
  readonly verbatim?: boolean;
}

/** Who answered, and what it saw. */
export interface Answer {
  /** The server's name, or why there is no answer: an error code, `timeout`, `closed`; `altered` if it is not the same. */
  readonly by: string;
  /** Where it was reached. */
  readonly address?: string;
  readonly port?: number;
  /** The client as the server sees it. */
  readonly client?: string;
  readonly clientPort?: number;
  /** Of a flow that says how many: those that arrived. */
  readonly bytes?: number;
  /** With `perSecond`: when it was asked, in milliseconds of the wall clock. */
  readonly atMs?: number;
}

export interface AskOptions {
  /** For each answer. @default 3000 */
  readonly timeoutMs?: number;
  /** Flows asked at a time. @default 50 */
  readonly atOnce?: number;
  /** Flows begun a second, whether earlier ones are answered or not. @default as many as `atOnce` allows */
  readonly perSecond?: number;
}

/** Servers on each port of each address. */
export interface ServePlan {
  /** @default the address that each server listens on */
  readonly name?: string;
  /** @default all, of both families */
  readonly addresses?: readonly string[];
  readonly ports: readonly number[];
  /** @default both */
  readonly protocols?: readonly ('tcp' | 'udp')[];
  /** Sends datagrams back as they came. @default false */
  readonly verbatim?: boolean;
}

export interface DatagramBurst {
  readonly host: string;
  /** The first datagram goes there, each other one to the next port. */
  readonly firstPort: number;
  readonly count: number;
  readonly perSecond: number;
}

export type Work =
  | ({ readonly kind: 'ask'; readonly flows: readonly Flow[]; readonly keep: boolean } & AskOptions)
  | { readonly kind: 'again'; readonly tick: boolean; readonly timeoutMs?: number }
  | { readonly kind: 'close' }
  | ({ readonly kind: 'serve' } & ServePlan)
  | ({ readonly kind: 'burst' } & DatagramBurst)
  | { readonly kind: 'health'; readonly address: string; readonly port: number; readonly status: number };

const WORK_MS = 120_000;

/** A process that runs traffic-main.ts in a host of a lab: client, server, or both. The lab ends it. */
export class Traffic {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(child: ChildProcess) {
    assert.ok(child.stdout);
    this.#child = child;
    child.stdin?.on('error', () => undefined);
    this.#lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  }

  async #do<T>(work: Work): Promise<T> {
    this.#child.stdin?.write(`${JSON.stringify(work)}\n`);
    const line = await within(this.#lines.next(), WORK_MS, `the traffic program to ${work.kind}`);
    assert.notEqual(line.done, true, 'The traffic program has ended');
    return JSON.parse(String(line.value)) as T;
  }

  /** Asks once on each flow, and ends it. Answers come in the order of the flows. */
  async ask(flows: readonly Flow[], options: AskOptions = {}): Promise<readonly Answer[]> {
    return this.#do({ kind: 'ask', flows, keep: false, ...options });
  }

  /** Asks once on each flow, which stays open for `again`. */
  async open(flows: readonly Flow[], options: AskOptions = {}): Promise<readonly Answer[]> {
    return this.#do({ kind: 'ask', flows, keep: true, ...options });
  }

  /**
   * Asks on each flow that is open, or gives why it has ended.
   *
   * @param options.tick servers of TCP also send something by themselves from then on, every 100 ms
   */
  async again(
    options: { readonly tick?: boolean; readonly timeoutMs?: number } = {},
  ): Promise<readonly Answer[]> {
    return this.#do({ kind: 'again', tick: false, ...options });
  }

  /** Closes the flows that are open. */
  async close(): Promise<void> {
    await this.#do({ kind: 'close' });
  }

  /** Resolves once all listen. */
  async serve(plan: ServePlan): Promise<void> {
    await this.#do({ kind: 'serve', ...plan });
  }

  /** Answers HTTP requests to this port with this status from now on. Gives how many came so far. */
  async health(port: number, status = 200, address = '::'): Promise<number> {
    return this.#do({ kind: 'health', address, port, status });
  }

  /** One datagram a flow, all from one port. Resolves, once they are sent, to the milliseconds that it took. */
  async burst(burst: DatagramBurst): Promise<number> {
    return this.#do({ kind: 'burst', ...burst });
  }

  /** Ends the process and all that it has open. */
  end(): void {
    this.#child.stdin?.end();
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}

/** What flows have in common, or in turn. */
export interface FlowPlan extends Omit<Flow, 'protocol' | 'port' | 'source'> {
  /** @default 'tcp' */
  readonly protocol?: Flow['protocol'] | readonly Flow['protocol'][];
  readonly port: number | readonly number[];
  readonly source?: string | readonly string[];
  /** Of the first flow; each other one has the next. */
  readonly sourcePort: number;
}

/** As many flows, each with a port of its own at the client. */
export function makeFlows(count: number, plan: FlowPlan): readonly Flow[] {
  const { protocol = 'tcp', port, source, sourcePort, ...common } = plan;
  return Array.from({ length: count }, (_, index) => ({
    ...common,
    protocol: inTurn(protocol, index),
    port: inTurn(port, index),
    ...(source === undefined ? {} : { source: inTurn(source, index) }),
    sourcePort: sourcePort + index,
  }));
}

function inTurn<T extends string | number>(of: T | readonly T[], index: number): T {
  return typeof of === 'object' ? of[index % of.length]! : of;
}

/** The servers' names, or the errors. */
export function names(answers: readonly Answer[]): readonly string[] {
  return answers.map(({ by }) => by);
}

/** How often each text is there. */
export function tally(texts: readonly string[]): Readonly<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const text of texts) counts[text] = (counts[text] ?? 0) + 1;
  return counts;
}
