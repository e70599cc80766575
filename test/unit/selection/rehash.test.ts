import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ipAddress } from '../../../src/model/address.js';
import { KERNEL_REHASHES, jhash, reciprocalScale } from '../../../src/selection/flow-hash.js';
import { KernelStates } from '../../support/kernel-states.js';

const states = await KernelStates.create();

const state = states.state(
  {
    seed: 0xfffffffe,
    frontends: [{ name: 'hub', address: '10.9.0.10' }],
    backendPools: [
      {
        name: 'nvas',
        backends: ['11', '12', '13'].map((host) => ({ name: `b${host}`, address: `10.2.0.${host}` })),
      },
    ],
    rules: [{ name: 'all', frontend: 'hub', backendPool: 'nvas', haPorts: true }],
  },
  { tableSize: 1021 },
);

const tupleOf = (sourcePort: number) =>
  ({
    protocol: 'tcp',
    source: ipAddress('10.1.0.2'),
    sourcePort,
    destination: ipAddress('10.9.0.10'),
    destinationPort: 443,
  }) as const;

/** What the ruleset does: the slot of seed, seed + 1 ... until its backend is not out; undefined: it gives up. */
function placed(sourcePort: number, out: ReadonlySet<string>): { id: string; round: number } | undefined {
  const [view] = state.views;
  assert.ok(view);
  const key = Buffer.alloc(20);
  key.set([10, 1, 0, 2, 10, 9, 0, 10, 6]);
  key.writeUInt16BE(sourcePort, 12);
  key.writeUInt16BE(443, 16);
  for (const [round, seed] of [0xfffffffe, 0xffffffff, 0, 1].entries()) {
    const id = view.backends[view.table[reciprocalScale(jhash(key, seed), 1021)] ?? -1]?.backend.id ?? '';
    if (!out.has(id)) return { id, round };
  }
  return undefined;
}

describe('a picker of the kernel data plane', () => {
  for (const out of [[], ['nvas/10.2.0.11'], ['nvas/10.2.0.11', 'nvas/10.2.0.12']]) {
    test(`hashes again while the backend is one of ${out.length} that are out`, () => {
      const excluded = new Set(out);
      const rounds = new Set<number | undefined>();
      for (let sourcePort = 1000; sourcePort < 2000; sourcePort++) {
        const pick = states.picker.pickForRule(state, 0, tupleOf(sourcePort), excluded);
        const wanted = placed(sourcePort, excluded);
        rounds.add(wanted?.round);
        if (wanted === undefined) {
          assert.deepEqual([pick.kind, pick.kind === 'none' && pick.cause], ['none', 'all-excluded']);
          continue;
        }
        assert.ok(pick.kind === 'picked');
        assert.equal(pick.backendId, wanted.id);
        assert.equal(pick.skipped, wanted.round);
        assert.equal(pick.reason, wanted.round === 0 ? 'hash' : 'retry');
      }
      // With two of three out, every number of rounds comes up, and giving up.
      assert.equal(rounds.size, out.length === 0 ? 1 : out.length === 1 ? 5 : KERNEL_REHASHES + 2);
    });
  }
});
