import { createHash } from 'node:crypto';
import { forgetFlows } from './conntrack.js';
import {
  deleteRouting,
  instanceTag,
  ipCommandLine,
  listOwnRouting,
  tableOf,
  without,
  type RoutingEntry,
} from './routing.js';
import {
  type TableFamily,
  TABLE_FAMILIES,
  type KernelSetup,
  type Elements,
  tableName,
  replaceTableText,
  removeTableText,
} from './setup.js';
import { succeeded, toolFailure, type Tools } from './tools.js';

/** 131,070 elements take 0.6 s; a busy machine takes longer. */
const TRANSACTION_TIMEOUT_MS = 60_000;

/** Tries a transaction without keeping it. Rejects with BalancerError. */
export async function checkTransaction(tools: Tools, text: string): Promise<void> {
  await run(tools, ['-c', '-f', '-'], text);
}

/** All of it or nothing. Rejects with BalancerError. */
export async function runTransaction(tools: Tools, text: string): Promise<void> {
  await run(tools, ['-f', '-'], text);
}

export async function replaceTable(tools: Tools, setup: KernelSetup): Promise<void> {
  const text = replaceTableText(setup);
  const carried = await carriedText(tools, setup);
  const whole = runTransaction(tools, `${text}${carried}`);
  await (carried === '' ? whole : whole.catch(() => runTransaction(tools, text)));
  // It was of another mode before.
  for (const family of await familiesOf(tools, setup.table)) {
    if (family !== (setup.family ?? 'inet')) {
      await runTransaction(tools, removeTableText(setup.table, family));
    }
  }
}

/** It may be absent already. */
async function removeTable(tools: Tools, table: string): Promise<void> {
  for (const family of new Set<TableFamily>(['inet', ...(await familiesOf(tools, table))])) {
    await runTransaction(tools, removeTableText(table, family));
  }
}

/** The families in which there is a table of that name. */
async function familiesOf(tools: Tools, table: string): Promise<readonly TableFamily[]> {
  // `list tables` fetches all elements of all tables (1.0.6), for seconds; chains are listed table by table, without.
  const { stdout } = await tools.run('nft', ['list', 'chains']);
  const lines = new Set(stdout.split('\n'));
  return TABLE_FAMILIES.filter((family) => lines.has(`table ${tableName({ table, family })} {`));
}

/**
 * The table as nft lists it with handles, without elements and counters; undefined: there is none. With handles, since
 * a table that was made anew has others. Rejects with BalancerError.
 */
export async function listStructure(tools: Tools, table: string): Promise<string | undefined> {
  // Listing one table fetches its elements, for seconds: the whole ruleset is listed without them.
  const all = await tools.run('nft', ['-a', '-s', '-t', 'list', 'ruleset']);
  if (succeeded(all)) return tableBlock(all.stdout, table);
  // Tables of others may hold what this nft cannot list: 1.0.6 aborts at some that 1.1 has made.
  let listed = '';
  for (const family of TABLE_FAMILIES) {
    const own = await tools.run('nft', ['-a', '-s', '-t', 'list', 'table', family, table]);
    if (succeeded(own)) listed += own.stdout;
    else if (all.failure === undefined) throw toolFailure('nft', all);
    else if (!own.stderr.includes('No such file or directory')) throw toolFailure('nft', own);
  }
  return tableBlock(listed, table);
}

/** What the setup's sets and maps hold in the kernel. Rejects with BalancerError. */
export async function foundElements(tools: Tools, setup: KernelSetup): Promise<KernelSetup['sets']> {
  const found = new Map<string, Elements>();
  for (const name of setup.sets.keys()) {
    const args = ['-s', 'list', kindOf(setup, name), ...tableName(setup).split(' '), name];
    const outcome = await tools.run('nft', args, { timeoutMs: TRANSACTION_TIMEOUT_MS });
    if (!succeeded(outcome)) throw toolFailure('nft', outcome);
    found.set(name, listedElements(outcome.stdout));
  }
  return found;
}

function kindOf({ structure }: Pick<KernelSetup, 'structure'>, name: string): 'map' | 'set' {
  return new RegExp(`^\\s*map ${name} `, 'm').test(structure) ? 'map' : 'set';
}

