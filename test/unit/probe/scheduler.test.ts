import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ipAddress } from '../../../src/model/address.js';
import type { HealthTransition, Probe } from '../../../src/model/configuration.js';
import { initialHealth, observe } from '../../../src/health/tracker.js';
import { ProbeScheduler, probeKey, type ProbeTarget } from '../../../src/health/scheduler.js';
import { FakeClock } from '../../support/fake-clock.js';
import { httpProbe, tcpProbe } from './probe-fixtures.js';
import { ScriptedRunner, SICK, UP } from './scripted-runner.js';

const A = ipAddress('10.0.0.1');
const B = ipAddress('10.0.0.2');

function setUp({ random = (): number => 0.5, immediateStarts = 16 } = {}) {
  const clock = new FakeClock();
  const runner = new ScriptedRunner(clock);
  const scheduler = new ProbeScheduler(
    { clock, runner, tracker: { initialHealth, observe }, random },
    { immediateStarts },
  );
  const transitions: HealthTransition[] = [];
  const results: string[] = [];
  scheduler.onHealth((key, health, transition) => {
    results.push(`${key.split(' ')[0] ?? ''} ${health.state}`);
    if (transition) transitions.push(transition);
  });
  return { clock, runner, scheduler, transitions, results };
}

const at = (probe: Probe, address = A): ProbeTarget => ({ address, probe });
const probe = httpProbe({ intervalMs: 5000, timeoutMs: 2000 });

describe('ProbeScheduler', () => {
  test('probes at once, then every interval from the start of the last probe', async () => {
    const { clock, runner, scheduler, results } = setUp();
    scheduler.update([at(probe)]);
    await clock.advanceAsync(12_000, 500);
    assert.deepEqual(runner.takeTimes(), [0, 5000, 10_000]);
    assert.deepEqual(results, ['10.0.0.1 up', '10.0.0.1 up', '10.0.0.1 up']);
    runner.answer = 'hang';
    await clock.advanceAsync(10_000, 500);
    assert.deepEqual(runner.takeTimes(), [15_000, 20_000], 'a slow probe does not delay the next');
    await scheduler.stop();
  });

  test('inherit() has a target start with what another process knew, and no other', async () => {
    const { scheduler } = setUp();
    const known = {
      ...initialHealth(),
      state: 'up' as const,
      measured: 'up' as const,
      consecutiveSuccesses: 4,
    };
    scheduler.inherit(new Map([[probeKey(A, probe), known]]));
    scheduler.update([at(probe), at(probe, B)]);
    assert.deepEqual(scheduler.health(probeKey(A, probe)), known);
    assert.equal(scheduler.health(probeKey(B, probe))?.state, 'unknown');
    scheduler.update([]);
    scheduler.update([at(probe)]);
    assert.equal(scheduler.health(probeKey(A, probe))?.state, 'unknown', 'only once');
    await scheduler.stop();
  });

  test('aborts a probe at its timeout', async () => {
    const { clock, runner, scheduler, results } = setUp();
    runner.answer = 'hang';
    scheduler.update([at(probe)]);
    await clock.advanceAsync(1999, 1);
    const [call] = runner.calls;
    assert.ok(call);
    assert.equal(call.signal.aborted, false);
    await clock.advanceAsync(1);
    assert.equal(call.signal.aborted, true);
    assert.deepEqual(results, ['10.0.0.1 unknown']);
    await scheduler.stop();
  });

  test('never has two probes of one target under way, even if one outlives its interval', async () => {
    const { clock, runner, scheduler } = setUp();
    const finish: (() => void)[] = [];
    runner.run = async () => {
      runner.mostInFlight = Math.max(runner.mostInFlight, ++runner.inFlight);
      await new Promise<void>((resolve) => finish.push(resolve));
      runner.inFlight--;
      return UP;
    };
    scheduler.update([at(probe)]);
    await clock.advanceAsync(7000, 500);
    scheduler.hasten(A);
    await clock.advanceAsync(1000, 500);
    assert.equal(finish.length, 1);
    finish[0]?.();
    await clock.advanceAsync(500, 1);
    assert.equal(finish.length, 2, 'the overdue one follows at once');
    assert.equal(runner.mostInFlight, 1);
    finish[1]?.();
    await scheduler.stop();
  });

  test('merges targets that differ in name only, and keeps others apart', async () => {
    const { clock, runner, scheduler } = setUp();
    scheduler.update([
      at(probe),
      at({ ...probe, name: 'other-name' }),
      at(probe, B),
      at({ ...probe, path: '/other' }),
      at(tcpProbe()),
    ]);
    await clock.advanceAsync(1);
    assert.equal(runner.calls.length, 4);
    assert.equal(scheduler.statuses().length, 4);
    await scheduler.stop();
  });

  test('reports transitions with evidence and wall time, and keeps the health', async () => {
    const { clock, runner, scheduler, transitions } = setUp();
    scheduler.update([at(probe)]);
    await clock.advanceAsync(1);
    runner.answer = SICK;
    await clock.advanceAsync(4999);
    assert.deepEqual(
      transitions.map(({ from, to, evidence }) => `${from} ${to} ${evidence}`),
      ['unknown up HTTP 200', 'up down HTTP 503'],
    );
    assert.equal(transitions[1]?.atMs, clock.wallOffsetMs + 5000);
    const health = scheduler.health(probeKey(A, probe));
    assert.deepEqual(health?.history, transitions);
    assert.equal(scheduler.health('nobody'), undefined);
    await scheduler.stop();
  });

  test('stops telling a listener that has unsubscribed', async () => {
    const { clock, scheduler } = setUp();
    let calls = 0;
    const unsubscribe = scheduler.onHealth(() => calls++);
    scheduler.update([at(probe)]);
    await clock.advanceAsync(1);
    unsubscribe();
    await clock.advanceAsync(5000);
    assert.equal(calls, 1);
    await scheduler.stop();
  });

  test('does not care about jumps of the wall clock', async () => {
    const { clock, runner, scheduler, results } = setUp();
    scheduler.update([at(probe)]);
    await clock.advanceAsync(4000, 1000);
    clock.wallOffsetMs -= 10_000_000;
    await clock.advanceAsync(1000);
    clock.wallOffsetMs += 90_000_000;
    await clock.advanceAsync(5000, 1000);
    assert.deepEqual(runner.takeTimes(), [0, 5000, 10_000]);
    assert.equal(results.length, 3);
    await scheduler.stop();
  });
});

