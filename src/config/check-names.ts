import type { Draft, ListName, Located } from './draft.js';
import { error, note, type Issue } from './finding.js';
import { isName } from './fields.js';
import { nearestWord } from './nearest-word.js';

const NOUN: Readonly<Record<ListName, string>> = {
  frontends: 'frontend',
  probes: 'probe',
  backendPools: 'backend pool',
  rules: 'rule',
};

/** Names given twice, and names that nothing bears. */
export function nameIssues(draft: Draft): readonly Issue[] {
  const duplicates = (Object.keys(NOUN) as ListName[]).flatMap((list) =>
    duplicateIssues(draft.declared[list], `a ${NOUN[list]}`),
  );
  const backends = draft.pools.flatMap(({ path, value: pool }) =>
    duplicateIssues(
      pool.backends.flatMap(({ name }, index) =>
        name === undefined ? [] : [{ path: [...path, 'backends', index, 'name'], value: name }],
      ),
      `a backend of pool "${pool.name}"`,
    ),
  );
  return [...duplicates, ...backends, ...referenceIssues(draft), ...unusedNotes(draft)];
}

function duplicateIssues(names: readonly Located<string>[], bearer: string): Issue[] {
  const seen = new Set<string>();
  return names.flatMap(({ path, value }) => {
    if (!seen.has(value)) {
      seen.add(value);
      return [];
    }
    const message = `Name "${value}" is already that of ${bearer}, each must have its own`;
    return [error('LB_DUPLICATE_NAME', path, message, { found: `"${value}"`, expected: 'another name' })];
  });
}

function referenceIssues(draft: Draft): Issue[] {
  const declared = Object.fromEntries(
    Object.entries(draft.declared).map(([list, items]) => [list, new Set(items.map(({ value }) => value))]),
  );
  return draft.references.flatMap(({ path, value, list, atKey }) => {
    // What is no name at all the schema has told.
    if (declared[list]?.has(value) === true || !isName(value)) return [];
    const names = [...(declared[list] ?? [])];
    const meant = nearestWord(value, names);
    const hint = meant === undefined ? '' : `; did you mean "${meant}"`;
    return [
      error('LB_UNKNOWN_NAME', path, `There is no ${NOUN[list]} "${value}"${hint}`, {
        atKey,
        found: `"${value}"`,
        expected: names.length === 0 ? `a ${NOUN[list]} to be defined` : `one of ${names.join(', ')}`,
      }),
    ];
  });
}

function unusedNotes(draft: Draft): Issue[] {
  // With a rule missing nobody knows what it would have used.
  if (draft.rules.length < draft.declared.rules.length) return [];
  const unused = (list: ListName, items: readonly Located<{ readonly name: string }>[], used: Set<unknown>) =>
    items
      .filter(({ value }) => !used.has(value.name))
      .map(({ path, value }) => note('LB_UNUSED', path, `No rule uses ${NOUN[list]} "${value.name}"`));
  const rules = draft.rules.map(({ value }) => value);
  return [
    ...unused('frontends', draft.frontends, new Set(rules.map((rule) => rule.frontend))),
    ...unused('probes', draft.probes, new Set(rules.map((rule) => rule.probe))),
    ...unused('backendPools', draft.pools, new Set(rules.map((rule) => rule.backendPool))),
  ];
}
