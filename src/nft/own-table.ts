import type { BalancerError } from '../model/errors.js';
import { carriedText } from './carry-over.js';
import {
  replaceTableText,
  removeTableText,
  TABLE_FAMILIES,
  tableName,
  type Elements,
  type KernelSetup,
  type TableFamily,
} from './kernel-setup.js';
import { elementsDifference, listedElements, tableBlock } from './table-listing.js';
import { succeeded, toolFailure } from './tool-failure.js';
import type { Tools } from './tools.js';

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
  if (carried === '' || !(await isTaken(tools, `${text}${carried}`))) await runTransaction(tools, text);
  // It was of another mode before.
  for (const family of await familiesOf(tools, setup.table)) {
    if (family !== (setup.family ?? 'inet')) {
      await runTransaction(tools, removeTableText(setup.table, family));
    }
  }
}

async function isTaken(tools: Tools, text: string): Promise<boolean> {
  return succeeded(await tools.run('nft', ['-f', '-'], { input: text, timeoutMs: TRANSACTION_TIMEOUT_MS }));
}

/** It may be absent already. */
export async function removeTable(tools: Tools, table: string): Promise<void> {
  for (const family of new Set<TableFamily>(['inet', ...(await familiesOf(tools, table))])) {
    await runTransaction(tools, removeTableText(table, family));
  }
}

/** The families in which there is a table of that name. */
async function familiesOf(tools: Tools, table: string): Promise<readonly TableFamily[]> {
  const { stdout } = await tools.run('nft', ['list', 'tables']);
  const found = stdout.split('\n').map((line) => line.trim());
  return TABLE_FAMILIES.filter((family) => found.includes(`table ${tableName({ table, family })}`));
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

/** What a set or map of the setup holds in the kernel. Rejects with BalancerError. */
export async function listElements(
  tools: Tools,
  { family = 'inet', table, structure }: KernelSetup,
  name: string,
): Promise<Elements> {
  const kind = new RegExp(`^\\s*map ${name} `, 'm').test(structure) ? 'map' : 'set';
  const outcome = await tools.run('nft', ['-s', 'list', kind, family, table, name], {
    timeoutMs: TRANSACTION_TIMEOUT_MS,
  });
  if (!succeeded(outcome)) throw toolFailure('nft', outcome);
  return listedElements(outcome.stdout);
}

/** What is wrong with the elements; undefined: nothing. Rejects with BalancerError. */
export async function elementsEvidence(tools: Tools, setup: KernelSetup): Promise<string | undefined> {
  for (const [name, expected] of setup.sets) {
    const evidence = elementsDifference(name, await listElements(tools, setup, name), expected);
    if (evidence !== undefined) return evidence;
  }
  return undefined;
}

/** The failure of the first that could not be forgotten; undefined: none is left. */
export async function forgetFlows(
  tools: Tools,
  flows: readonly (readonly string[])[],
): Promise<BalancerError | undefined> {
  let first: BalancerError | undefined;
  for (const args of flows) {
    const outcome = await tools.run('conntrack', ['-D', ...args]);
    // It fails where there is none.
    if (succeeded(outcome) || outcome.stderr.includes(' 0 flow entries')) continue;
    first ??= toolFailure('conntrack', outcome);
  }
  return first;
}

async function run(tools: Tools, args: readonly string[], input: string): Promise<void> {
  const outcome = await tools.run('nft', args, { input, timeoutMs: TRANSACTION_TIMEOUT_MS });
  if (!succeeded(outcome)) throw toolFailure('nft', outcome);
}
