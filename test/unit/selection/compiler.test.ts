import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ForwardingCompiler, type CompilerInputs } from '../../../src/selection/compiler.js';
import type { AdminState, Configuration, HealthState } from '../../../src/model/configuration.js';
import type { ForwardingState, PoolView } from '../../../src/model/forwarding.js';
import { createHasher } from '../../../src/selection/flow-hash.js';
import { tcpProbe } from '../health/probe-fixtures.js';
import { aRule } from './fixtures.js';
import { referenceMaglev } from './reference-maglev.js';
import { aPool, settings } from '../control/settings.js';

const hash = await createHasher();
const SIZE = 251;
const [ONE, TWO, THREE] = ['nvas/10.0.0.1', 'nvas/10.0.0.2', 'nvas/10.0.0.3'] as const;

/** What is unusual, by backend id; all else is up, without an admin state, not draining. */
interface Unusual {
  readonly health?: Readonly<Record<string, HealthState>>;
  readonly weight?: Readonly<Record<string, number>>;
  readonly admin?: Readonly<Record<string, AdminState>>;
  readonly draining?: readonly string[];
}

function inputs({ health = {}, weight = {}, admin = {}, draining = [] }: Unusual = {}): CompilerInputs {
  return {
    health: ({ id }) => ({
      state: health[id] ?? 'up',
      ...(weight[id] === undefined ? {} : { weight: weight[id] }),
    }),
    override: ({ id }) => ({
      adminState: admin[id],
      drain: draining.includes(id) ? { ending: false } : undefined,
    }),
  };
}

function compileOnce(unusual: Unusual = {}, configuration: Configuration = settings()): PoolView {
  return view(new ForwardingCompiler(hash).compile(configuration, inputs(unusual)));
}

function view(state: ForwardingState, index = 0): PoolView {
  const found = state.views[index];
  assert.ok(found !== undefined, `No view ${index}`);
  return found;
}

/** Slot -> backend id. */
function ids(of: PoolView, table: Uint16Array = of.table): readonly string[] {
  return [...table].map((index) => of.backends[index]!.backend.id);
}

