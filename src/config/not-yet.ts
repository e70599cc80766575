import type { Draft } from './draft.js';
import { error, type Issue, type Path } from './finding.js';

/** What the schema knows and this version cannot do yet. It is refused, never ignored. */
export function notYetIssues(draft: Draft): readonly Issue[] {
  const { dataPlane } = draft.root;
  const used: (readonly [Path, string])[] = [];
  if (dataPlane.kind === 'kernel') used.push([['dataPlane', 'kind'], 'The kernel data plane is']);
  if (dataPlane.kernel !== undefined) used.push([['dataPlane', 'kernel'], 'The kernel data plane is']);
  return used.map(([path, what]) => error('LB_NOT_YET', path, `${what} not available yet`));
}
