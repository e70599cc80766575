import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { AlertTracker, ALERT_RULES, type MonitorReading } from '../../../src/monitors/alerts.js';
import type { HealthEvent } from '../../../src/model/events.js';
import { FakeClock } from '../../support/fake-clock.js';

const MINUTE = 60_000;
const NAMES = ['NoHealthyBackends', 'HighSnatPortUsage'] as const;

function setUp() {
  const clock = new FakeClock();
  const events: HealthEvent[] = [];
  const tracker = new AlertTracker({ clock, onEvent: (event) => events.push(event) });
  const observe = (...readings: readonly MonitorReading[]) =>
    tracker.observe(NAMES, readings, clock.monotonicMs());
  const phases = () => events.map(({ name, phase, subject }) => `${phase} ${name} ${subject}`);
  return { clock, tracker, events, observe, phases };
}

function reading(status: MonitorReading['status'], changes: Partial<MonitorReading> = {}): MonitorReading {
  return { name: 'HighSnatPortUsage', subject: 'nvas/127.0.0.11', status, evidence: status, ...changes };
}

describe('AlertTracker.observe()', () => {
  test('observe() raises once, tells again after the interval of the event, and resolves once', () => {
    const { clock, observe, events, phases, tracker } = setUp();
    for (let second = 0; second <= 601; second++) {
      observe(reading('bad', { evidence: `second ${second}` }));
      clock.advance(1000);
    }
    observe(reading('fine', { evidence: 'plenty' }));
    clock.advance(1000);
    observe(reading('fine'));
    const of = ' HighSnatPortUsage nvas/127.0.0.11';
    assert.deepEqual(phases(), [`raised${of}`, `again${of}`, `again${of}`, `resolved${of}`]);
    assert.deepEqual(
      events.map(({ atMs, evidence }) => [atMs - clock.wallOffsetMs, evidence]),
      [
        [0, 'second 0'],
        [300_000, 'second 300'],
        [600_000, 'second 600'],
        [602_000, 'plenty'],
      ],
    );
    assert.ok(events.every(({ severity }) => severity === 'warning'));
    assert.deepEqual(tracker.active(), []);
  });

  test('observe() tells each event again as often as it should be', () => {
    const expected = {
      DataPathAvailabilityWarning: ['warning', 5],
      DataPathAvailabilityCritical: ['critical', 5],
      NoHealthyBackends: ['critical', 60],
      HighSnatPortUsage: ['warning', 5],
      SnatPortExhaustion: ['critical', 5],
      ProbeUpTrafficFailing: ['critical', 5],
      ProbeDownTrafficFine: ['warning', 5],
    };
    for (const [name, { severity, againMs }] of Object.entries(ALERT_RULES)) {
      assert.deepEqual([severity, againMs / MINUTE], expected[name as keyof typeof expected], name);
    }
  });

  test('observe() waits for what must last, and forgets it when it does not', () => {
    const { clock, observe, phases } = setUp();
    const bad = reading('bad', { holdMs: 15_000 });
    observe(bad);
    clock.advance(14_999);
    observe(bad);
    assert.deepEqual(phases(), []);
    observe(reading('unclear'));
    observe(bad);
    clock.advance(14_999);
    observe(bad);
    assert.deepEqual(phases(), []);
    clock.advance(1);
    observe(bad);
    assert.deepEqual(phases(), ['raised HighSnatPortUsage nvas/127.0.0.11']);
  });

  test('observe() keeps an alert while it is unclear, and resolves it when that has lasted', () => {
    const { clock, observe, phases, tracker } = setUp();
    observe(reading('bad'));
    for (let minute = 0; minute < 5; minute++) {
      observe(reading('unclear'));
      clock.advance(MINUTE);
    }
    assert.equal(phases().length, 1);
    assert.equal(tracker.active().length, 1);
    observe(reading('unclear', { evidence: 'nothing to go by' }));
    assert.deepEqual(phases().slice(1), ['resolved HighSnatPortUsage nvas/127.0.0.11']);
    // And nothing is raised by what is unclear.
    observe(reading('unclear'));
    assert.equal(phases().length, 2);
  });

  test('observe() counts what is unclear anew after it was bad', () => {
    const { clock, observe, phases } = setUp();
    observe(reading('bad'));
    observe(reading('unclear'));
    clock.advance(4 * MINUTE);
    observe(reading('bad'));
    observe(reading('unclear'));
    clock.advance(4 * MINUTE);
    observe(reading('unclear'));
    assert.deepEqual(phases(), ['raised HighSnatPortUsage nvas/127.0.0.11']);
  });

  test('observe() resolves alerts of subjects that are gone, of the names observed only', () => {
    const { clock, tracker, observe, phases, events } = setUp();
    tracker.observe(
      ['SnatPortExhaustion'],
      [reading('bad', { name: 'SnatPortExhaustion', subject: 'web' })],
      0,
    );
    observe(reading('bad'), reading('bad', { subject: 'nvas/127.0.0.12' }));
    clock.advance(1000);
    observe(reading('bad'));
    assert.deepEqual(phases().slice(3), ['resolved HighSnatPortUsage nvas/127.0.0.12']);
    assert.match(events.at(-1)?.evidence ?? '', /no longer/);
    assert.deepEqual(
      tracker.active().map(({ name, subject }) => `${name} ${subject}`),
      ['SnatPortExhaustion web', 'HighSnatPortUsage nvas/127.0.0.11'],
    );
  });

  test('observe() forgets what was about to be raised when its subject goes', () => {
    const { clock, observe, phases } = setUp();
    const bad = reading('bad', { holdMs: 1000 });
    observe(bad);
    clock.advance(900);
    observe();
    observe(bad);
    clock.advance(900);
    observe(bad);
    assert.deepEqual(phases(), []);
  });

  test('observe() goes by the worst of several readings of one subject, in any order', () => {
    const { observe, phases, events } = setUp();
    observe(reading('fine'), reading('bad', { evidence: 'worst' }), reading('unclear'));
    assert.deepEqual(phases(), ['raised HighSnatPortUsage nvas/127.0.0.11']);
    assert.equal(events[0]?.evidence, 'worst');
    observe(reading('unclear'), reading('fine'));
    assert.equal(events.length, 1);
    observe(reading('fine'), reading('fine'));
    assert.equal(events.at(-1)?.phase, 'resolved');
  });
});
