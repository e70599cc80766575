import { number, word } from './conntrack-text.js';

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
