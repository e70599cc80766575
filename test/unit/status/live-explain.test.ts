import type { LiveExplanation } from '../../../src/api/views.js';
import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { liveExplain } from '../../../src/status/explain.js';
import type { FlowRecord } from '../../../src/model/flow.js';
import { explain } from '../../../src/selection/explain.js';
import { createHasher } from '../../../src/selection/flow-hash.js';
import { Picker } from '../../../src/selection/picker.js';
import { aBackend, aRule, aState, aTuple, aView } from '../selection/fixtures.js';
import { aFlowRecord } from './counters-fixtures.js';
import { FlowPages } from './flow-pages.js';

/** Slot 0 of 7, whose owner is 10.0.0.1 (docs/hash.md). */
const tuple = aTuple('203.0.113.9:40000', '198.51.100.1:443');
const [pool] = aState().configuration.backendPools;
const backends = [1, 2, 3].map((n) => aBackend(`nva-${n}`, `10.0.0.${n}`));
const configuration = { backendPools: [{ ...pool!, backends }] };

let picker: Picker;
before(async () => {
  picker = new Picker(await createHasher());
});

interface Told {
  readonly flows?: readonly FlowRecord[];
  readonly state?: Parameters<typeof aState>[0];
}

async function ask({ flows = [], state }: Told): Promise<LiveExplanation & { readonly queries: number }> {
  const plane = new FlowPages(flows);
  const live = await liveExplain({ picker, state: aState({ configuration, ...state }), plane, tuple });
  return { ...live, queries: plane.queries.length };
}

const flowOn = (backendId: string, overrides: Partial<FlowRecord> = {}) =>
  aFlowRecord(1, { tuple, backendId, epoch: 3, ...overrides });

describe('liveExplain()', () => {
  test('is the explanation of the present state, with a verdict', async () => {
    const { queries, verdict, flow, agrees, ...live } = await ask({});
    assert.deepEqual([flow, agrees], [undefined, undefined]);
    assert.deepEqual(live, explain(picker, aState({ configuration }), tuple));
    assert.equal(verdict, 'No such flow is live; a new one would go to nvas/nva-1 at 10.0.0.1:443');
    assert.equal(queries, 1);
  });

  test('finds the live flow of exactly this five-tuple, its addresses as text', async () => {
    const decoys = [
      aFlowRecord(2, { tuple: { ...tuple, protocol: 'udp' } }),
      aFlowRecord(3, { tuple: { ...tuple, sourcePort: 40001 } }),
      aFlowRecord(4, { tuple: { ...tuple, destinationPort: 444 } }),
      aFlowRecord(5, { tuple: aTuple('203.0.113.8:40000', '198.51.100.1:443') }),
      aFlowRecord(6, { tuple: aTuple('203.0.113.9:40000', '198.51.100.2:443') }),
    ];
    assert.equal((await ask({ flows: decoys })).flow, undefined);
    const live = await ask({ flows: [...decoys, flowOn('nvas/10.0.0.1')] });
    assert.deepEqual(live.flow?.tuple, {
      protocol: 'tcp',
      source: '203.0.113.9',
      sourcePort: 40000,
      destination: '198.51.100.1',
      destinationPort: 443,
    });
    assert.equal(live.flow.backendId, 'nvas/10.0.0.1');
    assert.equal(live.agrees, true);
    assert.equal(live.verdict, 'The live flow is on nvas/nva-1, where a new one would go too');
    assert.equal(live.queries, 1);
    assert.deepEqual(JSON.parse(JSON.stringify(live.flow)), live.flow);
  });

  test('finds a flow that is far down a great table, on another backend', async () => {
    const others = Array.from({ length: 2500 }, (_, index) =>
      aFlowRecord(index + 2, { tuple: { ...tuple, sourcePort: index + 1 }, backendId: 'nvas/10.0.0.2' }),
    );
    const live = await ask({ flows: [...others, flowOn('nvas/10.0.0.2')] });
    assert.equal(live.flow?.id, 1);
    assert.equal(live.agrees, false);
    assert.equal(live.queries, 1, 'reads nothing of the others');
  });

  const elsewhere = 'The live flow is on nvas/nva-2, but a new one would go to nvas/nva-1 at 10.0.0.1:443: ';
  const reasons: readonly (readonly [Partial<FlowRecord>, string])[] = [
    [{ reason: 'hash' }, 'pinned, revision 3 placed it and flows stay while their backend may keep them'],
    [{ reason: 'pinned' }, 'pinned, revision 3 placed it and flows stay while their backend may keep them'],
    [
      { reason: 'retry', excluded: ['nvas/10.0.0.1', 'nvas/10.0.0.9'] },
      'retry, nvas/nva-1, nvas/10.0.0.9 could not take it when it came (not reached, or at its cap)',
    ],
    [{ reason: 'rebalanced' }, 'rebalanced, flow policy moved it there in revision 3'],
    [{ reason: 'fail-open' }, 'fail-open, no backend was eligible when it was placed (revision 3)'],
    [{ rule: 'old' }, 'it came by rule "old", and a new one would come by "ha-ports"'],
  ];
  for (const [overrides, because] of reasons) {
    test(`says why a flow is elsewhere: ${because.split(',', 1)[0]} (${JSON.stringify(overrides)})`, async () => {
      const live = await ask({ flows: [flowOn('nvas/10.0.0.2', overrides)] });
      assert.equal(live.agrees, false);
      assert.equal(live.verdict, elsewhere + because);
    });
  }

  test('says what a new flow would meet where nobody, no rule or no admission is to be had', async () => {
    const nobody = aView({ table: new Uint16Array(0) });
    const verdict = async (told: Told) => (await ask(told)).verdict;
    assert.match(
      await verdict({ state: { configuration, view: nobody } }),
      /would find no eligible backend and be reset$/,
    );
    const drop = { ...configuration, rules: [aRule({ allDown: 'drop' })] };
    assert.match(await verdict({ state: { configuration: drop, view: nobody } }), /and be dropped$/);
    const udpOnly = { ...configuration, rules: [aRule({ protocols: ['udp'] })] };
    assert.match(await verdict({ state: { configuration: udpOnly } }), /would find no rule$/);
    assert.equal(
      await verdict({ state: { configuration, view: nobody }, flows: [flowOn('nvas/10.0.0.9')] }),
      'The live flow is on nvas/10.0.0.9, but a new one would find no eligible backend and be reset: ' +
        'pinned, revision 3 placed it and flows stay while their backend may keep them',
    );
  });

  test('says that a flow has no backend yet', async () => {
    const live = await ask({ flows: [flowOn('', { state: 'embryonic' })] });
    assert.equal(live.agrees, false);
    assert.match(live.verdict, /^The flow is live, but on no backend yet; a new one would go to nvas\/nva-1/);
  });
});
