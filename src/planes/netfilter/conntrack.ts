import { PROTOCOLS, PROTOCOL_NUMBER, type Protocol } from '../../model/address.js';
import type { BalancerError } from '../../model/errors.js';
import type { FlowOrigin, OriginFeed } from '../../model/flow.js';
import { Backoff } from '../../runtime/backoff.js';
import type { Clock } from '../../runtime/clock.js';
import { succeeded, toolFailure, type Tools } from './tools.js';

/** One direction of an entry. Bytes and packets are 0 where the kernel does not count them. */
export interface EntryDirection {
  readonly source: string;
  readonly destination: string;
  /** 0 where the protocol has no ports. */
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly packets: number;
  /** Of whole packets, IP headers included. */
  readonly bytes: number;
}

/** An entry of the kernel's connection tracking. Its texts may be views into a batch of lines: see `copied`. */
export interface ConntrackEntry {
  /** `listed`: nothing has happened to it, it was asked for. */
  readonly event: 'new' | 'gone' | 'listed';
  /** IP protocol number. */
  readonly protocol: number;
  /** Seconds until it expires if no packet comes; -1 where the line does not say. */
  readonly remainingSeconds: number;
  /** `ESTABLISHED`, `TIME_WAIT` ...; '' where the protocol has no states. */
  readonly state: string;
  readonly original: EntryDirection;
  readonly reply: EntryDirection;
  /** Never answered; a reset that refuses a connection is no answer either. */
  readonly unreplied: boolean;
  /** Deleted by a program, not by time or by a packet. */
  readonly byProgram: boolean;
  readonly mark: number;
  /** Seconds since its first packet; undefined where the kernel does not record that. */
  readonly ageSeconds: number | undefined;
  /** 32 bits, the same for its whole life; two entries may share one. */
  readonly id: number;
  /** Since its last packet; absent: it follows from the time that is left. */
  readonly idleMs?: number;
}

/** Undefined: neither TCP nor UDP. */
export function protocolOf({ protocol }: Pick<ConntrackEntry, 'protocol'>): Protocol | undefined {
  return PROTOCOLS.find((one) => PROTOCOL_NUMBER[one] === protocol);
}

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

/**
 * Parses a line of `conntrack -E` or `-L`, with `-o id`:
 *
 *     [NEW] tcp      6 120 SYN_SENT src=C dst=F sport=CP dport=FP [UNREPLIED] src=B dst=C sport=BP dport=CP mark=1 id=2
 *
 * Unknown fields are skipped, since they differ between versions and options. Undefined: it is no such line. There are
 * tens of thousands of lines a second in a storm, hence no regular expressions, and no fields by computed names, which
 * take three times as long.
 */
export function parseConntrackEntry(line: string): ConntrackEntry | undefined {
  const event = eventOf(line);
  if (event === undefined) return undefined;
  let at = event === 'listed' ? 0 : line.indexOf(']') + 1;
  let original: Mutable<EntryDirection> | undefined;
  let reply: Mutable<EntryDirection> | undefined;
  let [protocol, remainingSeconds, mark, id] = [-1, -1, 0, -1];
  let [state, unreplied, byProgram] = ['', false, false];
  let ageSeconds: number | undefined;
  // The first word names the protocol: its number follows.
  for (let words = 0; at < line.length; words++) {
    while (line.charCodeAt(at) === SPACE) at++;
    if (at >= line.length) break;
    const end = endOfWord(line, at);
    const equals = line.indexOf('=', at);
    if (equals < 0 || equals >= end) {
      if (original === undefined) {
        if (words === 1) protocol = number(line, at);
        else if (words > 1 && isDigit(line, at)) remainingSeconds = number(line, at);
        else if (words > 1) state = line.slice(at, end);
      } else if (line.startsWith('[UNREPLIED]', at)) unreplied = true;
      else if (line.startsWith('[USERSPACE]', at)) byProgram = true;
    } else {
      const key = line.slice(at, equals);
      const value = equals + 1;
      if (key === 'src') {
        const direction = { ...NO_DIRECTION, source: line.slice(value, end) };
        if (original === undefined) original = direction;
        else reply = direction;
      }
      const direction = reply ?? original;
      switch (key) {
        case 'dst':
          if (direction !== undefined) direction.destination = line.slice(value, end);
          break;
        case 'sport':
          if (direction !== undefined) direction.sourcePort = number(line, value);
          break;
        case 'dport':
          if (direction !== undefined) direction.destinationPort = number(line, value);
          break;
        case 'packets':
        case 'bytes':
          if (direction !== undefined) direction[key] = number(line, value);
          break;
        case 'mark':
          mark = number(line, value);
          break;
        case 'delta-time':
          ageSeconds = number(line, value);
          break;
        case 'id':
          // ICMP has an id in both directions; the entry's own comes last.
          id = number(line, value);
          break;
      }
    }
    at = end;
  }
  if (original === undefined || reply === undefined || protocol < 0 || id < 0) return undefined;
  return {
    ...{ event, protocol, remainingSeconds, state, original, reply, unreplied, byProgram, mark },
    ...{ ageSeconds, id },
  };
}

