import type { FlowOrigin, OriginFeed, OriginFollower } from '../../model/flow.js';
import { Backoff } from '../../runtime/backoff.js';
import type { Clock } from '../../runtime/clock.js';
import type { Tools } from './tools.js';

/** What became of an entry; `listed`: nothing, it is there. */
export type EntryEvent = 'new' | 'updated' | 'gone' | 'listed';

/** One way of an entry. Bytes and packets are 0 where the kernel does not count them. */
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

/** An entry of the kernel's connection tracking. Texts may be windows on what they were read from: copy what you keep. */
export interface ConntrackEntry {
  readonly event: EntryEvent;
  /** IP protocol number. */
  readonly protocol: number;
  /** Seconds until it goes, if no packet comes; -1 where that was not told. */
  readonly remainingSeconds: number;
  /** `ESTABLISHED`, `TIME_WAIT` ...; '' where the protocol has no states. */
  readonly state: string;
  readonly original: EntryDirection;
  readonly reply: EntryDirection;
  /** Never answered; what refused a connection has not answered either. */
  readonly unreplied: boolean;
  /** Deleted by a program, not by time or by a packet. */
  readonly byProgram: boolean;
  readonly mark: number;
  /** Seconds since its first packet; undefined where the kernel does not note that. */
  readonly ageSeconds: number | undefined;
  /** 32 bits, the same from first to last; two entries may have the same. */
  readonly id: number;
}

interface Direction {
  source: string;
  destination: string;
  sourcePort: number;
  destinationPort: number;
  packets: number;
  bytes: number;
}

/**
 * Parses a line of `conntrack -E` or `-L`, with `-o id`:
 *
 *     [NEW] tcp      6 120 SYN_SENT src=C dst=F sport=CP dport=FP [UNREPLIED] src=B dst=C sport=BP dport=CP mark=1 id=2
 *
 * Fields that it does not know are passed over, since versions and options differ in them. Undefined: it is no such line.
 */
export function parseConntrackEntry(line: string): ConntrackEntry | undefined {
  const event = eventOf(line);
  let at = event === 'listed' ? 0 : line.indexOf(']') + 1;
  const ways: Direction[] = [];
  let way: Direction | undefined;
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
      if (ways.length === 0) {
        if (words === 1) protocol = number(line, at);
        else if (words > 1 && isDigit(line, at)) remainingSeconds = number(line, at);
        else if (words > 1) state = line.slice(at, end);
      } else if (line.startsWith('[UNREPLIED]', at)) unreplied = true;
      else if (line.startsWith('[USERSPACE]', at)) byProgram = true;
    } else {
      const value = equals + 1;
      switch (line.slice(at, equals)) {
        case 'src':
          way = { source: '', destination: '', sourcePort: 0, destinationPort: 0, packets: 0, bytes: 0 };
          way.source = word(line, value);
          ways.push(way);
          break;
        case 'dst':
          if (way !== undefined) way.destination = word(line, value);
          break;
        case 'sport':
          if (way !== undefined) way.sourcePort = number(line, value);
          break;
        case 'dport':
          if (way !== undefined) way.destinationPort = number(line, value);
          break;
        case 'packets':
          if (way !== undefined) way.packets = number(line, value);
          break;
        case 'bytes':
          if (way !== undefined) way.bytes = number(line, value);
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
  const [original, reply] = ways;
  if (original === undefined || reply === undefined || protocol < 0 || id < 0) return undefined;
  return {
    ...{ event, protocol, remainingSeconds, state, original, reply, unreplied, byProgram, mark },
    ...{ ageSeconds, id },
  };
}

const SPACE = 0x20;

function endOfWord(line: string, at: number): number {
  const end = line.indexOf(' ', at);
  return end < 0 ? line.length : end;
}

function isDigit(line: string, at: number): boolean {
  const code = line.charCodeAt(at);
  return code >= 0x30 && code <= 0x39;
}

function eventOf(line: string): EntryEvent {
  const bracket = line.indexOf('[');
  switch (line.charAt(bracket + 1)) {
    case 'N':
      return 'new';
    case 'D':
      return 'gone';
    case 'U':
      // `[UNREPLIED]` of a listed one.
      return line.charAt(bracket + 2) === 'P' ? 'updated' : 'listed';
    default:
      return 'listed';
  }
}

/** A full table of a million entries takes about that long. */
const LIST_TIMEOUT_MS = 10_000;

/** UDP origins as `conntrack -E` tells of them, run again whenever it ends. */
export class ConntrackEvents implements OriginFeed {
  readonly #deps: ConntrackDeps;
  readonly #lines = new ConntrackLines();

  constructor(deps: ConntrackDeps) {
    this.#deps = deps;
  }

  follow(port: number, follower: OriginFollower): () => void {
    return followConntrack(this.#deps, filterOf(port), {
      onLines: (lines) => {
        for (const line of lines) this.#tell(line, follower);
      },
      onGap: () => follower.onGap(),
    });
  }

  async list(port: number): Promise<readonly FlowOrigin[] | undefined> {
    // Without a family, some versions tell of IPv4 alone.
    const outcomes = await Promise.all(
      ['ipv4', 'ipv6'].map((family) =>
        this.#deps.tools.run('conntrack', ['-L', '-f', family, ...filterOf(port)], {
          timeoutMs: LIST_TIMEOUT_MS,
        }),
      ),
    );
    if (outcomes.some(({ exitCode }) => exitCode !== 0)) return undefined;
    return outcomes.flatMap(({ stdout }) =>
      stdout.split('\n').flatMap((line) => this.#lines.parse(line) ?? []),
    );
  }

  #tell(line: string, follower: OriginFollower): void {
    const kind = line.charAt(line.indexOf('[') + 1);
    if (kind !== 'N' && kind !== 'D') return;
    const origin = this.#lines.parse(line);
    if (origin === undefined) return;
    if (kind === 'N') follower.onNew(origin);
    else follower.onGone(origin);
  }
}

