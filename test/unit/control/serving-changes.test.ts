import assert from 'node:assert/strict';
import { test } from 'node:test';
import { servingChanges } from '../../../src/control/balancer.js';
import type { BackendState, ForwardingState, PoolView } from '../../../src/model/forwarding.js';
import { testPool } from '../../support/forwarding-state.js';
import { tcpProbe } from '../health/probe-fixtures.js';
import { aBackend, aBackendState, aState, aView } from '../selection/fixtures.js';

/** Members by number; those in `serving` serve, those in `standby` are eligible but do not. */
function view(
  serving: readonly number[],
  overrides: Partial<PoolView> = {},
  standby: number[] = [],
): PoolView {
  const backends = [1, 2, 3].map((n): BackendState => {
    const backend = aBackend(`nva-${n}`, `10.0.0.${n}`);
    if (serving.includes(n)) return aBackendState(backend);
    return aBackendState(backend, { eligible: standby.includes(n), serving: false, exclusion: 'standby' });
  });
  return aView({ backends, ...overrides });
}

function state(...views: readonly PoolView[]): ForwardingState {
  return { ...aState(), views };
}

test('servingChanges() tells every view of the first state', () => {
  const nobody: PoolView = {
    key: 'b|',
    pool: testPool({ name: 'b' }),
    backends: view([]).backends,
    table: new Uint16Array(),
  };
  const first = state(
    view([1, 2], { key: 'nvas|alive', probe: tcpProbe({ name: 'alive' }), servingPriority: 4 }, [3]),
    nobody,
  );
  assert.deepEqual(servingChanges(undefined, first), [
    {
      type: 'pool-serving-changed',
      pool: 'nvas',
      probe: 'alive',
      servingPriority: 4,
      eligible: 3,
      total: 3,
      wasDown: false,
    },
    {
      ...{ type: 'pool-serving-changed', pool: 'b', probe: undefined, servingPriority: undefined },
      ...{ eligible: 0, total: 3, wasDown: false },
    },
  ]);
});

test('servingChanges() says nothing while the same members serve', () => {
  const before = state(view([1, 2]));
  assert.deepEqual(servingChanges(before, state(view([1, 2]))), []);
  // The order in the pool, standbys and the configuration do not matter.
  const turned = view([1, 2]);
  assert.deepEqual(servingChanges(before, state({ ...turned, backends: turned.backends.toReversed() })), []);
  assert.deepEqual(servingChanges(before, state(view([1, 2], {}, [3]))), []);
});

test('servingChanges() tells only the views whose serving members changed', () => {
  const before = state(view([1, 2], { key: 'a|' }), view([1], { key: 'b|' }), view([], { key: 'c|' }));
  const after = state(
    view([1, 2], { key: 'a|' }),
    view([2], { key: 'b|', pool: testPool({ name: 'b' }) }),
    view([], { key: 'c|' }),
  );
  assert.deepEqual(
    servingChanges(before, after).map(({ pool, eligible }) => ({ pool, eligible })),
    [{ pool: 'b', eligible: 1 }],
  );
});

test('servingChanges() tells a view that is new, and one that nobody serves any more', () => {
  const before = state(view([1], { key: 'a|', pool: testPool({ name: 'a' }) }));
  const after = state(
    view([], { key: 'a|', pool: testPool({ name: 'a' }) }),
    view([], { key: 'new|', pool: testPool({ name: 'new' }) }),
  );
  assert.deepEqual(
    servingChanges(before, after).map(({ pool, eligible }) => ({ pool, eligible })),
    [
      { pool: 'a', eligible: 0 },
      { pool: 'new', eligible: 0 },
    ],
  );
  assert.deepEqual(servingChanges(after, before).length, 1);
});

test('servingChanges() tells a recovery from another change', () => {
  const [none, one, two] = [[], [1], [1, 2]].map((serving) => state(view(serving)));
  const changes = [servingChanges(none, one!), servingChanges(one, two!), servingChanges(two, none!)];
  assert.deepEqual(
    changes.map(([change]) => change?.wasDown),
    [true, false, false],
  );
});
