import assert from 'node:assert/strict';
import { test } from 'node:test';
import { oneOfEachKind } from '../support/campaign.js';
import { whyNoNamespaces } from '../support/lab.js';
import { acceptedDifferences, differences, formatDifferences, unaccepted } from './compare.js';
import { STORIES } from './kernel-stories.js';
import { measureKernel, TOOLS_ID, toolVersions } from './kernel.js';
import { readFacts } from './recorded.js';

/** Of two that go through much the same rules, one is told. */
const ALIKE: Readonly<Record<string, string>> = {
  masquerade: 'nat',
  'floating-l2': 'floating-routed',
  spokes: 'next-hop',
};
const stories = oneOfEachKind(STORIES, ({ name }) => ALIKE[name] ?? name);
const asked = [TOOLS_ID, ...stories.map(({ name }) => `kernel/${name} `)];
const recorded = readFacts((id) => id === 'kernel/' || asked.some((start) => id.startsWith(start)));

function whyNot(): string | false {
  const versions = toolVersions();
  if (recorded.get(TOOLS_ID) === versions) return whyNoNamespaces();
  return `recorded with ${String(recorded.get(TOOLS_ID))}, here are ${versions}`;
}

test('a build leaves in the kernel what is recorded', { skip: whyNot() }, async () => {
  const observed = await measureKernel(process.env['HAPORTS_MAIN'] ?? 'dist/main.js', recorded, stories);
  const found = unaccepted(differences(recorded, observed), acceptedDifferences());
  assert.equal(found.length, 0, formatDifferences(found));
});