async function run(tools: Tools, args: readonly string[], input: string): Promise<void> {
  const outcome = await tools.run('nft', args, { input, timeoutMs: TRANSACTION_TIMEOUT_MS });
  if (!succeeded(outcome)) throw toolFailure('nft', outcome);
}

/*
 * What nft lists. The structure is compared with what was listed when it was put in place, since nft words it in its
 * own way; elements are compared with what they should be.
 */

/** A table's part of `nft list ruleset`, of either family or both; undefined: there is no such table. */
export function tableBlock(ruleset: string, table: string): string | undefined {
  const blocks = TABLE_FAMILIES.flatMap((family) => blockOf(ruleset, `table ${family} ${table} {`) ?? []);
  return blocks.length === 0 ? undefined : blocks.join('\n');
}

function blockOf(ruleset: string, head: string): string | undefined {
  let start = ruleset.startsWith(head) ? 0 : ruleset.indexOf(`\n${head}`);
  if (start < 0) return undefined;
  if (start > 0) start += 1;
  const end = ruleset.indexOf('\n}', start);
  return ruleset.slice(start, end < 0 ? undefined : end + 2);
}

/** The elements in the listing of one set or map. */
export function listedElements(listing: string): Elements {
  const elements = new Map<string, string>();
  const start = listing.indexOf('elements = {');
  if (start < 0) return elements;
  const end = listing.indexOf('}', start);
  for (const part of listing.slice(listing.indexOf('{', start) + 1, end).split(',')) {
    const text = part.trim();
    const colon = text.indexOf(' : ');
    if (colon < 0) elements.set(text, '');
    else elements.set(text.slice(0, colon), text.slice(colon + 3));
  }
  return elements;
}

/** What is wrong with the elements of a set; undefined: nothing. */
export function elementsDifference(name: string, found: Elements, expected: Elements): string | undefined {
  let wrong = 0;
  let first: string | undefined;
  for (const [key, value] of expected) {
    if (found.get(key) === value) continue;
    wrong += 1;
    first ??= key;
  }
  if (first !== undefined) {
    return `${name} must have ${first}${wrong > 1 ? ` and ${wrong - 1} more` : ''}, which it has not or otherwise`;
  }
  if (found.size === expected.size) return undefined;
  const [stranger] = [...found.keys()].filter((key) => !expected.has(key));
  return `${name} has ${stranger ?? 'something'}, which must not be there`;
}

/**
 * Takes away what an instance has left in the kernel, whatever its configuration was and however it ended; another
 * instance's stays. The caller sees to it that it does not run. Rejects with BalancerError when something could not be
 * removed.
 *
 * @returns what was there, one line each: `table inet haports`, `ip -4 route local 240.7.0.0/16 ...`.
 */
