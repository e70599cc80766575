import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { ForwardingCompiler } from '../../src/selection/compiler.js';
import { planChange } from '../../src/whatif/plan.js';
import { generatedTuples } from '../../src/whatif/population.js';
import { replay } from '../../src/whatif/replay.js';
import type { Configuration, Distribution } from '../../src/model/configuration.js';
import type { FlowRecord } from '../../src/model/flow.js';
import type { ForwardingState } from '../../src/model/forwarding.js';
import { createHasher } from '../../src/selection/flow-hash.js';
import { Picker } from '../../src/selection/picker.js';
import { inPieces, LogRecorder, randomFlows } from '../unit/whatif/recorded-flows.js';
import { aPool, settings } from '../unit/control/settings.js';
import { aRule } from '../unit/selection/fixtures.js';
import { campaign } from '../support/campaign.js';

const hash = await createHasher();
const picker = new Picker(hash);
/** Building tables and hashing populations takes time; each case is a whole configuration. */
const RUNS = { numRuns: campaign({ share: 12, whole: 200 }) };

const members = fc.array(
  fc.record({
    weight: fc.integer({ min: 0, max: 5 }),
    priority: fc.integer({ min: 0, max: 1 }),
    adminState: fc.constantFrom('none', 'up', 'down'),
  }),
  { minLength: 1, maxLength: 6 },
);

const configurations: fc.Arbitrary<Configuration> = fc
  .record({
    members,
    distribution: fc.constantFrom<Distribution>('five-tuple', 'source-ip-protocol', 'source-ip'),
    symmetric: fc.boolean(),
    seed: fc.nat(),
    tableSize: fc.constantFrom(251, 509),
  })
  .map(({ members: some, distribution, symmetric, seed, tableSize }) => {
    const pool = aPool(some.length);
    const backends = pool.backends.map((backend, index) => ({ ...backend, ...some[index] }));
    return settings({
      ...{ seed, tableSize },
      backendPools: [{ ...pool, backends }],
      rules: [aRule({ probe: 'alive', distribution, symmetric })],
    });
  });

/** By index of the backend: whether its probe is down. */
const downs = fc.array(fc.boolean(), { minLength: 6, maxLength: 6 });

function compiled(configuration: Configuration, down: readonly boolean[]): ForwardingState {
  const ids = configuration.backendPools[0]?.backends.map(({ id }) => id) ?? [];
  return new ForwardingCompiler(hash).compile(configuration, {
    health: ({ id }) => ({ state: down[ids.indexOf(id)] === true ? 'down' : 'up' }),
  });
}

/** Live flows of a state: each on the backend that it was placed on. */
async function* liveFlows(state: ForwardingState, flows: number): AsyncGenerator<FlowRecord> {
  for (const tuple of generatedTuples(state.configuration, 0, { flows, sources: 40, seed: 1 })) {
    const pick = picker.pick(state, tuple, new Set());
    yield await Promise.resolve({
      ...{ id: 1, tuple, rule: 'ha-ports', backendId: pick.kind === 'picked' ? pick.backendId : '' },
      ...{ backendEndpoint: '', reason: 'hash', state: 'established', epoch: 1, excluded: [] },
      ...{ openedAtMs: 0, idleMs: 0, bytesToBackend: 0, packetsToBackend: 0 },
      ...{ bytesToClient: 0, packetsToClient: 0 },
    } satisfies FlowRecord);
  }
}

test('planChange() of a configuration against itself moves nothing and has no steps', async () => {
  await fc.assert(
    fc.asyncProperty(configurations, downs, async (configuration, down) => {
      const report = await planChange({
        before: compiled(configuration, down),
        after: compiled(structuredClone(configuration), down),
        flows: (async function* () {
          // Flows on backends that are valid: on others the policy has acted long before.
          const state = compiled(configuration, down);
          const invalid = new Set(
            state.views[0]?.backends.filter(({ valid }) => !valid).map(({ backend }) => backend.id),
          );
          for await (const flow of liveFlows(state, 100)) if (!invalid.has(flow.backendId)) yield flow;
        })(),
        picker,
      });
      assert.equal(report.movedShare, 0);
      const { stay, ...others } = report.flows;
      assert.ok(stay > 0);
      assert.deepEqual(others, { move: 0, reset: 0, drop: 0 });
      assert.deepEqual(
        [report.backends, report.probeStateLost, report.restartNeeded, report.steps],
        [{ added: [], removed: [], changed: [] }, [], [], []],
      );
      assert.deepEqual([report.listeners.opened, report.listeners.closed], [0, 0]);
    }),
    RUNS,
  );
});

test('planChange() says of the hash space what random flows find out', async () => {
  await fc.assert(
    fc.asyncProperty(configurations, configurations, downs, async (from, to, down) => {
      const before = compiled(from, down);
      const after = compiled(to, down);
      const report = await planChange({ before, after, flows: liveFlows(before, 0), picker });
      let moved = 0;
      const flows = [...randomFlows(4000, 77)];
      for (const tuple of flows) {
        const old = picker.pick(before, tuple, new Set());
        const present = picker.pick(after, tuple, new Set());
        const idOf = (pick: typeof old): string => (pick.kind === 'picked' ? pick.backendId : '');
        if (idOf(old) !== idOf(present)) moved++;
      }
      // Five standard deviations of 4,000 draws at most.
      assert.ok(Math.abs(report.movedShare - moved / flows.length) < 0.05);
    }),
    RUNS,
  );
});

test('replay() never throws, and counts every line, whatever is done to the text', async () => {
  const log = new LogRecorder(new ForwardingCompiler(hash), picker);
  log.epoch(settings());
  for (const tuple of randomFlows(10, 3)) log.place(tuple);
  const { text } = log;
  await fc.assert(
    fc.asyncProperty(
      fc.nat(text.length),
      fc.nat(60),
      fc.oneof(fc.string(), fc.constantFrom('null', '{}', '[]', '-1', '1e999', '"', '\n')),
      async (start, length, insertion) => {
        const damaged = text.slice(0, start) + insertion + text.slice(start + length);
        const report = await replay(inPieces(damaged, 997), { hash, picker });
        const lines = damaged.split('\n').filter((line) => line.trim() !== '').length;
        assert.equal(report.lines, lines);
        assert.ok(report.agree <= 10 && report.agree + report.differ <= report.decisions);
      },
    ),
    { numRuns: 300 },
  );
});