describe('ProbeScheduler.update()', () => {
  test('loses nothing when targets are re-ordered, renamed, added or removed around one', async () => {
    const { clock, runner, scheduler } = setUp();
    const tcp = tcpProbe({ intervalMs: 1000, timeoutMs: 1000, downThreshold: 3 });
    runner.answer = SICK;
    scheduler.update([at(tcp), at(tcp, B)]);
    await clock.advanceAsync(1500, 500);
    const key = probeKey(A, tcp);
    const before = scheduler.health(key);
    assert.equal(before?.consecutiveFailures, 2);
    runner.takeTimes();

    scheduler.update([at({ ...tcp, port: 2 }), at({ ...tcp, name: 'renamed' })]);
    assert.equal(scheduler.health(key), before);
    assert.equal(scheduler.statuses()[1]?.probe.name, 'renamed');
    await clock.advanceAsync(1);
    assert.deepEqual(
      runner.calls.splice(0).map(({ probe: { port } }) => port),
      [2],
      'no extra probe of the one that stays',
    );
    await clock.advanceAsync(499);
    assert.equal(scheduler.health(key)?.state, 'down', 'the third failure in a row, two from before');
    assert.equal(scheduler.health(probeKey(B, tcp)), undefined);
    await scheduler.stop();
  });

  test('carries the health over when only the pacing is edited, and not when the question is', async () => {
    const { clock, runner, scheduler } = setUp();
    scheduler.update([at(probe)]);
    await clock.advanceAsync(1);
    const before = scheduler.health(probeKey(A, probe));
    runner.answer = 'hang';
    const paced: Probe = { ...probe, intervalMs: 9000, timeoutMs: 100, downThreshold: 5, upThreshold: 7 };
    const asked: Probe = { ...probe, path: '/other' };
    scheduler.update([at(paced), at(asked)]);
    assert.equal(scheduler.health(probeKey(A, paced)), before);
    assert.equal(scheduler.health(probeKey(A, asked))?.state, 'unknown');
    await scheduler.stop();
  });

  test('aborts the probes of targets that go, and never reports them', async () => {
    const { clock, runner, scheduler, results } = setUp();
    runner.answer = 'hang';
    scheduler.update([at(probe)]);
    await clock.advanceAsync(1);
    scheduler.update([]);
    assert.equal(runner.calls[0]?.signal.aborted, true);
    await clock.advanceAsync(20_000, 1000);
    assert.deepEqual(results, []);
    assert.equal(runner.calls.length, 1);
    assert.equal(clock.pendingTimers, 0);
    await scheduler.stop();
  });

  test('spreads many first probes over min(interval, 1 s), the first few excepted', async () => {
    let step = 0;
    const { clock, runner, scheduler } = setUp({ random: () => (step++ % 100) / 100, immediateStarts: 10 });
    const targets = Array.from({ length: 1000 }, (_, index) =>
      at(probe, ipAddress(`10.1.${index >> 8}.${index & 255}`)),
    );
    scheduler.update(targets);
    await clock.advanceAsync(0);
    clock.advance(0);
    const startedAt = (ms: number) => runner.calls.filter(({ atMs }) => atMs === ms).length;
    await clock.advanceAsync(1000, 10);
    assert.equal(runner.calls.length, 1000);
    assert.ok(startedAt(0) >= 10 && startedAt(0) <= 30, `${startedAt(0)} at once`);
    for (let ms = 10; ms < 1000; ms += 10) assert.ok(startedAt(ms) <= 30, `${startedAt(ms)} at ${ms} ms`);
    await scheduler.stop();
  });

  test('starts within the interval when that is shorter than a second', async () => {
    const { clock, runner, scheduler } = setUp({ random: () => 0.999, immediateStarts: 0 });
    scheduler.update([at({ ...probe, intervalMs: 200, timeoutMs: 100 })]);
    await clock.advanceAsync(200, 1);
    assert.equal(runner.takeTimes().length, 1);
    await scheduler.stop();
  });
});

