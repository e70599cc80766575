import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ProbeTruthMonitor } from '../../../src/monitors/probe-truth.js';
import type { TrafficCounters } from '../../../src/planes/contract.js';
import type { ForwardingState } from '../../../src/model/forwarding.js';
import { probedState, row, sample, statusOf, type MemberSketch } from './monitor-fixtures.js';

const A = '127.0.0.11';
const B = '127.0.0.12';

/** Feeds a sample a second; `traffic` gives the totals at that second. */
class Run {
  readonly monitor = new ProbeTruthMonitor();
  second = 0;
  findings: ReturnType<ProbeTruthMonitor['observe']>;

  for(
    seconds: number,
    state: ForwardingState,
    traffic: (second: number) => readonly TrafficCounters[],
  ): this {
    for (const until = this.second + seconds; this.second < until; this.second++) {
      this.findings = this.monitor.observe(
        sample(this.second * 1000, { traffic: traffic(this.second) }),
        state,
      );
    }
    return this;
  }

  failing(address = A): string | undefined {
    return statusOf(this.findings, 'ProbeUpTrafficFailing', `nvas/${address}`);
  }

  fine(address = A): string | undefined {
    return statusOf(this.findings, 'ProbeDownTrafficFine', `nvas/${address}`);
  }

  evidence(address = A): string {
    const found = this.findings?.find(({ subject }) => subject === `nvas/${address}`);
    return found?.evidence ?? '';
  }
}

function state(...members: readonly (string | MemberSketch)[]): ForwardingState {
  return probedState(members.map((member) => (typeof member === 'string' ? { address: member } : member)));
}

