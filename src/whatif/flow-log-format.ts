import { configurationFromJson, type Json } from '../api/configuration-json.js';
import { parseIpAddress, type FiveTuple } from '../model/address.js';
import type {
  AdminState,
  Backend,
  BackendPool,
  Configuration,
  HealthState,
  Rule,
} from '../model/configuration.js';
import { errorMessage } from '../model/errors.js';
import type { PlacementReason } from '../model/flow.js';
import { viewKey, type BackendState, type ForwardingState, type PoolView } from '../model/forwarding.js';
import type { CompilerInputs } from '../selection/compiler.js';
import type { Hash32 } from '../selection/flow-hash.js';
import { buildMaglevTable, type MaglevMember } from '../selection/maglev.js';
import { effectiveEligibility } from '../selection/pool.js';

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

/** One backend, by the probe that saw it so; no probe: an empty name. */
type Seen = ReadonlyMap<string, RecordedMember>;

/** While a member is in slow start, weights are recorded this many times as large (BackendState). */
const RAMP_SCALE = 100;

/** Members in slow start get so many times a multiple of their weight (control/slow-start.ts). */
const RAMP_STEP = 10;

/**
 * What swayed the state of an epoch, so that the state can be compiled again, and with something else supposed. Gives the
 * same tables. Backends that the epoch does not have are taken for up.
 */
export function inputsOfEpoch({ views }: RecordedEpoch, pools: readonly BackendPool[]): CompilerInputs {
  const byBackend = new Map<string, Map<string, RecordedMember>>();
  for (const { key, backends } of views) {
    const probe = key.slice(key.indexOf('|') + 1);
    for (const member of backends) {
      const seen = byBackend.get(member.id) ?? new Map<string, RecordedMember>();
      byBackend.set(member.id, seen.set(probe, member));
    }
  }
  const ramping = new Set(
    pools
      .filter((pool) => isRamping(pool, byBackend))
      .flatMap(({ backends }) => backends.map(({ id }) => id)),
  );
  const anyOf = ({ id }: Backend): RecordedMember | undefined => byBackend.get(id)?.values().next().value;
  const weightIn = (backend: Backend, { weight }: RecordedMember): number => {
    if (!ramping.has(backend.id)) return weight;
    return weight < backend.weight * RAMP_SCALE ? backend.weight : weight / RAMP_SCALE;
  };
  return {
    health(backend, probe) {
      const member = byBackend.get(backend.id)?.get(probe);
      if (member === undefined) return { state: 'up' };
      return { state: member.health, weight: weightIn(backend, member) };
    },
    adminState: (backend) => anyOf(backend)?.adminState ?? backend.adminState,
    draining: (backend) => anyOf(backend)?.draining === true,
    endSpreadMs: (backend) => (hasDrainEnded(anyOf(backend)) ? 0 : undefined),
    // Where probes weigh it differently, each view has its own; else it may be the operator's wish, which outranks them.
    weight(backend) {
      const weights = new Set(
        [...(byBackend.get(backend.id)?.values() ?? [])].map((one) => weightIn(backend, one)),
      );
      return weights.size === 1 ? weights.values().next().value : undefined;
    },
    rampPercent(backend) {
      const member = anyOf(backend);
      if (member === undefined || !ramping.has(backend.id)) return 100;
      return member.weight < backend.weight * RAMP_SCALE ? member.weight / backend.weight : 100;
    },
  };
}

/** Told from the weights alone; where it is not seen, they are taken as they stand, which gives the same table. */
function isRamping({ slowStartMs, backends }: BackendPool, byBackend: ReadonlyMap<string, Seen>): boolean {
  if (slowStartMs === undefined) return false;
  let starting = 0;
  let full = 0;
  for (const { id, weight: configured } of backends) {
    for (const { weight } of byBackend.get(id)?.values() ?? []) {
      if (weight === 0) continue;
      const isStarting = weight < configured * RAMP_SCALE;
      if (weight % (isStarting ? configured * RAMP_STEP : RAMP_SCALE) !== 0) return false;
      if (isStarting) starting++;
      else full++;
    }
  }
  return starting > 0 && full > 0;
}