function filterOf(port: number): readonly string[] {
  return ['-p', 'udp', '--reply-port-src', `${port}`, '-o', 'id'];
}

/** A full table of a million entries takes about that long. */
const CONNTRACK_FLOWS_LIST_TIMEOUT_MS = 10_000;

/** Without a family, some versions list IPv4 alone. */
const FAMILIES = ['ipv4', 'ipv6'] as const;

/** What `conntrack -L` ends with when all is well. */
const SUCCESS = 'exit code 0';

export interface EntryFollower {
  /** Entries that are new or gone, in batches as they come. */
  onEntries(entries: readonly ConntrackEntry[]): void;
  /** What is known may be wrong: events were lost. Also once at the start of a run, when events have begun to come. */
  onGap(): void;
}

/** Which marks: those that agree with `value` in the bits of `mask`. */
export interface MarkFilter {
  readonly value: number;
  readonly mask: number;
}

/** Entries of conntrack whose marks pass a filter, which the kernel applies. */
export class ConntrackFlows {
  readonly #deps: ConntrackDeps;
  readonly #filter: readonly string[];

  constructor(deps: ConntrackDeps, { value, mask }: MarkFilter) {
    this.#deps = deps;
    this.#filter = ['--mark', `0x${value.toString(16)}/0x${mask.toString(16)}`, '-o', 'id'];
  }

  /** Until the returned function is called. */
  follow(follower: EntryFollower): () => void {
    return followConntrack(this.#deps, this.#filter, {
      onLines: (lines) => follower.onEntries(entriesOf(lines)),
      onGap: () => follower.onGap(),
    });
  }

  /** All there are now, a batch at a time: however many, they are not held at once. False: that failed. Never rejects. */
  async list(onEntries: (entries: readonly ConntrackEntry[]) => void): Promise<boolean> {
    for (const family of FAMILIES) if (!(await this.#listFamily(family, onEntries))) return false;
    return true;
  }

  #listFamily(family: string, onEntries: (entries: readonly ConntrackEntry[]) => void): Promise<boolean> {
    const { clock, tools } = this.#deps;
    return new Promise((resolve) => {
      let stop = (): void => undefined;
      const cancel = clock.setTimer(CONNTRACK_FLOWS_LIST_TIMEOUT_MS, () => {
        stop();
        resolve(false);
      });
      stop = tools.follow('conntrack', ['-L', '-f', family, ...this.#filter], {
        onLines: (lines) => onEntries(entriesOf(lines)),
        onComplaint: () => undefined,
        onEnd: (evidence) => {
          cancel();
          resolve(evidence === SUCCESS);
        },
      });
    });
  }
}

function entriesOf(lines: readonly string[]): ConntrackEntry[] {
  const entries: ConntrackEntry[] = [];
  for (const line of lines) {
    const entry = parseConntrackEntry(line);
    if (entry !== undefined) entries.push(entry);
  }
  return entries;
}

/**
 * The kernel doubles it. conntrack 1.4.7 gives it to another of its sockets than that of the events, which keeps
 * net.core.rmem_default: 166 events fit into 208 KiB. More at once are lost if it does not get to run in time: a gap.
 */
const BUFFER_BYTES = 8_388_608;

/** conntrack says that it has set its buffer, once events come; if it does not, they come after that at the latest. */
const READY_MS = 3000;
const READY = 'buffer size has been set';
const LOST = 'ENOBUFS';

/** Meanwhile nobody hears of entries that go. */
const FIRST_RESTART_MS = 100;
const MOST_RESTART_MS = 2000;
/** A run as long as that was a good one. */
const GOOD_RUN_MS = 1000;

export interface ConntrackFollower {
  /** Lines of events, in batches as they come. */
  onLines(lines: readonly string[]): void;
  /** What is known may be wrong: events were lost. Also once at the start of a run, when events have begun to come. */
  onGap(): void;
}

