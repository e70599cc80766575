import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { formatPlan as planLines } from '../../../src/cli/plan.js';
import { outcome } from './plan-fixture.js';

function formatPlan(...planned: Parameters<typeof planLines>): string {
  return `${planLines(...planned).join('\n')}\n`;
}

function assertNarrow(text: string): void {
  for (const line of text.split('\n')) assert.ok(line.length <= 80, `${line.length}: ${line}`);
}

describe('formatPlan()', () => {
  test('sets out a plan within 80 columns', () => {
    const text = formatPlan(outcome(), { file: 'new.json', live: true, maxMoved: 0.3 });
    assertNarrow(text);
    assert.equal(
      text,
      `Plan from the running configuration (111111111111, revision 12)
       to 222222222222

RULE      CHANGE    MOVED    STAY  MOVE  RESET  DROP
ha-ports  changed  25.0 %  12,000    40      3     0
web       changed   0.0 %       0     0      0     0
  ha-ports: changes idleTimeout, probe.interval
  web: was "www"

Moved       25 % of a rule's hash space at most, within the 30 % allowed
Live flows  12,000 stay, 40 move (UDP), 3 are reset, 0 are dropped
Backends    1 added, 1 removed, 1 changed
  + nvas/10.0.0.4 (nva-4)
  - nvas/10.0.0.9
  ~ nvas/10.0.0.1 (nva-1): weight
Probes      health history is discarded for 1 backend
  nvas/10.0.0.1 by "alive"
Listeners   65,534 kept, 1 opened, 0 closed
Restart     reload refuses metrics: only a new process applies it
Findings    no findings

Steps
  1. Open 1 listener
  2. Reset 3 flows
`,
    );
  });

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
    const [rule] = outcome().report.rules;
    assert.ok(rule !== undefined);
    const changes = Array.from({ length: 30 }, (_, index) => `key${index}`);
    const text = formatPlan(
      outcome({
        rules: [
          { ...rule, name, changes },
          { ...rule, name: 'evil\u001b[2J' },
        ],
        backends: { added: many, removed: [], changed: many },
        probeStateLost: many.map(({ backendId }) => ({ backendId, probe: 'alive' })),
        steps: [`Probe new backends ${many.map((one) => one.name).join(', ')} of pool "${name}"`],
      }),
      { file: 'new.json', live: true },
    );
    // An identity is one word, and not broken.
    assertNarrow(text.replaceAll(`${name}/`, '/').replaceAll(`"${name}"`, '"a"'));
    assert.match(text, /\+ and 30 more/);
    assert.ok(!text.includes('\u001b'));
  });

  test('says that nothing would change', () => {
    const text = formatPlan(outcome({ steps: [] }), { file: 'new.json', live: false });
    assert.match(text, /\nNothing would change\n$/);
  });

  test('tells the findings of a configuration that cannot be used', () => {
    const finding = {
      severity: 'error',
      code: 'LB_VALUE',
      path: 'seed',
      message: 'Must be a number',
    } as const;
    assert.equal(
      formatPlan({ findings: [finding] }, { file: 'new.json', live: true }),
      'new.json: error LB_VALUE seed: Must be a number\nnew.json cannot be used: 1 error\n',
    );
  });
});