describe('ForwardingCompiler tables', () => {
  test('compile() gives the paper`s table over the serving members, as indexes into the pool', () => {
    const all = compileOnce();
    assert.deepEqual(ids(all), referenceMaglev([ONE, TWO, THREE], SIZE));
    assert.deepEqual(
      all.backends.map(({ backend }) => backend.id),
      [ONE, TWO, THREE],
    );
    // The first member is out: indexes must still be those of the whole pool.
    assert.deepEqual(ids(compileOnce({ health: { [ONE]: 'down' } })), referenceMaglev([TWO, THREE], SIZE));
  });

  test('compile() weights by the configuration, and by the probe header where it says something', () => {
    const [pool] = [aPool(3)];
    const weighted = settings({
      backendPools: [{ ...pool, backends: pool.backends.map((one, i) => ({ ...one, weight: i + 1 })) }],
    });
    assert.deepEqual(ids(compileOnce({}, weighted)), referenceMaglev([ONE, TWO, THREE], SIZE, [1, 2, 3]));
    const header = compileOnce({ weight: { [ONE]: 7 } }, weighted);
    assert.deepEqual(ids(header), referenceMaglev([ONE, TWO, THREE], SIZE, [7, 2, 3]));
    assert.deepEqual(
      header.backends.map(({ effectiveWeight }) => effectiveWeight),
      [7, 2, 3],
    );
  });

  test('compile() says whose a weight is: operator, then probe header, then configuration', () => {
    const weights = [4, 4, 4, 0, 0];
    const pool = aPool(5);
    const backends = pool.backends.map((one, index) => ({ ...one, weight: weights[index]! }));
    const header: Record<string, number> = { 'nva-2': 2, 'nva-3': 3, 'nva-4': 5 };
    const operator: Record<string, number> = { 'nva-2': 9, 'nva-5': 6 };
    const state = new ForwardingCompiler(hash).compile(settings({ backendPools: [{ ...pool, backends }] }), {
      health: ({ name }) => ({ state: 'up', ...(name in header && { weight: header[name]! }) }),
      override: ({ name }) => (name in operator ? { weight: operator[name]! } : undefined),
    });
    assert.deepEqual(
      view(state).backends.map(({ wantedWeight, weightOrigin }) => `${wantedWeight} ${weightOrigin}`),
      ['4 configured', '9 operator', '3 probe-header', '0 configured', '6 operator'],
    );
  });

  test('compile() gives a member in slow start its part, in whole numbers', () => {
    const ramps: Record<string, number> = { [TWO]: 30 };
    const state = new ForwardingCompiler(hash).compile(settings(), {
      ...inputs({ weight: { [ONE]: 5 } }),
      rampPercent: ({ id }) => ramps[id] ?? 100,
    });
    const weights = view(state).backends.map((member) => {
      const { wantedWeight, rampPercent, effectiveWeight } = member;
      return [wantedWeight, rampPercent, effectiveWeight];
    });
    assert.deepEqual(weights, [
      [5, 100, 500],
      [1, 30, 30],
      [1, 100, 100],
    ]);
    assert.deepEqual(ids(view(state)), referenceMaglev([ONE, TWO, THREE], SIZE, [500, 30, 100]));
  });

  test('compile() keeps the very same table while members and weights stay', () => {
    const compiler = new ForwardingCompiler(hash);
    const configuration = settings();
    const first = view(compiler.compile(configuration, inputs()));
    const second = view(compiler.compile(configuration, inputs()));
    assert.equal(second.table, first.table);
    // Neither does a change that leaves the serving set alone make a new one.
    const third = view(compiler.compile(configuration, inputs({ admin: { [ONE]: 'up' } })));
    assert.equal(third.table, first.table);
    // Nor a new configuration with the same members.
    const renamed = settings({ digest: 'e'.repeat(64), rules: [aRule({ name: 'other', probe: 'alive' })] });
    assert.equal(view(compiler.compile(renamed, inputs())).table, first.table);
  });

  test('compile() keeps the very same view while nothing in it changes', () => {
    const compiler = new ForwardingCompiler(hash);
    const configuration = settings();
    const first = view(compiler.compile(configuration, inputs()));
    assert.equal(view(compiler.compile(configuration, inputs())), first);
    const switched = view(compiler.compile(configuration, inputs({ admin: { [ONE]: 'up' } })));
    assert.notEqual(switched, first);
    assert.equal(switched.backends[0]?.adminState, 'up');
    // Another configuration has other backends, even with the same table.
    const other = settings({ digest: 'e'.repeat(64), backendPools: [aPool(3)] });
    assert.notEqual(view(compiler.compile(other, inputs({ admin: { [ONE]: 'up' } }))), switched);
  });

  test('compile() makes another table when members, weights or the size change', () => {
    const compiler = new ForwardingCompiler(hash);
    const first = view(compiler.compile(settings(), inputs())).table;
    const changes: readonly [string, Configuration, Unusual][] = [
      ['a member goes down', settings(), { health: { [TWO]: 'down' } }],
      ['a member drains', settings(), { draining: [TWO] }],
      ['a weight changes', settings(), { weight: { [TWO]: 2 } }],
      ['a member is added', settings({ backendPools: [aPool(4)] }), {}],
      ['the size changes', settings({ tableSize: 257 }), {}],
    ];
    for (const [what, configuration, unusual] of changes) {
      const again = new ForwardingCompiler(hash);
      const before = view(again.compile(settings(), inputs())).table;
      assert.deepEqual(before, first);
      const after = view(again.compile(configuration, inputs(unusual))).table;
      assert.notDeepEqual(after, before, what);
    }
  });

  test('compile() does not alter a table that it has given out', () => {
    const compiler = new ForwardingCompiler(hash);
    const { table } = view(compiler.compile(settings(), inputs()));
    const copy = Uint16Array.from(table);
    compiler.compile(settings(), inputs({ health: { [ONE]: 'down' } }));
    compiler.compile(settings(), inputs({ weight: { [ONE]: 200 } }));
    assert.deepEqual(table, copy);
  });

  test('compile() does not confuse pools with equal addresses', () => {
    const configuration = settings({
      backendPools: [aPool(3), aPool(3, { name: 'others' })],
      rules: [aRule({ name: 'a' }), aRule({ name: 'b', backendPool: 'others' })],
    });
    const state = new ForwardingCompiler(hash).compile(configuration, inputs());
    assert.deepEqual(ids(view(state, 0)), referenceMaglev([ONE, TWO, THREE], SIZE));
    assert.deepEqual(
      ids(view(state, 1)),
      referenceMaglev(
        [1, 2, 3].map((n) => `others/10.0.0.${n}`),
        SIZE,
      ),
    );
  });

  test('compile() does not depend on the order of the pool`s members', () => {
    const pool = aPool(3);
    const reversed = settings({ backendPools: [{ ...pool, backends: pool.backends.toReversed() }] });
    assert.deepEqual(ids(compileOnce({}, reversed)), ids(compileOnce()));
  });
});

describe('ForwardingCompiler fail-open tables', () => {
  test('compile() gives a fail-open table only where nobody serves', () => {
    assert.equal(compileOnce({ health: { [ONE]: 'down', [TWO]: 'unknown' } }).failOpenTable, undefined);
    const allDown = compileOnce({ health: { [ONE]: 'down', [TWO]: 'unknown', [THREE]: 'down' } });
    assert.equal(allDown.table.length, 0);
    assert.equal(allDown.servingPriority, undefined);
    assert.deepEqual(ids(allDown, allDown.failOpenTable), referenceMaglev([ONE, TWO, THREE], SIZE));
  });

  test('compile() leaves members that were switched down out of the fail-open table', () => {
    const down = { [ONE]: 'down', [TWO]: 'down', [THREE]: 'down' } as const;
    const oneSwitched = compileOnce({ health: down, admin: { [TWO]: 'down' } });
    assert.deepEqual(ids(oneSwitched, oneSwitched.failOpenTable), referenceMaglev([ONE, THREE], SIZE));
    const allSwitched = compileOnce({ admin: down });
    assert.equal(allSwitched.table.length, 0);
    assert.equal(allSwitched.failOpenTable?.length, 0);
  });

  test('compile() keeps the fail-open table too while nothing changes', () => {
    const compiler = new ForwardingCompiler(hash);
    const down = inputs({ health: { [ONE]: 'down', [TWO]: 'down', [THREE]: 'down' } });
    const first = view(compiler.compile(settings(), down)).failOpenTable;
    assert.equal(first?.length, SIZE);
    assert.equal(view(compiler.compile(settings(), down)).failOpenTable, first);
  });
});