describe('ProbeTruthMonitor.observe()', () => {
  test('observe() finds connect failures of a backend that its probe finds up', () => {
    const traffic = (second: number) => [
      row(A, { connectFailures: 2 * second, flowsOpened: second, packetsToClient: second }),
      row(B, { flowsOpened: 3 * second, packetsToClient: 3 * second }),
    ];
    const run = new Run().for(31, state(A, B), traffic);
    assert.equal(run.failing(A), 'bad');
    assert.equal(run.failing(B), 'fine');
    assert.match(run.evidence(A), /60 of 90 new flows failed in the last 30 s: 60 could not connect/);
  });

  test('observe() says how long it must last: what the probe needs to notice', () => {
    const run = new Run().for(31, state(A), (second) => [row(A, { connectFailures: second })]);
    const finding = run.findings?.find(({ name }) => name === 'ProbeUpTrafficFailing');
    assert.equal(finding?.holdMs, 15_000);
  });

  test('observe() slides: what is older than a minute no longer counts', () => {
    // 100 failures in the first 10 s, then one good flow a second.
    const traffic = (second: number) => [
      row(A, { connectFailures: Math.min(100, 10 * second), flowsOpened: Math.max(0, second - 10) }),
    ];
    const run = new Run().for(11, state(A), traffic);
    assert.equal(run.failing(), 'bad');
    run.for(40, state(A), traffic);
    assert.equal(run.failing(), 'bad');
    run.for(25, state(A), traffic);
    assert.equal(run.failing(), 'fine');
    assert.match(run.evidence(), /^Probe "alive" finds it up; 0 of 60 new flows failed in the last 60 s$/);
  });

  test('observe() counts totals from before the first sample for nothing', () => {
    const run = new Run().for(5, state(A), () => [row(A, { connectFailures: 1000 })]);
    assert.equal(run.failing(), 'unclear');
  });

  test('observe() starts anew when the probe changes its verdict', () => {
    const traffic = (second: number) => [row(A, { connectFailures: 10 * Math.min(second, 20) })];
    const run = new Run().for(21, state(A), traffic);
    assert.equal(run.failing(), 'bad');
    run.for(5, state({ address: A, health: 'down' }), traffic);
    assert.equal(run.failing(), 'fine');
    run.for(5, state(A), traffic);
    assert.equal(run.failing(), 'unclear', 'the failures from before it went down are not held against it');
  });

  test('observe() counts from the very moment of the verdict', () => {
    const traffic = (second: number) => [row(A, { connectFailures: second > 7 ? 30 : 0 })];
    const run = new Run().for(7, state({ address: A, health: 'down' }), traffic).for(20, state(A), traffic);
    assert.match(run.evidence(), /30 of 30 new flows failed in the last 19 s/);
  });

  test('observe() takes only resets beyond the answers for failures', () => {
    const answered = (second: number) => [
      row(A, {
        flowsOpened: 5 * second,
        packetsToClient: 5 * second,
        flowsEnded: { 'backend-reset': 5 * second },
      }),
    ];
    assert.equal(new Run().for(31, state(A), answered).failing(), 'fine');
    const unanswered = (second: number) => [
      row(A, {
        flowsOpened: 5 * second,
        packetsToClient: second,
        flowsEnded: { 'backend-reset': 5 * second },
      }),
    ];
    const run = new Run().for(31, state(A), unanswered);
    assert.equal(run.failing(), 'bad');
    assert.match(run.evidence(), /120 of 150 new flows .* 120 were reset without an answer/);
  });

  test('observe() counts a UDP flow and its "port unreachable" as one attempt', () => {
    const traffic = (second: number) => [
      row(A, {
        protocol: 'udp',
        flowsOpened: 4 * second,
        connectFailures: second,
        packetsToClient: 3 * second,
      }),
    ];
    const run = new Run().for(31, state(A), traffic);
    assert.match(run.evidence(), /30 of 120 new flows/);
    assert.equal(run.failing(), 'unclear');
  });

  test('observe() finds a backend that swallows what others answer', () => {
    const traffic = (others: number) => (second: number) => [
      row(A, { protocol: 'udp', flowsOpened: second }),
      row(B, { protocol: 'udp', flowsOpened: second, packetsToClient: others * second }),
    ];
    const run = new Run().for(31, state(A, B), traffic(2));
    assert.equal(run.failing(A), 'bad');
    assert.match(run.evidence(A), /30 got no answer where other backends answer/);
    assert.equal(run.failing(B), 'fine');
    // One-way protocols: nobody answers.
    assert.equal(new Run().for(31, state(A, B), traffic(0)).failing(A), 'fine');
    // Nobody to compare with.
    assert.equal(new Run().for(31, state(A), traffic(2)).failing(A), 'fine');
  });

  test('observe() finds a backend answering that its probe has found down for a minute', () => {
    const down = state({ address: A, health: 'down' }, B);
    const traffic = (second: number) => [
      row(A, { packetsToClient: 10 * second, bytesToClient: 100 * second }),
    ];
    const run = new Run().for(60, down, traffic);
    assert.equal(run.fine(), 'unclear');
    run.for(2, down, traffic);
    assert.equal(run.fine(), 'bad');
    assert.equal(run.failing(), 'fine');
    const stopped = run.second - 1;
    run.for(70, down, () => traffic(stopped));
    assert.equal(run.fine(), 'fine');
  });

  test('observe() does not take it for fine when flows are reset', () => {
    const down = state({ address: A, health: 'down' });
    const run = new Run().for(70, down, (second) => [
      row(A, { packetsToClient: 10 * second, flowsEnded: { 'backend-reset': second > 50 ? 1 : 0 } }),
    ]);
    assert.equal(run.fine(), 'fine');
  });

  test('observe() leaves backends alone that are switched down, and rules without a probe', () => {
    const traffic = (second: number) => [row(A, { connectFailures: 5 * second })];
    const run = new Run().for(31, state({ address: A, admin: 'down' }), traffic);
    assert.deepEqual(run.findings, []);
    const unprobed = state(A);
    const views = unprobed.views.map(({ key, pool, backends, table }) => ({ key, pool, backends, table }));
    assert.deepEqual(new Run().for(31, { ...unprobed, views }, traffic).findings, []);
  });

  test('observe() cannot tell without counters', () => {
    const monitor = new ProbeTruthMonitor();
    assert.equal(monitor.observe({ atMs: 0, counters: undefined }, state(A)), undefined);
  });

  test('observe() takes totals that shrink for a new beginning', () => {
    const run = new Run().for(10, state(A), (second) => [row(A, { flowsOpened: 1000 + second })]);
    run.for(10, state(A), () => [row(A, { flowsOpened: 5 })]);
    assert.equal(run.failing(), 'unclear');
  });
});