const NO_DIRECTION: EntryDirection = {
  ...{ source: '', destination: '', sourcePort: 0, destinationPort: 0, packets: 0, bytes: 0 },
};

const SPACE = 0x20;

function endOfWord(line: string, at: number): number {
  const end = line.indexOf(' ', at);
  return end < 0 ? line.length : end;
}

function isDigit(line: string, at: number): boolean {
  const code = line.charCodeAt(at);
  return code >= 0x30 && code <= 0x39;
}

/** The decimal number that starts there; 0 if none does. */
function number(line: string, start: number): number {
  let value = 0;
  for (let index = start; isDigit(line, index); index++) value = value * 10 + line.charCodeAt(index) - 0x30;
  return value;
}

/** Undefined: another event than those that are followed. */
function eventOf(line: string): ConntrackEntry['event'] | undefined {
  let start = 0;
  while (line.charCodeAt(start) === SPACE) start++;
  if (line[start] !== '[') return 'listed';
  if (line.startsWith('[NEW]', start)) return 'new';
  return line.startsWith('[DESTROY]', start) ? 'gone' : undefined;
}

function parseEntries(lines: readonly string[]): ConntrackEntry[] {
  return lines.flatMap((line) => parseConntrackEntry(line) ?? []);
}

/** V8 copies shorter texts anyway when they are cut out of a line. */
const LONGEST_COPIED = 12;

/** A text of its own. One that was cut out of a line keeps the whole batch of lines in memory. */
export function copied(text: string): string {
  return text.length <= LONGEST_COPIED ? text : Buffer.from(text, 'latin1').toString('latin1');
}

/** A full table of a million entries takes about that long. */
const LIST_TIMEOUT_MS = 10_000;

/** Without a family, some versions list IPv4 alone. */
const FAMILIES = ['ipv4', 'ipv6'] as const;

/**
 * The kernel doubles it. conntrack 1.4.7 gives it to another of its sockets than that of the events, which keeps
 * net.core.rmem_default: 166 events fit into 208 KiB. More at once are lost if it does not get to run in time: a gap.
 */
const BUFFER_BYTES = 8_388_608;

/** conntrack says that it has set its buffer once events come; if it does not, they come after that at the latest. */
const READY_MS = 3000;
const READY = 'buffer size has been set';
const LOST = 'ENOBUFS';

/** Ends of entries are missed meanwhile. */
const RESTART = { firstMs: 100, maxMs: 2000 };
/** A run as long as that was a good one. */
const GOOD_RUN_MS = 1000;

export interface EntryFollower {
  /** Entries that are new or gone, in batches as they come. */
  onEntries(entries: readonly ConntrackEntry[]): void;
  /** What is known may be wrong: events were lost. Also once at the start of a run, when events have begun to come. */
  onGap(): void;
}

/** Where entries are read from: conntrack, or what is made to look like it. */
export interface EntrySource {
  /** Follows entries that come and go until the returned function is called; absent: they can only be listed. */
  follow?(follower: EntryFollower): () => void;
  /** All there are now, in batches. False: they could not be read. Never rejects. */
  list(onEntries: (entries: readonly ConntrackEntry[]) => void): Promise<boolean>;
}

/** Options of conntrack that say which entries: the kernel applies them. */
export type EntryFilter = readonly string[];

/** Entries whose marks agree with `value` in the bits of `mask`. */
export function markFilter(value: number, mask: number): EntryFilter {
  return ['--mark', `0x${value.toString(16)}/0x${mask.toString(16)}`];
}

/** The kernel's connection tracking, by the conntrack tool. */
export class Conntrack {
  readonly #clock: Clock;
  readonly #tools: Tools;

  constructor({ clock, tools }: { readonly clock: Clock; readonly tools: Tools }) {
    this.#clock = clock;
    this.#tools = tools;
  }