describe('ProbeScheduler.hasten()', () => {
  test('probes all targets of the address now, and counts the interval from there', async () => {
    const { clock, runner, scheduler } = setUp();
    scheduler.update([at(probe), at(probe, B), at(tcpProbe())]);
    await clock.advanceAsync(1000, 500);
    runner.takeTimes();
    scheduler.hasten(ipAddress('::ffff:10.0.0.1'));
    await clock.advanceAsync(0);
    clock.advance(0);
    assert.deepEqual(
      runner.calls.map(({ address, probe: { protocol } }) => `${address} ${protocol}`),
      ['10.0.0.1 http', '10.0.0.1 tcp'],
    );
    runner.takeTimes();
    await clock.advanceAsync(5000, 500);
    assert.deepEqual(runner.takeTimes(), [5000, 6000, 6000], 'B keeps its beat');
    await scheduler.stop();
  });

  test('does so at most once per 500 ms', async () => {
    const { clock, runner, scheduler } = setUp();
    scheduler.update([at(probe)]);
    await clock.advanceAsync(1000, 500);
    runner.takeTimes();
    for (let ms = 0; ms < 1000; ms += 10) {
      scheduler.hasten(A);
      await clock.advanceAsync(10);
    }
    assert.deepEqual(runner.takeTimes(), [1000, 1500]);
    await scheduler.stop();
  });

  test('follows at once on a probe under way, which may have asked too early', async () => {
    const { clock, runner, scheduler } = setUp();
    runner.answer = 'hang';
    scheduler.update([at(probe)]);
    await clock.advanceAsync(1000, 500);
    scheduler.hasten(A);
    await clock.advanceAsync(1500, 100);
    assert.deepEqual(runner.takeTimes(), [0, 2000]);
    await scheduler.stop();
  });
});

