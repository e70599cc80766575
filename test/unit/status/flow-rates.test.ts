import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FlowRates } from '../../../src/status/counters.js';
import { FakeClock } from '../../support/fake-clock.js';
import { aFlowRecord } from './counters-fixtures.js';

const flow = (bytesToClient: number, id = 1, idleMs = 0) => aFlowRecord(id, { bytesToClient, idleMs });

function lab() {
  const clock = new FakeClock();
  return { clock, rates: new FlowRates(clock) };
}

describe('FlowRates', () => {
  test('measures from look to look', () => {
    const { clock, rates } = lab();
    assert.equal(rates.look(flow(1000)), undefined);
    clock.advance(1000);
    assert.equal(rates.look(flow(2000)), 8000);
    clock.advance(500);
    assert.equal(rates.look(flow(2000)), 0);
  });

  test('gives the last rate again to those who look too often', () => {
    const { clock, rates } = lab();
    rates.look(flow(0));
    clock.advance(100);
    assert.equal(rates.look(flow(1000)), undefined);
    clock.advance(900);
    assert.equal(rates.look(flow(1000)), 8000);
    clock.advance(249);
    assert.equal(rates.look(flow(9000)), 8000);
  });

  test('is never negative', () => {
    const { clock, rates } = lab();
    rates.look(flow(1000));
    clock.advance(1000);
    assert.equal(rates.look(flow(10)), 0);
  });

  test('needs no memory for flows that have long been silent', () => {
    const { clock, rates } = lab();
    rates.look(flow(1000));
    assert.equal(rates.size, 1);
    clock.advance(29_999);
    assert.equal(rates.look(flow(1000, 1, 30_000)), 0);
    assert.equal(rates.size, 0);
  });

  test('remembers 100,000 flows at most', () => {
    const { clock, rates } = lab();
    for (let id = 0; id < 100_010; id++) rates.look(flow(0, id));
    assert.equal(rates.size, 100_000);
    clock.advance(1000);
    assert.equal(rates.look(flow(1000, 0)), 8000, 'the first ones are kept');
    assert.equal(rates.look(flow(1000, 100_005)), undefined);
  });

  test('begin() drops those not seen for 30 seconds, and later everything by itself', () => {
    const { clock, rates } = lab();
    rates.begin();
    rates.look(flow(0, 1));
    rates.look(flow(0, 2));
    clock.advance(20_000);
    rates.begin();
    rates.look(flow(0, 2));
    clock.advance(10_000);
    rates.begin();
    assert.equal(rates.size, 1);
    clock.advance(30_000);
    assert.equal(rates.size, 0);
    assert.equal(clock.pendingTimers, 0);
  });
});