/** Its flows may not stay, though neither the probe nor the operator's switch says so. How fast they end is not recorded. */
function hasDrainEnded(member: RecordedMember | undefined): boolean {
  if (member?.draining !== true || member.valid) return false;
  return effectiveEligibility(member.health, member.adminState, true).valid;
}

/** A backend as an epoch of the flow log has it. */
export interface RecordedMember {
  readonly id: string;
  readonly weight: number;
  readonly eligible: boolean;
  readonly valid: boolean;
  readonly serving: boolean;
  readonly health: HealthState;
  readonly adminState: AdminState;
  /** @default false */
  readonly draining?: boolean;
}

export interface RecordedView {
  /** `pool|probe`. */
  readonly key: string;
  readonly servingPriority?: number;
  readonly backends: readonly RecordedMember[];
}

export interface RecordedEpoch {
  readonly revision: number;
  readonly digest: string;
  readonly views: readonly RecordedView[];
}

/** A state, or why there is none. */
export type RecordedStateResult = ForwardingState | 'unknown-epoch' | 'unknown-configuration';

/** What is kept of a log that may be far longer than memory. A flow names an epoch that is seconds old at most. */
const MOST_CONFIGURATIONS = 16;
const MOST_EPOCHS = 1024;
const MOST_MEMBERS = 200_000;
const MOST_STATES = 16;
const MOST_TABLES = 64;

/** The schema's limit: a larger one is no table of haports, and would only take memory. */
const MOST_SLOTS = 655_373;

/** Builds forwarding states again from what the flow log says of them. Remembers the last ones, within bounds. */
export class RecordedStates {
  readonly #hash: Hash32;
  readonly #configurations = new Map<string, Configuration>();
  readonly #epochs = new Map<number, RecordedEpoch>();
  readonly #states = new Map<number, ForwardingState>();
  readonly #tables = new Map<string, Uint16Array>();
  #members = 0;
  #newest = 0;

  constructor(hash: Hash32) {
    this.#hash = hash;
  }