describe('ProbeScheduler after a freeze', () => {
  /** Time passes without any timer: the process was stopped. */
  class FreezableClock extends FakeClock {
    #skippedMs = 0;
    freeze(forMs: number): void {
      this.#skippedMs += forMs;
    }
    override monotonicMs(): number {
      return super.monotonicMs() + this.#skippedMs;
    }
  }

  function setUpFrozen(random = (): number => 0.5) {
    const clock = new FreezableClock();
    const runner = new ScriptedRunner(clock);
    const scheduler = new ProbeScheduler({ clock, runner, tracker: { initialHealth, observe }, random });
    const states: string[] = [];
    scheduler.onHealth((_key, { state, consecutiveFailures }) =>
      states.push(`${state} ${consecutiveFailures}`),
    );
    return { clock, runner, scheduler, states };
  }

  test('throws away the verdict of a probe that was under way', async () => {
    const { clock, runner, scheduler, states } = setUpFrozen();
    scheduler.update([at(probe)]);
    await clock.advanceAsync(1);
    runner.answer = 'hang';
    await clock.advanceAsync(5000, 1000);
    clock.freeze(2000 + 2 * probe.intervalMs + 1);
    await clock.advanceAsync(2000, 1000);
    assert.deepEqual(states, ['up 0'], 'the silence was ours');
    runner.answer = UP;
    await clock.advanceAsync(2000, 500);
    assert.equal(states.length, 2, 'the next one counts');
    await scheduler.stop();
  });

  test('counts the verdict of a probe that was held up for less', async () => {
    const { clock, runner, scheduler, states } = setUpFrozen();
    runner.answer = 'hang';
    scheduler.update([at(probe)]);
    await clock.advanceAsync(1);
    clock.freeze(probe.intervalMs);
    await clock.advanceAsync(2000, 1000);
    assert.deepEqual(states, ['unknown 1']);
    await scheduler.stop();
  });

  test('spreads the probes that are all overdue', async () => {
    let step = 0;
    const { clock, runner, scheduler } = setUpFrozen(() => (step++ % 10) / 10);
    scheduler.update(Array.from({ length: 10 }, (_, index) => at(probe, ipAddress(`10.1.0.${index}`))));
    await clock.advanceAsync(1000, 100);
    runner.takeTimes();
    clock.freeze(60_000);
    await clock.advanceAsync(5000, 50);
    const times = runner.takeTimes();
    assert.equal(times.length, 10);
    assert.equal(new Set(times).size, 10, 'each at its own time');
    await scheduler.stop();
  });

  test('goes on probing when every timer is late', async () => {
    const { clock, runner, scheduler } = setUpFrozen();
    scheduler.update([at(probe)]);
    for (let round = 0; round < 20; round++) {
      clock.freeze(3 * probe.intervalMs);
      await clock.advanceAsync(5000, 500);
    }
    assert.ok(runner.takeTimes().length >= 10);
    await scheduler.stop();
  });
});

describe('ProbeScheduler.stop()', () => {
  test('aborts all, leaves no timer, tells nobody, and can be called again', async () => {
    const { clock, runner, scheduler, results } = setUp({ immediateStarts: 1, random: () => 0.9 });
    runner.answer = 'hang';
    scheduler.update([at(probe), at(probe, B)]);
    await clock.advanceAsync(1);
    await scheduler.stop();
    await scheduler.stop();
    assert.equal(runner.inFlight, 0);
    assert.equal(clock.pendingTimers, 0);
    scheduler.update([at(probe)]);
    scheduler.hasten(A);
    await clock.advanceAsync(10_000, 1000);
    assert.deepEqual([runner.calls.length, results.length], [1, 0]);
  });

  test('waits for probes to let go of their sockets', async () => {
    const { clock, runner, scheduler } = setUp();
    let release: () => void = () => undefined;
    runner.run = async () => {
      await new Promise<void>((resolve) => (release = resolve));
      return UP;
    };
    scheduler.update([at(probe)]);
    await clock.advanceAsync(1);
    let stopped = false;
    const stopping = scheduler.stop().then(() => (stopped = true));
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(stopped, false);
    release();
    await stopping;
  });
});
