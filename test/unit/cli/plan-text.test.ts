import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { formatPlan as planLines } from '../../../src/cli/plan.js';
import { aPlan } from '../../support/api-answers.js';

function formatPlan(...planned: Parameters<typeof planLines>): string {
  return `${planLines(...planned).join('\n')}\n`;
}

function assertNarrow(text: string): void {
  for (const line of text.split('\n')) assert.ok(line.length <= 80, `${line.length}: ${line}`);
}

describe('formatPlan()', () => {
  test('stays within 80 columns with long names and many backends, and shows no control characters', () => {
    const name = 'a'.repeat(63);
    const many = Array.from({ length: 50 }, (_, index) => ({
      ...{
        pool: name,
        backendId: `${name}/10.0.0.${index}`,
        name: `nva-${index}`,
        changes: ['weight', 'priority'],
      },
    }));
    const [rule] = aPlan().rules;
    assert.ok(rule !== undefined);
    const changes = Array.from({ length: 30 }, (_, index) => `key${index}`);
    const text = formatPlan(
      {
        findings: [],
        report: aPlan({
          rules: [
            { ...rule, name, changes },
            { ...rule, name: 'evil\u001b[2J' },
          ],
          backends: { added: many, removed: [], changed: many },
          probeStateLost: many.map(({ backendId }) => ({ backendId, probe: 'alive' })),
          steps: [`Probe new backends ${many.map((one) => one.name).join(', ')} of pool "${name}"`],
        }),
      },
      { file: 'new.json', live: true },
    );
    // An identity is one word, and not broken.
    assertNarrow(text.replaceAll(`${name}/`, '/').replaceAll(`"${name}"`, '"a"'));
    assert.match(text, /\+ and 30 more/);
    assert.ok(!text.includes('\u001b'));
  });
});
