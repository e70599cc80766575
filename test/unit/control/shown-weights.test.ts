import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { ForwardingCompiler, type CompilerInputs } from '../../../src/selection/compiler.js';
import { shownWeights, type ShownWeight } from '../../../src/status/pools.js';
import type { Backend } from '../../../src/model/configuration.js';
import { createHasher, type Hash32 } from '../../../src/selection/flow-hash.js';
import { aBackend, aBackendState, aView } from '../selection/fixtures.js';
import { aPool, settings } from './settings.js';

/** By name of backend. */
interface Said {
  readonly operator?: Readonly<Record<string, number>>;
  readonly header?: Readonly<Record<string, number>>;
  readonly percent?: Readonly<Record<string, number>>;
}

let hash: Hash32;
before(async () => {
  hash = await createHasher();
});

/** What the compiler makes of it, shown. */
function shown(weights: readonly number[], { operator, header, percent }: Said): readonly ShownWeight[] {
  const backends = weights.map((weight, index) =>
    aBackend(`nva-${index + 1}`, `10.0.0.${index + 1}`, { weight }),
  );
  const inputs: CompilerInputs = {
    health: ({ name }) => ({
      state: 'up',
      ...(header?.[name] === undefined ? {} : { weight: header[name] }),
    }),
    adminState: ({ adminState }) => adminState,
    draining: () => false,
    weight: ({ name }) => operator?.[name],
    rampPercent: ({ name }) => percent?.[name] ?? 100,
  };
  const configuration = settings({ backendPools: [aPool(0, { backends })] });
  const [view] = new ForwardingCompiler(hash).compile(configuration, inputs).views;
  assert.ok(view);
  return shownWeights(view, {
    operator: ({ name }: Backend) => operator?.[name],
    probeHeader: ({ name }: Backend) => header?.[name],
  });
}

describe('shownWeights()', () => {
  test('says whose word a weight is', () => {
    assert.deepEqual(
      shown([4, 4, 4, 0], { operator: { 'nva-2': 9 }, header: { 'nva-2': 2, 'nva-3': 3, 'nva-4': 5 } }),
      [
        { weight: 4, weightOrigin: 'configured' },
        { weight: 9, weightOrigin: 'operator' },
        { weight: 3, weightOrigin: 'probe-header' },
        { weight: 0, weightOrigin: 'configured' },
      ],
    );
  });

  test('shows the part that a backend in slow start gets, and the full weight of the others', () => {
    assert.deepEqual(shown([1, 2, 0], { operator: { 'nva-2': 5 }, percent: { 'nva-1': 30 } }), [
      { weight: 0.3, weightOrigin: 'slow-start' },
      { weight: 5, weightOrigin: 'operator' },
      { weight: 0, weightOrigin: 'configured' },
    ]);
  });

  test('sees slow start where all members are in it', () => {
    assert.deepEqual(shown([3, 1], { percent: { 'nva-1': 10, 'nva-2': 10 } }), [
      { weight: 0.3, weightOrigin: 'slow-start' },
      { weight: 0.1, weightOrigin: 'slow-start' },
    ]);
  });

  test('shows what is served while an operator has just asked for something else', () => {
    const view = aView({ backends: [aBackendState(aBackend('nva-1', '10.0.0.1'), { effectiveWeight: 9 })] });
    assert.deepEqual(shownWeights(view, { operator: () => 3, probeHeader: () => undefined }), [
      { weight: 9, weightOrigin: 'operator' },
    ]);
  });

  test('takes great differences of weight for no slow start', () => {
    assert.deepEqual(shown([256, 1], {}), [
      { weight: 256, weightOrigin: 'configured' },
      { weight: 1, weightOrigin: 'configured' },
    ]);
    assert.deepEqual(
      shown([0, 0], {}).map(({ weight }) => weight),
      [0, 0],
    );
  });
});