describe('ForwardingCompiler views', () => {
  test('compile() shares a view between rules with the same pool and probe, and only those', () => {
    const configuration = settings({
      probes: [tcpProbe({ name: 'alive' }), tcpProbe({ name: 'deep' })],
      backendPools: [aPool(3), aPool(2, { name: 'others' })],
      rules: [
        aRule({ name: 'a', probe: 'alive' }),
        aRule({ name: 'b', probe: 'deep' }),
        aRule({ name: 'c', probe: 'alive' }),
        aRule({ name: 'd' }),
        aRule({ name: 'e', backendPool: 'others', probe: 'alive' }),
        aRule({ name: 'f' }),
      ],
    });
    const state = new ForwardingCompiler(hash).compile(configuration, inputs());
    assert.deepEqual(state.viewOfRule, [0, 1, 0, 2, 3, 2]);
    assert.deepEqual(
      state.views.map(({ key, pool, probe }) => [key, pool.name, probe?.name]),
      [
        ['nvas|alive', 'nvas', 'alive'],
        ['nvas|deep', 'nvas', 'deep'],
        ['nvas|', 'nvas', undefined],
        ['others|alive', 'others', 'alive'],
      ],
    );
    // Same members, same weights: one table for all views of the pool.
    assert.equal(view(state, 1).table, view(state, 0).table);
  });

  test('compile() asks each probe for itself, and no probe for a rule without one', () => {
    const configuration = settings({
      probes: [tcpProbe({ name: 'alive' }), tcpProbe({ name: 'deep' })],
      rules: [
        aRule({ name: 'a', probe: 'alive' }),
        aRule({ name: 'b', probe: 'deep' }),
        aRule({ name: 'c' }),
      ],
    });
    const asked = new Set<string>();
    const state = new ForwardingCompiler(hash).compile(configuration, {
      ...inputs(),
      health: ({ id }, probe) => {
        asked.add(probe);
        return { state: probe === 'deep' && id === ONE ? 'down' : probe === 'deep' ? 'up' : 'unknown' };
      },
    });
    assert.deepEqual([...asked].sort(), ['alive', 'deep']);
    assert.deepEqual(
      state.views.map(({ backends }) => backends.map(({ health, serving }) => [health, serving])),
      [
        [
          ['unknown', false],
          ['unknown', false],
          ['unknown', false],
        ],
        [
          ['down', false],
          ['up', true],
          ['up', true],
        ],
        [
          ['up', true],
          ['up', true],
          ['up', true],
        ],
      ],
    );
  });

  test('compile() says why each member is left out', () => {
    const compiled = compileOnce({
      health: { [THREE]: 'down' },
      admin: { [ONE]: 'down' },
      draining: [TWO],
    });
    assert.deepEqual(
      compiled.backends.map(({ exclusion, valid, adminState }) => ({ exclusion, valid, adminState })),
      [
        { exclusion: 'admin-down', valid: false, adminState: 'down' },
        { exclusion: 'draining', valid: true, adminState: 'none' },
        { exclusion: 'probe-down', valid: false, adminState: 'none' },
      ],
    );
    // Switched up: the probe is ignored.
    const up = compileOnce({ health: { [THREE]: 'down' }, admin: { [THREE]: 'up' } });
    assert.equal(up.backends[2]?.serving, true);
  });

  test('compile() puts only the serving priority group in the table', () => {
    const pool = aPool(3);
    const tiered = settings({
      backendPools: [
        { ...pool, backends: pool.backends.map((one, i) => ({ ...one, priority: i === 0 ? 5 : 9 })) },
      ],
    });
    const first = compileOnce({}, tiered);
    assert.equal(first.servingPriority, 5);
    assert.deepEqual(new Set(ids(first)), new Set([ONE]));
    const fallen = compileOnce({ health: { [ONE]: 'down' } }, tiered);
    assert.equal(fallen.servingPriority, 9);
    assert.deepEqual(ids(fallen), referenceMaglev([TWO, THREE], SIZE));
  });
});

describe('ForwardingCompiler revisions', () => {
  test('compile() counts revisions from 1 without a gap, also when nothing changed', () => {
    const compiler = new ForwardingCompiler(hash);
    const revisions = [1, 2, 3].map(() => compiler.compile(settings(), inputs()).revision);
    assert.deepEqual(revisions, [1, 2, 3]);
  });

  test('compile() gives states that survive structured clone and hold the configuration itself', () => {
    const configuration = settings();
    const state = new ForwardingCompiler(hash).compile(configuration, inputs());
    assert.equal(state.configuration, configuration);
    assert.deepEqual(structuredClone(state), state);
  });
});