export interface ConntrackDeps {
  readonly clock: Clock;
  readonly tools: Tools;
}

/** Follows entries that come and go, until the returned function is called; begins again whenever conntrack ends. */
export function followConntrack(
  { clock, tools }: ConntrackDeps,
  filter: readonly string[],
  follower: ConntrackFollower,
): () => void {
  const backoff = new Backoff({ firstMs: FIRST_RESTART_MS, maxMs: MOST_RESTART_MS });
  const args = ['-E', ...filter, '-e', 'NEW,DESTROY', '-b', `${BUFFER_BYTES}`];
  let stopped = false;
  let stopRun = (): void => undefined;
  let cancelTimer = (): void => undefined;
  const run = (): void => {
    const startedMs = clock.monotonicMs();
    const ready = once(() => follower.onGap());
    cancelTimer = clock.setTimer(READY_MS, ready, { unref: true });
    stopRun = tools.follow('conntrack', args, {
      onLines: (lines) => {
        if (!stopped) follower.onLines(lines);
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

function once(callback: () => void): () => void {
  let called = false;
  return () => {
    if (called) return;
    called = true;
    callback();
  };
}

/** Texts kept of which each occurs in many lines. */
const MOST_SHARED = 1024;

/**
 * Parses lines of `conntrack -E` and `-L`, with `-o id`, of protocols that have ports:
 *
 *     [NEW] udp      17 30 src=C dst=F sport=CP dport=FP [UNREPLIED] src=R dst=S sport=RP dport=SP id=2286605049
 *
 * There may be more fields between, and `[DESTROY]` may lack the seconds.
 */
export class ConntrackLines {
  /** Addresses of this machine. What is cut out of a line would keep the whole batch of lines in memory. */
  readonly #shared = new Map<string, string>();

  /** Undefined: it is no such line. */
  parse(line: string): FlowOrigin | undefined {
    const source = line.indexOf('src=');
    const destination = line.indexOf('dst=', source);
    const sourcePort = line.indexOf('sport=', destination);
    const destinationPort = line.indexOf('dport=', sourcePort);
    const receiver = line.indexOf('src=', destinationPort);
    const seen = line.indexOf('dst=', receiver);
    const seenPort = line.indexOf('dport=', seen);
    const id = line.indexOf(' id=', seenPort);
    // indexOf starts anew at 0 after a -1, so the order has to be looked at.
    const isWhole =
      source >= 0 &&
      destination > source &&
      sourcePort > destination &&
      destinationPort > sourcePort &&
      receiver > destinationPort &&
      seen > receiver &&
      seenPort > seen &&
      id > seenPort;
    if (!isWhole) return undefined;
    const seenAddress = copied(word(line, seen + 4));
    const client = word(line, source + 4);
    return {
      id: number(line, id + 4),
      receiver: this.#sharedText(word(line, receiver + 4)),
      seenAddress,
      seenPort: number(line, seenPort + 6),
      source: client === seenAddress ? seenAddress : copied(client),
      sourcePort: number(line, sourcePort + 6),
      destination: this.#sharedText(word(line, destination + 4)),
      destinationPort: number(line, destinationPort + 6),
      remainingMs: numberBefore(line, source - 1) * 1000,
    };
  }

  #sharedText(text: string): string {
    let shared = this.#shared.get(text);
    if (shared === undefined) {
      if (this.#shared.size >= MOST_SHARED) this.#shared.clear();
      shared = copied(text);
      this.#shared.set(shared, shared);
    }
    return shared;
  }
}

/** The decimal number that ends before the space there; 0: there is none, but the protocol's number and spaces. */
function numberBefore(line: string, space: number): number {
  const start = line.lastIndexOf(' ', space - 1) + 1;
  // `udp      17 src=`: that is the protocol's.
  if (start < 2 || line.charCodeAt(start - 2) === 0x20) return 0;
  return number(line, start);
}

/*
 * Pieces of lines that conntrack writes. No regular expressions: there are tens of thousands of lines a second in a
 * storm.
 */

/** Texts that V8 copies when it cuts them out, instead of keeping the whole they were cut from. */
const COPIED_ANYWAY = 12;

/** What stands there up to the next space. */
export function word(line: string, start: number): string {
  const end = line.indexOf(' ', start);
  return line.slice(start, end < 0 ? line.length : end);
}

/** The decimal number that starts there; 0 if none does. */
export function number(line: string, start: number): number {
  let value = 0;
  for (let index = start; index < line.length; index++) {
    const digit = line.charCodeAt(index) - 0x30;
    if (digit < 0 || digit > 9) break;
    value = value * 10 + digit;
  }
  return value;
}

/** A text of its own, not a window on a longer one. */
export function copied(text: string): string {
  return text.length <= COPIED_ANYWAY ? text : Buffer.from(text, 'latin1').toString('latin1');
}
