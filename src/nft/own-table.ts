import type { BalancerError } from '../model/errors.js';
import { replaceTableText, removeTableText, type KernelSetup } from './kernel-setup.js';
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
  await runTransaction(tools, replaceTableText(setup));
}

/** It may be absent already. */
export async function removeTable(tools: Tools, table: string): Promise<void> {
  await runTransaction(tools, removeTableText(table));
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
  const own = await tools.run('nft', ['-a', '-s', '-t', 'list', 'table', 'inet', table]);
  if (succeeded(own)) return tableBlock(own.stdout, table);
  if (all.failure === undefined) throw toolFailure('nft', all);
  if (own.stderr.includes('No such file or directory')) return undefined;
  throw toolFailure('nft', own);
}

/** What is wrong with the elements; undefined: nothing. Rejects with BalancerError. */
export async function elementsEvidence(tools: Tools, setup: KernelSetup): Promise<string | undefined> {
  for (const [name, expected] of setup.sets) {
    const kind = new RegExp(`^\\s*map ${name} `, 'm').test(setup.structure) ? 'map' : 'set';
    const outcome = await tools.run('nft', ['-s', 'list', kind, 'inet', setup.table, name], {
      timeoutMs: TRANSACTION_TIMEOUT_MS,
    });
    if (!succeeded(outcome)) throw toolFailure('nft', outcome);
    const evidence = elementsDifference(name, listedElements(outcome.stdout), expected);
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
