import assert from 'node:assert/strict';
import { test } from 'node:test';
import { acceptedDifferences, differences, formatDifferences, unaccepted } from './compare.js';
import { measureKernel, TOOLS_ID, toolVersions, whyNoKernel } from './kernel.js';
import { classOf, readFacts } from './recorded.js';

const recorded = readFacts((id) => ['kernel/', 'commands/'].some((kind) => id.startsWith(kind)));

function whyNot(): string | undefined {
  const versions = toolVersions();
  if (recorded.get(TOOLS_ID) === versions) return whyNoKernel();
  return `recorded with ${String(recorded.get(TOOLS_ID))}, here are ${versions}`;
}

test('a build leaves in the kernel what is recorded', { skip: whyNot() ?? false }, async (context) => {
  const observed = await measureKernel(process.env['HAPORTS_MAIN'] ?? 'dist/main.js', recorded);
  const found = unaccepted(differences(recorded, observed), acceptedDifferences());
  const states = found.filter(({ id }) => classOf(id) === 'kernel');
  assert.equal(states.length, 0, formatDifferences(states));
  // Which commands it takes is no behaviour, and depends on what falls together.
  context.diagnostic(`commands: ${formatDifferences(found.filter(({ id }) => classOf(id) === 'commands'))}`);
});