export async function flushInstance(tools: Tools, instance: string): Promise<readonly string[]> {
  const table = tableOf(instance);
  const removed: string[] = [];
  const listed = await listStructure(tools, table);
  if (listed !== undefined) {
    await removeTable(tools, table);
    removed.push(...Array.from(listed.matchAll(/^(table \w+ \S+) \{/gm), ([, name = '']) => name));
  }
  const entries = await listOwnRouting(tools, instanceTag(instance));
  // UDP flows that still lead to private addresses would go on doing so while their clients send. What cannot be
  // forgotten (no conntrack here, say) ends by itself.
  await forgetFlows(tools, entries.flatMap(flowsTo));
  const failure = await deleteRouting(tools, entries);
  if (failure !== undefined) throw failure;
  return [...removed, ...entries.map((entry) => ipCommandLine('add', entry).replace(' add ', ' '))];
}

/** The first address of the prefix stands for the frontend's UDP socket. conntrack takes no prefix here. */
function flowsTo({ object, family, args }: RoutingEntry): string[][] {
  const [, prefix] = args;
  if (object !== 'route' || prefix === undefined || prefix === 'default') return [];
  return [['-f', `ipv${family}`, '-p', 'udp', '--reply-src', prefix.replace(/\/.*/, '')]];
}

/** What is wrong with it. */
export interface Damage {
  /** With the table, for people; undefined: nothing. */
  readonly table?: string;
  /** What is missing. */
  readonly routing: readonly RoutingEntry[];
}

/** Compares the kernel with what was put in place. Elements take nft most of a second. Rejects with BalancerError. */
export async function findDamage(
  tools: Tools,
  { setup, structure }: Installed,
  depth: 'structure' | 'elements-too',
): Promise<Damage> {
  const routing = without(setup.routing, await listOwnRouting(tools, setup.tag, setup.routing));
  const found = await listStructure(tools, setup.table);
  if (found === undefined) return { table: `Table ${tableName(setup)} was gone`, routing };
  if (withoutSeal(found) !== structure) return { table: `Table ${tableName(setup)} was altered`, routing };
  if (depth === 'structure') return { routing };
  const elements = await foundElements(tools, setup);
  for (const [name, expected] of setup.sets) {
    const evidence = elementsDifference(name, elements.get(name) ?? new Map(), expected);
    if (evidence !== undefined) return { table: evidence, routing };
  }
  return { routing };
}

/** What was put in place. */
export interface Installed {
  readonly setup: KernelSetup;
  /** As listed just after it was put in place; undefined: that failed, and it is put in place again. */
  readonly structure: string | undefined;
}

/*
 * How a process finds the table of the one before as it left it: an empty chain whose name says what structure was asked
 * for, and how the kernel listed it. Handles are in the listing, so whatever others have changed shows.
 */

const SEAL = /\tchain as-([0-9a-f]+)-([0-9a-f]+) \{[^}]*\}\n+/;

/** Digits of a digest: texts by chance alike are out of the question. */
const DIGEST_CHARS = 20;

/** The table as listed, but for its seal. */
export function withoutSeal(listing: string): string {
  const seal = SEAL.exec(listing);
  return seal === null ? listing : listing.replace(SEAL, '').replace(/\n+(?=\}$)/, '\n');
}

/**
 * Makes a table that was just put in place known to a process that comes later. Rejects with BalancerError.
 *
 * @returns the table as listed.
 */
export async function sealTable(tools: Tools, setup: KernelSetup): Promise<string | undefined> {
  const listing = await listStructure(tools, setup.table);
  if (listing === undefined) return undefined;
  const text = withoutSeal(listing);
  await runTransaction(tools, `add chain ${tableName(setup)} ${sealOf(setup, text)}\n`);
  return text;
}

/**
 * The table that is in the kernel already, with the elements that it has; undefined: there is none, or it is not of that
 * structure, or it was altered. Rejects with BalancerError.
 */
export async function findSealed(tools: Tools, setup: KernelSetup): Promise<Installed | undefined> {
  const listing = await listStructure(tools, setup.table);
  if (listing === undefined) return undefined;
  const structure = withoutSeal(listing);
  if (!listing.includes(`\tchain ${sealOf(setup, structure)} {`)) return undefined;
  return { setup: { ...setup, sets: await foundElements(tools, setup) }, structure };
}

function sealOf({ structure }: KernelSetup, listing: string): string {
  return `as-${digest(structure)}-${digest(listing)}`;
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, DIGEST_CHARS);
}

/** Flow maps can be large. */
const TIMEOUT_MS = 20_000;

/**
 * Lines that put what packets have put into sets of the old table into those of the same names of the new one; '' where
 * there is nothing. A transaction with them can fail where a set was declared otherwise.
 */
export async function carriedText(
  tools: Tools,
  setup: Pick<KernelSetup, 'table' | 'family' | 'structure' | 'carried'>,
): Promise<string> {
  const lines: string[] = [];
  const table = tableName(setup);
  for (const name of setup.carried ?? []) {
    const args = ['list', kindOf(setup, name), ...table.split(' '), name];
    const listed = await tools.run('nft', args, { timeoutMs: TIMEOUT_MS });
    const [, elements] = /elements = (\{[^}]*\})/.exec(listed.stdout) ?? [];
    if (succeeded(listed) && elements !== undefined) {
      // An element that another timeout has refreshed may have more time left than its own, which nft refuses to set.
      const text = elements.replaceAll(/ timeout \w+ expires (\w+)/g, ' timeout $1');
      lines.push(`add element ${table} ${name} ${text}\n`);
    }
  }
  return lines.join('');
}
