import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CORPUS } from './cases.js';
import type { Observation } from './observe.js';

export interface Difference {
  /** Of the case: `check/azure-017`. */
  readonly id: string;
  /** Where in its facts: `answer.result.slot`. */
  readonly path: string;
  /** As JSON; undefined: not there. */
  readonly was: string | undefined;
  readonly is: string | undefined;
}

/** A row of accepted-differences.md. */
export interface Accepted {
  readonly id: RegExp;
  readonly path: RegExp;
  /** What must be there now, as JSON; `any`: whatever. */
  readonly now: string;
  readonly row: string;
}

/** Everything that differs between recorded and observed facts, accepted or not. */
export function differences(
  recorded: ReadonlyMap<string, unknown>,
  observed: ReadonlyMap<string, Observation>,
): Difference[] {
  const found: Difference[] = [];
  for (const [id, facts] of recorded) {
    const now = observed.get(id);
    if (now === undefined) found.push({ id, path: '', was: 'recorded', is: undefined });
    else found.push(...leafDifferences(id, leaves(facts), leaves(now.facts)));
  }
  for (const [id, { facts }] of observed) {
    if (!recorded.has(id)) found.push({ id, path: '', was: undefined, is: JSON.stringify(facts) });
  }
  return found;
}

function leafDifferences(
  id: string,
  was: ReadonlyMap<string, string>,
  is: ReadonlyMap<string, string>,
): Difference[] {
  return [...new Set([...was.keys(), ...is.keys()])]
    .filter((path) => was.get(path) !== is.get(path))
    .map((path) => ({ id, path, was: was.get(path), is: is.get(path) }));
}

/** Path to JSON. Texts of a list are a set, told by themselves: one more does not shift the rest. */
export function leaves(value: unknown, path = '', into = new Map<string, string>()): Map<string, string> {
  const below = (key: string) => (path === '' ? key : `${path}.${key}`);
  if (Array.isArray(value) && value.length > 0) {
    for (const [index, item] of value.entries()) {
      if (typeof item !== 'string') leaves(item, below(String(index)), into);
      else into.set(below(item), String(Number(into.get(below(item)) ?? 0) + 1));
    }
  } else if (typeof value === 'object' && value !== null && Object.keys(value).length > 0) {
    for (const [key, member] of Object.entries(value)) leaves(member, below(key), into);
  } else into.set(path, JSON.stringify(value));
  return into;
}

/** Rows of the tables in accepted-differences.md: case, path, now, reason. `*` stands for any text. */
export function acceptedDifferences(
  text = readFileSync(join(CORPUS, 'accepted-differences.md'), 'utf8'),
): Accepted[] {
  return [...text.matchAll(/^\| *`([^`]+)` *\| *`([^`]+)` *\| *`([^`]+)` *\| *(.*\S) *\|$/gm)].map(
    ([row, id = '', path = '', now = '']) => ({ id: glob(id), path: glob(path), now, row }),
  );
}

function glob(pattern: string): RegExp {
  const escaped = pattern.split('*').map((part) => part.replace(/[\\^$.|?+()[\]{}]/g, '\\$&'));
  return new RegExp(`^${escaped.join('.*')}$`, 's');
}

/** Those that no row accepts. */
export function unaccepted(found: readonly Difference[], accepted: readonly Accepted[]): Difference[] {
  return found.filter(
    ({ id, path, is }) =>
      !accepted.some((row) => {
        if (!row.id.test(id) || !row.path.test(path)) return false;
        return row.now === 'any' || (is === undefined ? row.now === 'absent' : row.now === is);
      }),
  );
}

/** For people; at most `limit` differences, and how many more. */
export function formatDifferences(found: readonly Difference[], limit = 40): string {
  const lines = found.slice(0, limit).map(({ id, path, was, is }) => {
    const same = commonLength(was ?? '', is ?? '');
    return `${id}: ${path}: was ${excerpt(was, same)}, is ${excerpt(is, same)}`;
  });
  if (found.length > limit) lines.push(`and ${found.length - limit} more`);
  const cases = new Set(found.map(({ id }) => id)).size;
  return [`${found.length} differences in ${cases} cases`, ...lines].join('\n');
}

function commonLength(a: string, b: string): number {
  let length = 0;
  while (length < a.length && a[length] === b[length]) length++;
  return length;
}

/** The text around the first character that differs. */
function excerpt(text: string | undefined, same: number): string {
  if (text === undefined) return '(absent)';
  const start = text.length <= 160 ? 0 : Math.max(0, same - 60);
  const end = Math.min(text.length, start + 160);
  return `${start > 0 ? '...' : ''}${text.slice(start, end)}${end < text.length ? '...' : ''}`;
}
