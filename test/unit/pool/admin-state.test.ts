import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AdminState, HealthState } from '../../../src/model/configuration.js';
import { effectiveEligibility, type Eligibility } from '../../../src/selection/pool.js';

const YES: Eligibility = { eligible: true, valid: true };
const ADMIN_DOWN: Eligibility = {
  eligible: false,
  valid: false,
  exclusion: 'admin-down',
  invalidBecause: 'admin-down',
};
const PROBE_DOWN: Eligibility = {
  eligible: false,
  valid: false,
  exclusion: 'probe-down',
  invalidBecause: 'probe-down',
};
const UNKNOWN: Eligibility = { eligible: false, valid: true, exclusion: 'probe-unknown' };

// Azure, manage-admin-state: Up and Down override the probe, None follows it.
const TABLE: readonly (readonly [
  HealthState,
  AdminState,
  withProbe: Eligibility,
  withoutProbe: Eligibility,
])[] = [
  ['up', 'none', YES, YES],
  ['down', 'none', PROBE_DOWN, YES],
  ['unknown', 'none', UNKNOWN, YES],
  ['up', 'up', YES, YES],
  ['down', 'up', YES, YES],
  ['unknown', 'up', YES, YES],
  ['up', 'down', ADMIN_DOWN, ADMIN_DOWN],
  ['down', 'down', ADMIN_DOWN, ADMIN_DOWN],
  ['unknown', 'down', ADMIN_DOWN, ADMIN_DOWN],
];

for (const [health, adminState, withProbe, withoutProbe] of TABLE) {
  test(`effectiveEligibility() with probe ${health} and admin state ${adminState}`, () => {
    assert.deepEqual(effectiveEligibility(health, adminState, true), withProbe);
    assert.deepEqual(effectiveEligibility(health, adminState, false), withoutProbe);
  });
}
