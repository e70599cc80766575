import { TABLE_FAMILIES, type Elements } from './kernel-setup.js';

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
