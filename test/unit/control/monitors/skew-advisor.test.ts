import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SkewAdvisor } from '../../../../src/monitors/skew.js';
import type { ForwardingState } from '../../../../src/model/forwarding.js';
import { SKETCH_REGISTERS } from '../../../../src/flows/traffic.js';
import { probedState, row, sample, statusOf } from './monitor-fixtures.js';
import type { RuleParts } from '../../../support/forwarding-state.js';

const A = '127.0.0.11';
const B = '127.0.0.12';

/** What so few sources leave behind, if no two of them meet: one register each. */
function sketch(sources: number, from = 0): Uint8Array {
  return Uint8Array.from({ length: SKETCH_REGISTERS }, (_, index) =>
    index >= from && index < from + sources ? 1 : 0,
  );
}

function state(rule: RuleParts = { distribution: 'source-ip' }, weightOfB = 1): ForwardingState {
  return probedState([{ address: A }, { address: B, weight: weightOfB }], rule);
}

function seen(a: number, b: number, sketches: readonly Uint8Array[] = [sketch(3)]) {
  return {
    traffic: [row(A, { flowsOpened: a }), row(B, { flowsOpened: b, protocol: 'udp' })],
    arrivals: sketches.map((sourceSketch, index) => ({
      rule: 'ha-ports',
      protocol: index === 0 ? ('tcp' as const) : ('udp' as const),
      arrivals: a + b,
      drops: {},
      sourceSketch,
    })),
  };
}

describe('SkewAdvisor.observe()', () => {
  test('observe() goes by the flows opened since the first sample, over both protocols', () => {
    const advisor = new SkewAdvisor();
    const status = (atMs: number, a: number, b: number) =>
      statusOf(advisor.observe(sample(atMs, seen(a, b)), state()), 'SourceAffinitySkew', 'ha-ports');
    assert.equal(status(0, 10_000, 0), 'unclear');
    assert.equal(status(1000, 10_099, 0), 'unclear');
    assert.equal(status(2000, 10_100, 0), 'bad');
    assert.equal(status(3000, 10_100, 100), 'fine');
  });

  test('observe() puts the sources of both protocols together', () => {
    const advisor = new SkewAdvisor();
    advisor.observe(sample(0), state());
    const disjoint = seen(200, 0, [sketch(4), sketch(4, 4)]);
    const found = advisor.observe(sample(1000, disjoint), state());
    assert.match(found?.[0]?.evidence ?? '', /on 8 sources/);
    assert.equal(found?.[0]?.status, 'fine');
    const same = advisor.observe(sample(2000, seen(200, 0, [sketch(4), sketch(4)])), state());
    assert.match(same?.[0]?.evidence ?? '', /on 4 sources/);
    assert.equal(same?.[0]?.status, 'bad');
  });

  test('observe() starts anew when weights or serving backends change', () => {
    const advisor = new SkewAdvisor();
    advisor.observe(sample(0), state());
    assert.equal(advisor.observe(sample(1000, seen(500, 0)), state())?.[0]?.status, 'bad');
    const changed = state({ distribution: 'source-ip' }, 2);
    assert.equal(advisor.observe(sample(2000, seen(500, 0)), changed)?.[0]?.status, 'unclear');
    advisor.observe(sample(3000, seen(600, 0)), changed);
    const found = advisor.observe(sample(60_000, seen(600, 0)), changed);
    assert.match(found?.[0]?.evidence ?? '', /spread 100 flows/, 'from the very moment of the change');
  });

  test('observe() forgets what is older than ten minutes', () => {
    const advisor = new SkewAdvisor();
    for (let second = 0; second <= 700; second++) {
      const even = second < 100 ? 0 : second - 100;
      advisor.observe(sample(second * 1000, seen(500 + even, even)), state());
    }
    const found = advisor.observe(sample(701_000, seen(1101, 601)), state());
    assert.equal(found?.[0]?.status, 'fine');
    assert.match(found[0].evidence, /as 50\/50 %/);
  });

  test('observe() says nothing of rules that hash every flow, or whose sources nobody counts', () => {
    const advisor = new SkewAdvisor();
    const fiveTuple = state({ distribution: 'five-tuple' });
    advisor.observe(sample(0), fiveTuple);
    assert.deepEqual(advisor.observe(sample(1000, seen(500, 0)), fiveTuple), []);
    assert.deepEqual(new SkewAdvisor().observe(sample(0, seen(500, 0, [])), state()), []);
    assert.equal(new SkewAdvisor().observe({ atMs: 0, counters: undefined }, state()), undefined);
  });
});
