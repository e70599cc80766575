import type { Draft, ListName, Located } from './draft.js';
import { error, note, type Issue, type Path } from './finding.js';
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
  const issues: Issue[] = [];
  const expect = (list: ListName, path: Path, name: string | undefined, atKey?: 'at key') => {
    const names = draft.declared[list].map(({ value }) => value);
    if (name === undefined || names.includes(name)) return;
    const meant = nearestWord(name, names);
    const hint = meant === undefined ? '' : `; did you mean "${meant}"`;
    issues.push(
      error('LB_UNKNOWN_NAME', path, `There is no ${NOUN[list]} "${name}"${hint}`, {
        atKey: atKey !== undefined,
        found: `"${name}"`,
        expected: names.length === 0 ? `a ${NOUN[list]} to be defined` : `one of ${names.join(', ')}`,
      }),
    );
  };
  for (const { path, value: rule } of draft.rules) {
    expect('frontends', [...path, 'frontend'], rule.frontend);
    expect('backendPools', [...path, 'backendPool'], rule.backendPool);
    expect('probes', [...path, 'probe'], rule.probe);
  }
  for (const { path, value: pool } of draft.pools) {
    for (const [index, backend] of pool.backends.entries()) {
      for (const frontend of Object.keys(backend.floatingAddresses)) {
        const at = [...path, 'backends', index, 'floatingAddresses', frontend];
        expect('frontends', at, frontend, 'at key');
      }
    }
  }
  return issues;
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
