import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ipAddress } from '../../../src/model/address.js';
import type { AdminState, Backend, BackendPool, HealthState } from '../../../src/model/configuration.js';
import type { Exclusion } from '../../../src/model/forwarding.js';
import {
  effectiveEligibility,
  evaluatePool,
  type BackendInputs,
  type Eligibility,
} from '../../../src/selection/pool.js';
import { testPool } from '../../support/forwarding-state.js';

interface Member extends Partial<BackendInputs> {
  readonly priority?: number;
  readonly configuredWeight?: number;
}

function poolOf(members: readonly Member[], minimumHealthy: number): BackendPool {
  return testPool({
    minimumHealthy,
    backends: members.map((member, index): Backend => {
      const address = ipAddress(`10.0.0.${index + 1}`);
      return {
        ...{ id: `nvas/${address.text}`, name: `nva-${index + 1}`, address, adminState: 'none' },
        ...{ weight: member.configuredWeight ?? 1, priority: member.priority ?? 0, floatingAddresses: {} },
      };
    }),
  });
}

function evaluate(members: readonly Member[], minimumHealthy = 1, probed: 'probed' | 'unprobed' = 'probed') {
  const pool = poolOf(members, minimumHealthy);
  const inputs = (backend: Backend): BackendInputs => {
    const member = members[pool.backends.indexOf(backend)];
    return {
      health: member?.health ?? 'up',
      adminState: member?.adminState ?? 'none',
      draining: member?.draining ?? false,
      ...(member?.weight === undefined ? {} : { weight: member.weight }),
    };
  };
  return evaluatePool(pool, inputs, probed === 'probed');
}

/** One word a backend: `serving`, or why not, with `!` where existing flows may not stay. */
function words(evaluation: ReturnType<typeof evaluate>): readonly string[] {
  return evaluation.backends.map(({ serving, exclusion, valid }) => {
    const word: Exclusion | 'serving' | undefined = serving ? 'serving' : exclusion;
    return `${word ?? '?'}${valid ? '' : '!'}`;
  });
}

describe('evaluatePool()', () => {
  const cases: readonly (readonly [name: string, member: Member, word: string])[] = [
    ['serves what is up', {}, 'serving'],
    ['excludes what is down', { health: 'down' }, 'probe-down!'],
    ['keeps flows of what is unknown', { health: 'unknown' }, 'probe-unknown'],
    ['excludes what is switched down', { adminState: 'down' }, 'admin-down!'],
    ['serves what is switched up while its probe is down', { adminState: 'up', health: 'down' }, 'serving'],
    ['keeps flows of what is draining', { draining: true }, 'draining'],
    ['ends flows of what is draining and down', { draining: true, health: 'down' }, 'draining!'],
    ['drains what is switched up', { draining: true, adminState: 'up' }, 'draining'],
    ['names the switch before the drain', { draining: true, adminState: 'down' }, 'admin-down!'],
    ['keeps flows at weight 0', { configuredWeight: 0 }, 'weight-zero'],
    ['takes the given weight over the configured one', { configuredWeight: 0, weight: 5 }, 'serving'],
    ['keeps flows at a given weight 0', { configuredWeight: 5, weight: 0 }, 'weight-zero'],
    ['has no share for weight 0 though switched up', { weight: 0, adminState: 'up' }, 'weight-zero'],
    ['names the probe before weight 0', { weight: 0, health: 'down' }, 'probe-down!'],
  ];
  for (const [name, member, word] of cases) {
    test(`evaluatePool() ${name}`, () => assert.deepEqual(words(evaluate([member])), [word]));
  }

  test('evaluatePool() takes everything as up without a probe, but obeys the switch', () => {
    const evaluation = evaluate(
      [{ health: 'down' }, { health: 'unknown' }, { adminState: 'down' }],
      1,
      'unprobed',
    );
    assert.deepEqual(words(evaluation), ['serving', 'serving', 'admin-down!']);
    assert.deepEqual(
      evaluation.backends.map(({ health }) => health),
      ['up', 'up', 'up'],
    );
  });

  test('evaluatePool() names the reason why flows may not stay', () => {
    const { backends } = evaluate([{ health: 'down' }, { adminState: 'down', health: 'down' }, {}]);
    assert.deepEqual(
      backends.map(({ invalidBecause }) => invalidBecause),
      ['probe-down', 'admin-down', undefined],
    );
  });

  test('evaluatePool() serves from the lowest priority with enough members', () => {
    const active = { priority: 0 };
    const spare = { priority: 1 };
    const down = { priority: 0, health: 'down' } as const;
    assert.deepEqual(words(evaluate([spare, active, active])), ['standby', 'serving', 'serving']);
    assert.deepEqual(words(evaluate([spare, active, down])), ['standby', 'serving', 'probe-down!']);
    assert.deepEqual(words(evaluate([spare, spare, active, down], 2)), [
      'serving',
      'serving',
      'standby',
      'probe-down!',
    ]);
    assert.equal(evaluate([spare, spare, active, down], 2).servingPriority, 1);
  });

  test('evaluatePool() falls back to the lowest priority with any member when none has enough', () => {
    const evaluation = evaluate([{ priority: 7 }, { priority: 3 }, { priority: 1, health: 'down' }], 2);
    assert.deepEqual(words(evaluation), ['standby', 'serving', 'probe-down!']);
    assert.equal(evaluation.servingPriority, 3);
    assert.equal(evaluation.allDown, false);
  });

  test('evaluatePool() says when nobody serves', () => {
    for (const members of [[], [{ health: 'down' }, { draining: true }, { weight: 0 }]] as const) {
      const evaluation = evaluate(members);
      assert.equal(evaluation.allDown, true);
      assert.equal('servingPriority' in evaluation, false);
    }
  });
});

/** `eligible`, or why not, with `!` where existing flows may not stay. */
function word({ eligible, valid, exclusion, invalidBecause }: Eligibility): string {
  assert.equal(invalidBecause, valid ? undefined : exclusion);
  return `${eligible ? 'eligible' : (exclusion ?? '?')}${valid ? '' : '!'}`;
}

// Azure, manage-admin-state: Up and Down override the probe, None follows it.
describe('effectiveEligibility()', () => {
  const cases: readonly (readonly [HealthState, AdminState, withProbe: string, withoutProbe: string])[] = [
    ['up', 'none', 'eligible', 'eligible'],
    ['down', 'none', 'probe-down!', 'eligible'],
    ['unknown', 'none', 'probe-unknown', 'eligible'],
    ['up', 'up', 'eligible', 'eligible'],
    ['down', 'up', 'eligible', 'eligible'],
    ['unknown', 'up', 'eligible', 'eligible'],
    ['up', 'down', 'admin-down!', 'admin-down!'],
    ['down', 'down', 'admin-down!', 'admin-down!'],
    ['unknown', 'down', 'admin-down!', 'admin-down!'],
  ];
  for (const [health, adminState, withProbe, withoutProbe] of cases) {
    test(`with probe ${health} and admin state ${adminState}`, () => {
      assert.equal(word(effectiveEligibility(health, adminState, true)), withProbe);
      assert.equal(word(effectiveEligibility(health, adminState, false)), withoutProbe);
    });
  }
});
