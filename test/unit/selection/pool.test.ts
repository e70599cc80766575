import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Backend } from '../../../src/model/configuration.js';
import { eligibilityOf, evaluatePool, type BackendInputs } from '../../../src/selection/pool.js';
import { aBackend } from './fixtures.js';

interface Member extends Partial<BackendInputs> {
  readonly priority?: number;
}

function evaluate(members: readonly Member[], minimumHealthy = 1) {
  const backends = members.map(({ priority = 0 }, index) =>
    aBackend(`nva-${index + 1}`, `10.0.0.${index + 1}`, { priority }),
  );
  const inputs = (backend: Backend): BackendInputs => {
    const usual = { health: 'up', adminState: 'none', draining: false, weight: 1 } as const;
    return { ...usual, ...members[backends.indexOf(backend)] };
  };
  return evaluatePool({ backends, minimumHealthy }, inputs);
}

/** One word a backend: `serving`, or why not, with `!` where existing flows may not stay. */
function words(evaluation: ReturnType<typeof evaluate>): string {
  return evaluation.backends
    .map(({ serving, exclusion, valid }) => `${serving ? 'serving' : exclusion}${valid ? '' : '!'}`)
    .join(' ');
}

describe('evaluatePool()', () => {
  const down = { health: 'down' } as const;
  const spare = { priority: 1 };
  for (const [what, members, minimumHealthy, expected, servingPriority] of [
    ['serves what is up', [{}], 1, 'serving', 0],
    ['excludes what is down', [down], 1, 'probe-down!'],
    ['keeps flows of what is unknown', [{ health: 'unknown' }], 1, 'probe-unknown'],
    ['excludes what is switched down', [{ adminState: 'down' }], 1, 'admin-down!'],
    ['serves what is switched up while its probe is down', [{ adminState: 'up', ...down }], 1, 'serving', 0],
    ['keeps flows of what is draining', [{ draining: true }], 1, 'draining'],
    ['ends flows of what is draining and down', [{ draining: true, ...down }], 1, 'draining!'],
    ['ends flows at the deadline of a drain', [{ draining: true, endSpreadMs: 0 }], 1, 'draining!'],
    ['drains what is switched up', [{ draining: true, adminState: 'up' }], 1, 'draining'],
    ['names the switch before the drain', [{ draining: true, adminState: 'down' }], 1, 'admin-down!'],
    ['keeps flows at weight 0', [{ weight: 0 }], 1, 'weight-zero'],
    ['has no share for weight 0 though switched up', [{ weight: 0, adminState: 'up' }], 1, 'weight-zero'],
    ['names the probe before weight 0', [{ weight: 0, ...down }], 1, 'probe-down!'],
    ['serves from the lowest priority', [spare, {}, {}], 1, 'standby serving serving', 0],
    ['counts eligible members alone', [spare, {}, down], 1, 'standby serving probe-down!', 0],
    [
      'serves from the lowest priority with enough members',
      ...([[spare, spare, {}, down], 2, 'serving serving standby probe-down!', 1] as const),
    ],
    [
      'falls back to the lowest priority with any member when none has enough',
      ...([[{ priority: 7 }, { priority: 3 }, { priority: 1, ...down }], 2] as const),
      ...(['standby serving probe-down!', 3] as const),
    ],
    ['serves nowhere in an empty pool', [], 1, ''],
    [
      'serves nowhere where no member is eligible',
      ...([[down, { draining: true }, { weight: 0 }], 1, 'probe-down! draining weight-zero'] as const),
    ],
  ] as const satisfies readonly (readonly [string, readonly Member[], number, string, number?])[]) {
    test(`evaluatePool() ${what}`, () => {
      const evaluation = evaluate(members, minimumHealthy);
      assert.equal(words(evaluation), expected);
      assert.equal(evaluation.servingPriority, servingPriority);
    });
  }

  test('evaluatePool() names the reason why flows may not stay', () => {
    const ending = { draining: true, endSpreadMs: 5000 };
    const { backends } = evaluate([
      down,
      { adminState: 'down', ...down },
      {},
      ending,
      { ...ending, ...down },
    ]);
    assert.deepEqual(
      backends.map(({ invalidBecause, endSpreadMs }) => [invalidBecause, endSpreadMs]),
      [
        ['probe-down', undefined],
        ['admin-down', undefined],
        [undefined, undefined],
        ['drain-deadline', 5000],
        ['probe-down', undefined],
      ],
    );
  });
});

// Azure, manage-admin-state: Up and Down override the probe, None follows it.
for (const [adminState, health, expected] of [
  ['none', 'up', 'new flows, existing flows'],
  ['none', 'down', 'neither: probe-down'],
  ['none', 'unknown', 'existing flows: probe-unknown'],
  ['up', 'up down unknown', 'new flows, existing flows'],
  ['down', 'up down unknown', 'neither: admin-down'],
] as const) {
  test(`eligibilityOf() gives what is ${health} under the admin state ${adminState} ${expected}`, () => {
    for (const state of health.split(' ') as ('up' | 'down' | 'unknown')[]) {
      const { eligible, valid, exclusion, invalidBecause } = eligibilityOf(state, adminState);
      const given = eligible ? 'new flows, existing flows' : valid ? 'existing flows' : 'neither';
      assert.equal(eligible ? given : `${given}: ${exclusion}`, expected);
      assert.equal(invalidBecause, valid ? undefined : exclusion);
    }
  });
}
