import { parseIpAddress } from '../model/address.js';
import { configurationFromJson, type Json } from '../model/configuration-json.js';
import type { Configuration } from '../model/configuration.js';
import { errorMessage } from '../model/errors.js';
import type { FiveTuple } from '../model/five-tuple.js';
import type { PlacementReason } from '../model/flow.js';
import { splitLines } from './line-splitter.js';
import type { RecordedEpoch, RecordedMember, RecordedView } from './recorded-state.js';

/** A placement as it was logged. */
export interface RecordedDecision {
  readonly kind: 'start' | 'move';
  readonly flowId: number;
  readonly tuple: FiveTuple;
  readonly rule: string;
  readonly backendId: string;
  readonly reason: PlacementReason;
  readonly excluded: readonly string[];
  readonly epoch: number;
  readonly digest: string;
}

/** What a line of the flow log says; see docs/flow-log.md. */
export type LogEntry =
  | { readonly kind: 'config'; readonly configuration: Configuration }
  | { readonly kind: 'epoch'; readonly epoch: RecordedEpoch }
  | { readonly kind: 'decision'; readonly decision: RecordedDecision }
  | { readonly kind: 'end' }
  | { readonly kind: 'lost'; readonly lines: number }
  /** Of a type that came later than this reader: skipped, as the format demands. */
  | { readonly kind: 'other' }
  | { readonly kind: 'damaged'; readonly evidence: string };

export interface LogLine {
  /** From 1. */
  readonly number: number;
  readonly entry: LogEntry;
}

/** Of the format that this reader knows (observe/flow-lines.ts). */
const KNOWN_FORMAT = 1;

/** Reads a flow log, however long, a piece at a time. Lines that cannot be read are entries too: it never throws. */
export async function* readFlowLog(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<readonly LogLine[]> {
  for await (const lines of splitLines(chunks)) {
    yield lines.map(({ number, text }) => ({ number, entry: readEntry(text) }));
  }
}

function readEntry(text: string | undefined): LogEntry {
  if (text === undefined) return { kind: 'damaged', evidence: 'The line is too long' };
  try {
    return entryOf(new Fields(JSON.parse(text), 'the line'));
  } catch (error) {
    return { kind: 'damaged', evidence: errorMessage(error) };
  }
}

function entryOf(line: Fields): LogEntry {
  switch (line.text('type')) {
    case 'config':
      return { kind: 'config', configuration: configurationOf(line) };
    case 'epoch':
      return { kind: 'epoch', epoch: epochOf(line) };
    case 'start':
      return { kind: 'decision', decision: decisionOf(line, 'start') };
    case 'move':
      return { kind: 'decision', decision: decisionOf(line, 'move') };
    case 'end':
      return { kind: 'end' };
    case 'lost':
      return { kind: 'lost', lines: line.number('lines') };
    default:
      return { kind: 'other' };
  }
}

function configurationOf(line: Fields): Configuration {
  const format = line.number('format');
  if (format !== KNOWN_FORMAT) throw new TypeError(`The format is ${format}, must be ${KNOWN_FORMAT}`);
  const found = line.object('configuration');
  for (const key of ['frontends', 'backendPools', 'rules']) found.list(key);
  for (const key of ['seed', 'tableSize']) found.number(key);
  if (found.text('digest') !== line.text('digest'))
    throw new TypeError('The digests of the line do not agree');
  return configurationFromJson(found.value as Json);
}

function epochOf(line: Fields): RecordedEpoch {
  return {
    revision: line.number('revision'),
    digest: line.text('digest'),
    views: line.list('views').map((item): RecordedView => {
      const view = new Fields(item, 'a view');
      const priority = view.optional('servingPriority');
      return {
        key: view.text('key'),
        ...(typeof priority === 'number' ? { servingPriority: priority } : {}),
        backends: view.list('backends').map(memberOf),
      };
    }),
  };
}

function memberOf(item: unknown): RecordedMember {
  const member = new Fields(item, 'a backend');
  return {
    id: member.text('id'),
    weight: member.number('weight'),
    eligible: member.flag('eligible'),
    valid: member.flag('valid'),
    serving: member.flag('serving'),
    health: member.oneOf('health', ['unknown', 'up', 'down']),
    adminState: member.oneOf('adminState', ['none', 'up', 'down']),
    ...(member.optional('exclusion') === 'draining' ? { draining: true } : {}),
  };
}

function decisionOf(line: Fields, kind: RecordedDecision['kind']): RecordedDecision {
  return {
    kind,
    flowId: line.number('id'),
    tuple: tupleOf(line.object('tuple')),
    rule: line.text('rule'),
    backendId: line.text('backend'),
    reason: line.oneOf('reason', ['hash', 'retry', 'rebalanced', 'fail-open', 'pinned']),
    excluded: line.list('excluded').map((id) => {
      if (typeof id !== 'string') throw new TypeError('A member of "excluded" is no text');
      return id;
    }),
    epoch: line.number('epoch'),
    digest: line.text('digest'),
  };
}

function tupleOf(tuple: Fields): FiveTuple {
  const source = tuple.address('source');
  const destination = tuple.address('destination');
  if (source.family !== destination.family) throw new TypeError('The addresses are of two families');
  return {
    protocol: tuple.oneOf('protocol', ['tcp', 'udp']),
    source,
    sourcePort: tuple.port('sourcePort'),
    destination,
    destinationPort: tuple.port('destinationPort'),
  };
}

/** The members of an object in a line; each is asked for by name and kind, and throws a TypeError where it is not that. */
class Fields {
  readonly value: Readonly<Record<string, unknown>>;
  readonly #what: string;

  constructor(value: unknown, what: string) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw new TypeError(`Of ${what} there is no object`);
    }
    this.value = value as Readonly<Record<string, unknown>>;
    this.#what = what;
  }

  optional(key: string): unknown {
    return this.value[key];
  }

  text(key: string): string {
    const found = this.value[key];
    return typeof found === 'string' ? found : this.#not(key, 'text');
  }

  number(key: string): number {
    const found = this.value[key];
    return typeof found === 'number' ? found : this.#not(key, 'a number');
  }

  flag(key: string): boolean {
    const found = this.value[key];
    return typeof found === 'boolean' ? found : this.#not(key, 'true or false');
  }

  port(key: string): number {
    const found = this.number(key);
    return Number.isInteger(found) && found >= 0 && found <= 65_535 ? found : this.#not(key, 'a port');
  }

  address(key: string): NonNullable<ReturnType<typeof parseIpAddress>> {
    return parseIpAddress(this.text(key)) ?? this.#not(key, 'an IP address');
  }

  list(key: string): readonly unknown[] {
    const found = this.value[key];
    return Array.isArray(found) ? found : this.#not(key, 'a list');
  }

  object(key: string): Fields {
    return new Fields(this.value[key], `"${key}" of ${this.#what}`);
  }

  oneOf<T extends string>(key: string, words: readonly T[]): T {
    const found = this.value[key];
    return words.find((word) => word === found) ?? this.#not(key, words.join(', '));
  }

  #not(key: string, expected: string): never {
    throw new TypeError(`"${key}" of ${this.#what} must be ${expected}`);
  }
}