  addConfiguration(configuration: Configuration): void {
    this.#configurations.delete(configuration.digest);
    this.#configurations.set(configuration.digest, configuration);
    forgetOldest(this.#configurations, MOST_CONFIGURATIONS);
  }

  /** Revisions grow within one run; where they fall back, another run writes to the same file. */
  addEpoch(epoch: RecordedEpoch): void {
    if (epoch.revision < this.#newest) {
      this.#epochs.clear();
      this.#states.clear();
      this.#members = 0;
    }
    this.#newest = epoch.revision;
    this.#drop(epoch.revision);
    this.#epochs.set(epoch.revision, epoch);
    this.#members += membersOf(epoch);
    for (const revision of this.#epochs.keys()) {
      if (this.#epochs.size <= 2) break;
      if (this.#epochs.size <= MOST_EPOCHS && this.#members <= MOST_MEMBERS) break;
      this.#drop(revision);
    }
  }

  /** Throws TypeError or RangeError where the record contradicts itself. */
  state(revision: number): RecordedStateResult {
    const known = this.#states.get(revision);
    if (known !== undefined) return known;
    const epoch = this.#epochs.get(revision);
    if (epoch === undefined) return 'unknown-epoch';
    const configuration = this.#configurations.get(epoch.digest);
    if (configuration === undefined) return 'unknown-configuration';
    const state = this.#build(configuration, epoch);
    this.#states.set(revision, state);
    forgetOldest(this.#states, MOST_STATES);
    return state;
  }

  #drop(revision: number): void {
    const epoch = this.#epochs.get(revision);
    if (epoch !== undefined) this.#members -= membersOf(epoch);
    this.#epochs.delete(revision);
    this.#states.delete(revision);
  }

  #build(configuration: Configuration, { revision, views }: RecordedEpoch): ForwardingState {
    const indexes = new Map(views.map(({ key }, index) => [key, index]));
    const rules = new Map(configuration.rules.map((rule) => [viewKey(rule), rule]));
    return {
      revision,
      configuration,
      views: views.map((view) => this.#view(view, rules.get(view.key), configuration.tableSize)),
      viewOfRule: configuration.rules.map((rule) => {
        const index = indexes.get(viewKey(rule));
        if (index === undefined) throw new TypeError(`Epoch ${revision} has no view for rule "${rule.name}"`);
        return index;
      }),
    };
  }

  #view(
    { key, servingPriority, backends: recorded }: RecordedView,
    rule: Rule | undefined,
    size: number,
  ): PoolView {
    if (rule === undefined) throw new TypeError(`No rule sees its pool as view "${key}"`);
    const { pool, probe } = rule;
    const backends = new Map(pool.backends.map((backend) => [backend.id, backend]));
    const members = recorded.map((member) => memberOfRecordedState(member, backends));
    const weights = members.map(({ backend, effectiveWeight, serving }) => ({
      id: backend.id,
      weight: serving ? effectiveWeight : 0,
    }));
    const table = this.#table(weights, size);
    return {
      key,
      pool,
      ...(probe === undefined ? {} : { probe }),
      ...(servingPriority === undefined ? {} : { servingPriority }),
      backends: members,
      table,
      ...(table.length > 0 ? {} : { failOpenTable: this.#table(failOpenWeights(members), size) }),
    };
  }

  #table(members: readonly MaglevMember[], size: number): Uint16Array {
    if (size > MOST_SLOTS)
      throw new RangeError(`A table of ${size} slots is recorded, at most ${MOST_SLOTS} can be`);
    const key = `${size} ${members.map(({ id, weight }) => `${id}=${weight}`).join(' ')}`;
    const known = this.#tables.get(key);
    if (known !== undefined) return known;
    const table = buildMaglevTable(members, size, this.#hash);
    this.#tables.set(key, table);
    forgetOldest(this.#tables, MOST_TABLES);
    return table;
  }
}

function memberOfRecordedState(
  recorded: RecordedMember,
  backends: ReadonlyMap<string, Backend>,
): BackendState {
  const backend = backends.get(recorded.id);
  if (backend === undefined) throw new TypeError(`No backend "${recorded.id}" in the recorded configuration`);
  const { weight, eligible, valid, serving, health, adminState } = recorded;
  return { backend, health, adminState, effectiveWeight: weight, eligible, valid, serving };
}

/** Everybody but those switched down (control/forwarding-compiler.ts). */
function failOpenWeights(members: readonly BackendState[]): readonly MaglevMember[] {
  return members.map(({ backend, adminState, effectiveWeight }) => ({
    id: backend.id,
    weight: adminState === 'down' ? 0 : effectiveWeight,
  }));
}

function membersOf({ views }: RecordedEpoch): number {
  return views.reduce((sum, { backends }) => sum + backends.length, 0);
}

/** A Map goes through its keys in the order in which they came. */
function forgetOldest<K>(map: Map<K, unknown>, most: number): void {
  for (const key of map.keys()) {
    if (map.size <= most) return;
    map.delete(key);
  }
}

/** A line of a file; undefined text: it is longer than any that can be read. */
export interface NumberedLine {
  /** From 1. */
  readonly number: number;
  readonly text: string | undefined;
}

/** The longest line that is held: a configuration of 100,000 backends has room. In UTF-16 units. */
const MOST_LENGTH = 64 * 1024 * 1024;

/**
 * UTF-8 text cut into lines, many at a time, blank ones left out. The last may lack its line feed. Holds one line at
 * most: of one longer than `mostLength` only the number is given.
 */
export async function* splitLines(
  chunks: AsyncIterable<Uint8Array>,
  mostLength: number = MOST_LENGTH,
): AsyncGenerator<readonly NumberedLine[]> {
  const decoder = new TextDecoder();
  let number = 1;
  let rest = '';
  let tooLong = false;
  const take = (end: string): NumberedLine | undefined => {
    const text = tooLong || rest.length + end.length > mostLength ? undefined : rest + end;
    rest = '';
    tooLong = false;
    const line = { number: number++, text };
    return text?.trim() === '' ? undefined : line;
  };
  for await (const chunk of chunks) {
    const parts = decoder.decode(chunk, { stream: true }).split('\n');
    const last = parts.pop() ?? '';
    const lines = parts.map(take).filter((line) => line !== undefined);
    tooLong ||= rest.length + last.length > mostLength;
    rest = tooLong ? '' : rest + last;
    if (lines.length > 0) yield lines;
  }
  const line = rest === '' && !tooLong ? undefined : take(decoder.decode());
  if (line !== undefined) yield [line];
}