  /** Follows entries that come and go, until the returned function is called; starts again whenever conntrack ends. */
  follow(filter: EntryFilter, follower: EntryFollower): () => void {
    const clock = this.#clock;
    const backoff = new Backoff(RESTART);
    const args = ['-E', ...filter, '-o', 'id', '-e', 'NEW,DESTROY', '-b', `${BUFFER_BYTES}`];
    let stopped = false;
    let stopRun = (): void => undefined;
    let cancelTimer = (): void => undefined;
    const run = (): void => {
      const startedMs = clock.monotonicMs();
      let isReady = false;
      const ready = (): void => {
        if (!isReady) follower.onGap();
        isReady = true;
      };
      cancelTimer = clock.setTimer(READY_MS, ready, { unref: true });
      stopRun = this.#tools.follow('conntrack', args, {
        onLines: (lines) => {
          if (!stopped) follower.onEntries(parseEntries(lines));
        },
        onComplaint: (line) => {
          if (stopped) return;
          if (line.includes(READY)) ready();
          else if (line.includes(LOST)) follower.onGap();
        },
        onEnd: () => {
          cancelTimer();
          if (stopped) return;
          if (clock.monotonicMs() - startedMs >= GOOD_RUN_MS) backoff.reset();
          cancelTimer = clock.setTimer(backoff.nextMs(), run, { unref: true });
        },
      });
    };
    run();
    return () => {
      stopped = true;
      cancelTimer();
      stopRun();
    };
  }

  /**
   * All entries there are now, a batch at a time: however many, they are not held at once. Without `-f` in the filter,
   * of both families. The failure, after which entries may be missing. Never rejects.
   */
  async list(
    filter: EntryFilter,
    onEntries: (entries: readonly ConntrackEntry[]) => void,
  ): Promise<BalancerError | undefined> {
    const families = filter.includes('-f') ? [[]] : FAMILIES.map((family) => ['-f', family]);
    for (const family of families) {
      const failure = await this.#list(['-L', ...family, ...filter, '-o', 'id'], onEntries);
      if (failure !== undefined) return failure;
    }
    return undefined;
  }

  #list(
    args: readonly string[],
    onEntries: (entries: readonly ConntrackEntry[]) => void,
  ): Promise<BalancerError | undefined> {
    return new Promise((resolve) => {
      const complaints: string[] = [];
      const end = (failure: string): void => {
        cancel();
        const outcome = { exitCode: undefined, stdout: '', stderr: complaints.join('\n'), failure };
        resolve(failure === 'exit code 0' ? undefined : toolFailure('conntrack', outcome));
      };
      let stop = (): void => undefined;
      const cancel = this.#clock.setTimer(LIST_TIMEOUT_MS, () => {
        stop();
        end('timeout');
      });
      stop = this.#tools.follow('conntrack', args, {
        onLines: (lines) => onEntries(parseEntries(lines)),
        onComplaint: (line) => complaints.push(line),
        onEnd: end,
      });
    });
  }
}

/**
 * Deletes the entries of each filter: the next packet of their flows is the first of a flow. That there are none is no
 * failure. Never rejects.
 *
 * @returns the failure of the first that could not be deleted.
 */
export async function forgetFlows(
  tools: Tools,
  filters: readonly EntryFilter[],
): Promise<BalancerError | undefined> {
  let first: BalancerError | undefined;
  for (const filter of filters) {
    const outcome = await tools.run('conntrack', ['-D', ...filter]);
    if (succeeded(outcome) || outcome.stderr.includes(' 0 flow entries')) continue;
    first ??= toolFailure('conntrack', outcome);
  }
  return first;
}

/** Addresses of this machine that are shared by many origins. */
const MOST_SHARED = 1024;

/** Where datagrams of captured UDP sockets come from. */
export function conntrackOrigins(conntrack: Conntrack): OriginFeed {
  const filterOf = (port: number): EntryFilter => ['-p', 'udp', '--reply-port-src', `${port}`];
  const shared = new Map<string, string>();
  const share = (text: string): string => {
    const known = shared.get(text);
    if (known !== undefined) return known;
    if (shared.size >= MOST_SHARED) shared.clear();
    const own = copied(text);
    shared.set(own, own);
    return own;
  };
  const originOf = ({ id, original, reply, remainingSeconds }: ConntrackEntry): FlowOrigin => {
    const seenAddress = copied(reply.destination);
    return {
      id,
      receiver: share(reply.source),
      seenAddress,
      seenPort: reply.destinationPort,
      source: original.source === seenAddress ? seenAddress : copied(original.source),
      sourcePort: original.sourcePort,
      destination: share(original.destination),
      destinationPort: original.destinationPort,
      remainingMs: Math.max(0, remainingSeconds) * 1000,
    };
  };
  return {
    follow: (port, follower) =>
      conntrack.follow(filterOf(port), {
        onEntries: (entries) => {
          for (const entry of entries) {
            if (entry.event === 'new') follower.onNew(originOf(entry));
            else if (entry.event === 'gone') follower.onGone(originOf(entry));
          }
        },
        onGap: () => follower.onGap(),
      }),
    list: async (port) => {
      const origins: FlowOrigin[] = [];
      const failure = await conntrack.list(filterOf(port), (entries) =>
        origins.push(...entries.map(originOf)),
      );
      return failure === undefined ? origins : undefined;
    },
  };
}
