import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ForwardingCompiler, type CompilerInputs } from '../../../src/selection/compiler.js';
import { readRecordedFlows } from '../../../src/whatif/simulate.js';
import { inputsOfEpoch } from '../../../src/whatif/recorded-states.js';
import type { Configuration } from '../../../src/model/configuration.js';
import type { ForwardingState } from '../../../src/model/forwarding.js';
import { epochLine } from '../../../src/observe/flow-log.js';
import { createHasher } from '../../../src/selection/flow-hash.js';
import { tcpProbe } from '../health/probe-fixtures.js';
import { aRule } from '../selection/fixtures.js';
import { inPieces } from './recorded-flows.js';
import { aPool, settings } from '../control/settings.js';

const hash = await createHasher();
const [ONE, TWO, THREE] = ['nvas/10.0.0.1', 'nvas/10.0.0.2', 'nvas/10.0.0.3'] as const;

const CALM: CompilerInputs = {
  health: () => ({ state: 'up' }),
};

/** Compiles, writes the epoch's line, reads it, compiles again. */
async function again(inputs: Partial<CompilerInputs>, configuration: Configuration, supposed = {}) {
  const before = new ForwardingCompiler(hash).compile(configuration, { ...CALM, ...inputs });
  const { epoch } = await readRecordedFlows(inPieces(epochLine(before, 1)), { most: 1 });
  assert.ok(epoch);
  const read = inputsOfEpoch(epoch);
  const after = new ForwardingCompiler(hash).compile(configuration, { ...read, ...supposed });
  return { before, after };
}

/** How fast flows of an ended drain end is not in the log. */
function comparable({ views }: ForwardingState): unknown {
  return views.map((view) => ({
    ...view,
    backends: view.backends.map(({ endSpreadMs, ...member }) => ({
      ...member,
      isEnding: endSpreadMs !== undefined,
    })),
  }));
}

const only =
  <T>(id: string, value: T) =>
  (backend: { readonly id: string }): T | undefined =>
    backend.id === id ? value : undefined;

const twoProbes = settings({
  probes: [tcpProbe({ name: 'alive', port: 9000 }), tcpProbe({ name: 'other', port: 9001 })],
  rules: [
    aRule({ probe: 'alive' }),
    aRule({ name: 'web', probe: 'other', haPorts: false, ports: [{ first: 80, last: 80 }] }),
    aRule({ name: 'ssh', haPorts: false, ports: [{ first: 22, last: 22 }] }),
  ],
});
const slow = settings({ backendPools: [aPool(3, { slowStartMs: 60_000 })] });

const cases: readonly (readonly [string, Partial<CompilerInputs>, Configuration])[] = [
  ['calm', {}, settings()],
  ['a probe down', { health: ({ id }) => ({ state: id === TWO ? 'down' : 'up' }) }, settings()],
  ['nobody probed yet', { health: () => ({ state: 'unknown' }) }, settings()],
  [
    'switched down and up',
    { override: ({ id }) => ({ adminState: id === ONE ? 'down' : 'up' }) },
    settings(),
  ],
  ['draining', { override: only(ONE, { drain: { ending: false } }) }, settings()],
  [
    'draining with its probe down',
    {
      override: only(ONE, { drain: { ending: false } }),
      health: ({ id }) => ({ state: id === ONE ? 'down' : 'up' }),
    },
    settings(),
  ],
  ['a drain that has ended', { override: only(ONE, { drain: { ending: true, spreadMs: 500 } }) }, settings()],
  ["the operator's weights", { override: only(TWO, { weight: 7 }) }, settings()],
  ['weight 0', { override: only(TWO, { weight: 0 }) }, settings()],
  ['slow start', { rampPercent: ({ id }) => (id === THREE ? 30 : 100) }, slow],
  [
    "slow start under the operator's weights",
    { rampPercent: ({ id }) => (id === THREE ? 30 : 100), override: only(ONE, { weight: 9 }) },
    slow,
  ],
  ['weights that look like a slow start', { override: only(ONE, { weight: 100 }) }, slow],
  [
    'probes that see and weigh differently',
    {
      health: ({ id }, probe) =>
        probe === 'alive' ? { state: 'up', weight: 5 } : { state: id === TWO ? 'down' : 'up', weight: 2 },
    },
    twoProbes,
  ],
];

describe('inputsOfEpoch()', () => {
  for (const [name, inputs, configuration] of cases) {
    test(`gives the same state again: ${name}`, async () => {
      const { before, after } = await again(inputs, configuration);
      assert.deepEqual(comparable(after), comparable(before));
    });
  }

  test('gives the same tables again from a line that does not say whose weights they were', async () => {
    const inputs = { override: only(ONE, { weight: 7 }), rampPercent: only(THREE, 30) };
    const before = new ForwardingCompiler(hash).compile(slow, {
      ...CALM,
      override: inputs.override,
      rampPercent: (backend) => inputs.rampPercent(backend) ?? 100,
    });
    const line = epochLine(before, 1).replaceAll(/"(wanted|origin|ramp)":("[^"]*"|\d+),?/g, '');
    assert.doesNotMatch(line, /wanted|origin|ramp/);
    const { epoch } = await readRecordedFlows(inPieces(line.replaceAll(',}', '}')), { most: 1 });
    assert.ok(epoch);
    const after = new ForwardingCompiler(hash).compile(slow, inputsOfEpoch(epoch));
    assert.deepEqual(
      after.views.map(({ table }) => table),
      before.views.map(({ table }) => table),
    );
  });

  test('lets a weight be supposed in the midst of a slow start', async () => {
    const ramp: Partial<CompilerInputs> = { rampPercent: ({ id }) => (id === THREE ? 50 : 100) };
    const override = ({ id }: { readonly id: string }) => ({ weight: id === ONE ? 2 : 1 });
    const { after } = await again(ramp, slow, { override });
    assert.deepEqual(
      after.views[0]?.backends.map(({ effectiveWeight }) => effectiveWeight),
      [200, 100, 50],
    );
  });

  test('takes backends for up that the epoch does not have', () => {
    const state = new ForwardingCompiler(hash).compile(
      settings(),
      inputsOfEpoch({ type: 'epoch', revision: 1, digest: '', views: [] }),
    );
    assert.ok(state.views[0]?.backends.every(({ serving }) => serving));
  });
});
