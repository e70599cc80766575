import assert from 'node:assert/strict';
import { test } from 'node:test';
import { whyNoNamespaces } from '../support/lab.js';
import { acceptedDifferences, differences, formatDifferences, unaccepted } from './compare.js';
import { measureKernel, TOOLS_ID, toolVersions } from './kernel.js';
import { readFacts } from './recorded.js';

const recorded = readFacts((id) => id.startsWith('kernel/'));

function whyNot(): string | false {
  const versions = toolVersions();
  if (recorded.get(TOOLS_ID) === versions) return whyNoNamespaces();
  return `recorded with ${String(recorded.get(TOOLS_ID))}, here are ${versions}`;
}

test('a build leaves in the kernel what is recorded', { skip: whyNot() }, async () => {
  const observed = await measureKernel(process.env['HAPORTS_MAIN'] ?? 'dist/main.js', recorded);
  const found = unaccepted(differences(recorded, observed), acceptedDifferences());
  assert.equal(found.length, 0, formatDifferences(found));
});
