import { createHash } from 'node:crypto';
import { tableName, type Elements, type KernelSetup } from './kernel-setup.js';
import { listElements, listStructure, runTransaction } from './own-table.js';
import type { Tools } from './tools.js';

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

/** What the setup's sets and maps hold in the kernel. Rejects with BalancerError. */
export async function foundElements(tools: Tools, setup: KernelSetup): Promise<KernelSetup['sets']> {
  const found = new Map<string, Elements>();
  for (const name of setup.sets.keys()) found.set(name, await listElements(tools, setup, name));
  return found;
}

function sealOf({ structure }: KernelSetup, listing: string): string {
  return `as-${digest(structure)}-${digest(listing)}`;
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, DIGEST_CHARS);
}
