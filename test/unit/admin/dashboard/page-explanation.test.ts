import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { factsOf, routeOf } from '../../../../src/admin/page/explanation.js';
import { aFlow, aPickedExplanation } from '../../../support/api-answers.js';

describe('routeOf()', () => {
  test('goes to the backend that has the live flow', () => {
    const live = aPickedExplanation({ flow: aFlow(1, { backendId: 'nvas/127.0.0.13' }) });
    const nodes = ['frontend:hub', 'rule:ha-ports', 'pool:nvas', 'backend:nvas/127.0.0.13'];
    assert.deepEqual(routeOf(live), nodes);
    assert.equal(routeOf(aPickedExplanation()).at(-1), 'backend:nvas/127.0.0.12');
  });

  test('is empty where no rule covers the tuple', () => {
    const { rule, ...rest } = aPickedExplanation({ result: { kind: 'no-rule' }, candidates: [] });
    assert.equal(rule?.name, 'ha-ports');
    assert.deepEqual(routeOf(rest), []);
  });
});

describe('factsOf()', () => {
  test('names the entry that denies', () => {
    const access = { admitted: false, because: 'deny', block: '192.0.2.0/24' } as const;
    const facts = new Map(factsOf(aPickedExplanation({ result: { kind: 'denied', ruleIndex: 0 }, access })));
    assert.equal(facts.get('Access'), 'refused: deny 192.0.2.0/24');
  });

  test('shows how the slot was found', () => {
    const facts = new Map(factsOf(aPickedExplanation()));
    assert.equal(facts.get('Slot'), '3735928559 mod 65537 = 31337, owned by nvas/127.0.0.12');
    assert.equal(facts.get('Not rule dns'), 'other protocol');
  });
});
