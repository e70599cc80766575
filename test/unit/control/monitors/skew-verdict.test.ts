import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { assessSkew, bestSpread, type SkewInputs } from '../../../../src/monitors/skew.js';

function inputs(sources: number, flows: readonly number[], changes: Partial<SkewInputs> = {}): SkewInputs {
  return {
    distribution: 'source-ip',
    sources,
    backends: flows.map((flowsOpened, index) => ({ name: `nva-${index + 1}`, weight: 1, flowsOpened })),
    ...changes,
  };
}

describe('assessSkew()', () => {
  test('assessSkew() warns where few sources fill one backend to twice its share', () => {
    const table: readonly [SkewInputs, string | undefined][] = [
      // 400 of 500 over 3 is 2.4 times a third.
      [inputs(3, [400, 100, 0]), 'bad'],
      [inputs(3, [400, 100, 0], { distribution: 'source-ip-protocol' }), 'bad'],
      [inputs(3, [400, 100, 0], { distribution: 'five-tuple' }), undefined],
      // 60 % is 1.8 times a third: between the thresholds. 40 % is 1.2 times.
      [inputs(3, [300, 200, 0]), 'unclear'],
      [inputs(3, [200, 200, 100]), 'fine'],
      // 12 sources are enough for 3 backends, 11.9 are not.
      [inputs(12, [500, 0, 0]), 'fine'],
      [inputs(11.9, [500, 0, 0]), 'bad'],
      // 99 flows say nothing.
      [inputs(1, [99, 0, 0]), 'unclear'],
      [inputs(1, [100, 0, 0]), 'bad'],
      // All on one of two is twice its share.
      [inputs(1, [100, 0]), 'bad'],
      [inputs(1, [100]), undefined],
      [inputs(0, [0, 0]), 'unclear'],
    ];
    for (const [given, expected] of table) {
      assert.equal(assessSkew(given)?.status, expected, JSON.stringify(given));
    }
  });

  test('assessSkew() measures against the share that the weights give', () => {
    const weighted = (first: number, second: number) => ({
      backends: [
        { name: 'big', weight: 3, flowsOpened: first },
        { name: 'small', weight: 1, flowsOpened: second },
      ],
    });
    // 100 % is 1.33 times three quarters.
    assert.equal(assessSkew(inputs(2, [], weighted(200, 0)))?.status, 'fine');
    // 50 % is twice a quarter.
    assert.equal(assessSkew(inputs(2, [], weighted(100, 100)))?.status, 'bad');
  });

  test('assessSkew() shows the spread that is, and the best that could be', () => {
    assert.equal(
      assessSkew(inputs(2.97, [200, 300, 0]))?.evidence,
      'Affinity by source on 3 sources spread 500 flows over 3 backends as 60/40/0 %, most on "nva-2"; with equal sources the best possible spread is 34/33/33 %',
    );
    assert.match(assessSkew(inputs(2, [200, 0, 0]))?.evidence ?? '', /best possible spread is 50\/50\/0 %$/);
    assert.match(assessSkew(inputs(0.2, [200, 0]))?.evidence ?? '', /100\/0 %, most on "nva-1"$/);
  });
});

describe('bestSpread()', () => {
  test('bestSpread() differs by one source at most and adds up to 1', () => {
    for (let sources = 1; sources <= 20; sources++) {
      for (let backends = 1; backends <= 8; backends++) {
        const counts = bestSpread(sources, backends).map((share) => Math.round(share * sources));
        assert.equal(counts.length, backends);
        assert.equal(
          counts.reduce((sum, count) => sum + count, 0),
          sources,
        );
        assert.ok(Math.max(...counts) - Math.min(...counts) <= 1);
      }
    }
  });
});
