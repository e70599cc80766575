import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { routeOf, sentenceOf } from '../../../../src/admin/page/explanation.js';
import type { LiveExplanation } from '../../../../src/api/views.js';
import { EXPLANATION, flow } from './fixtures.js';

const TUPLE = 'tcp 192.0.2.7:40000 -> 127.0.0.1:8000';

function explained(changes: Partial<LiveExplanation>): LiveExplanation {
  return { ...EXPLANATION, ...changes };
}

describe('sentenceOf()', () => {
  test('names rule and action where nobody is there', () => {
    const result = { kind: 'none', ruleIndex: 0, cause: 'no-eligible', action: 'reset' } as const;
    assert.equal(
      sentenceOf(explained({ result })),
      `${TUPLE} goes nowhere: no backend of the pool is eligible, and rule ha-ports says reset.`,
    );
  });

  test('names the entry that denies', () => {
    const access = { admitted: false, because: 'deny', block: '192.0.2.0/24' } as const;
    assert.equal(
      sentenceOf(explained({ result: { kind: 'denied', ruleIndex: 0 }, access })),
      `${TUPLE} is refused: frontend hub does not admit the source (the deny entry 192.0.2.0/24).`,
    );
  });

  test('says that no rule covers it', () => {
    const rest = { ...explained({ result: { kind: 'no-rule' }, candidates: [] }), rule: undefined };
    assert.equal(sentenceOf(rest), `${TUPLE} goes nowhere: no rule covers it.`);
    assert.deepEqual(routeOf(rest), []);
  });

  test('does not tell twice where a live flow is where a new one would go', () => {
    const live = { ...EXPLANATION, flow: flow(1, { backendId: 'nvas/127.0.0.12', reason: 'hash' }) };
    assert.equal(sentenceOf(live), `${TUPLE} is live on nva-2 (127.0.0.12): its hash chose it.`);
  });
});

describe('routeOf()', () => {
  test('goes to the backend that has the live flow', () => {
    const live = { ...EXPLANATION, flow: flow(1, { backendId: 'nvas/127.0.0.13' }) };
    assert.deepEqual(routeOf(live), [
      'frontend:hub',
      'rule:ha-ports',
      'pool:nvas',
      'backend:nvas/127.0.0.13',
    ]);
    assert.equal(routeOf(EXPLANATION).at(-1), 'backend:nvas/127.0.0.12');
  });
});
