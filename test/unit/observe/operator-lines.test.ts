import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { ControlEvent, HealthEvent } from '../../../src/model/events.js';
import type { DrainStatus } from '../../../src/model/forwarding.js';
import { BalancerError } from '../../../src/model/errors.js';
import type { ReloadReport } from '../../../src/model/plan-report.js';
import { EventLog } from '../../../src/observe/event-text.js';
import { ReloadTally } from '../../../src/observe/metric-family.js';
import { FakeClock } from '../../support/fake-clock.js';
import { RecordingLogger } from './recording-logger.js';
import { sampleConfiguration, sampleFlow } from './sample-state.js';

const member = { pool: 'nvas', backendId: 'nvas/127.0.0.11', backendName: 'nva-1' };

const drain: DrainStatus = {
  ...member,
  phase: 'draining',
  deadlineMs: 600_000,
  then: 'reset',
  spreadMs: 10_000,
  startedAtMs: 1,
  deadlineAtMs: 600_001,
  flowsAtStart: 7,
  flows: { tcp: 4, udp: 1 },
  longest: [sampleFlow(1)],
};

const report: ReloadReport = {
  revision: 9,
  digest: '0123456789abcdef',
  plan: {
    fromDigest: 'a',
    toDigest: 'b',
    revision: 8,
    rules: [],
    movedShare: 0.25,
    flows: { stay: 0, move: 0, reset: 0, drop: 0 },
    backends: {
      added: [{ pool: 'nvas', backendId: 'nvas/127.0.0.13', name: 'nva-3' }],
      removed: [],
      changed: [],
    },
    probeStateLost: [],
    listeners: { kept: 0, opened: 0, closed: 0 },
    restartNeeded: [],
    steps: [],
  },
  kept: { flows: 500, probeTargets: 3, adminStates: 1, drains: 0, listeners: 200 },
  lost: { flows: 2, probeTargets: 0, overrides: [], listeners: 1 },
  durationMs: 12,
};

const health: HealthEvent = {
  type: 'health-event',
  name: 'NoHealthyBackends',
  severity: 'critical',
  phase: 'raised',
  subject: 'nvas',
  evidence: '0 of 3',
  atMs: 5,
};

function logged(...events: readonly ControlEvent[]) {
  const logger = new RecordingLogger();
  const log = new EventLog({ logger, clock: new FakeClock() });
  for (const event of events) log.control(event);
  return logger;
}

describe('EventLog.control() of what operators do', () => {
  test('control() logs weights and drains', () => {
    const { texts, lines } = logged(
      { type: 'weight-changed', ...member, from: 'configured', to: 5 },
      { type: 'drain-changed', phase: 'started', drain },
      { type: 'drain-changed', phase: 'deadline', drain },
      { type: 'drain-changed', phase: 'deadline', drain: { ...drain, then: 'leave' } },
      { type: 'drain-changed', phase: 'finished', drain },
      { type: 'drain-changed', phase: 'cancelled', drain },
    );
    assert.deepEqual(texts, [
      'info Weight of backend "nva-1" in pool "nvas" changed from configured to 5',
      'info Draining backend "nva-1" in pool "nvas": 5 flows have 600000 ms to finish',
      'warn The deadline of draining backend "nva-1" in pool "nvas" has passed: 5 flows are ended over 10000 ms',
      'warn The deadline of draining backend "nva-1" in pool "nvas" has passed: 5 flows are left alone',
      'info Drained backend "nva-1" in pool "nvas": none of its 7 flows is left',
      'info Draining backend "nva-1" in pool "nvas" was cancelled with 5 flows left',
    ]);
    assert.deepEqual(
      lines.map(({ fields }) => fields['event']),
      ['weight-changed', ...Array.from({ length: 5 }, () => 'drain-changed')],
    );
    assert.equal(lines[1]?.fields['phase'], 'started');
    assert.ok(!('longest' in lines[1].fields), 'whole flows have no place in a line');
  });

  test('control() logs what a reload kept and lost, and why one failed', () => {
    const error = new BalancerError('Too much would move', { code: 'LB_GATE_EXCEEDED', source: 'usage' });
    const { texts, lines } = logged(
      { type: 'reloaded', cause: 'SIGHUP', report },
      { type: 'reload-failed', cause: 'admin API', error },
    );
    assert.deepEqual(texts, [
      'info Reloaded by SIGHUP, digest 0123456789ab: kept 500 flows and 200 listeners, lost 2 flows and 1 listeners',
      'error Cannot reload by admin API, what was served is served on: Too much would move',
    ]);
    const [reloaded, failed] = lines.map(({ fields }) => fields);
    assert.equal(reloaded?.['event'], 'reloaded');
    assert.deepEqual(reloaded['kept'], report.kept);
    assert.deepEqual(reloaded['lost'], report.lost);
    assert.deepEqual(reloaded['backends'], { added: 1, removed: 0, changed: 0 });
    assert.equal(failed?.['event'], 'reload-failed');
    assert.equal(failed['code'], 'LB_GATE_EXCEEDED');
    assert.ok(!('findings' in failed));
  });

  test('control() logs what is wrong with a configuration, the first twenty of it', () => {
    const findings = Array.from({ length: 23 }, (_, index) => ({
      code: 'LB_UNKNOWN_KEY',
      path: `k${index}`,
    }));
    const error = Object.assign(new Error('It cannot be used'), { findings });
    const { lines } = logged({ type: 'reload-failed', cause: 'SIGHUP', error });
    assert.deepEqual(lines[0]?.fields['findings'], findings.slice(0, 20));
    assert.equal(lines[0].fields['moreFindings'], 3);
  });

  test('control() logs health events: warn while they last, info when over', () => {
    const { texts, lines } = logged(
      health,
      { ...health, phase: 'again' },
      { ...health, severity: 'warning' },
      { ...health, phase: 'resolved', evidence: '2 of 3' },
    );
    assert.deepEqual(texts, [
      'warn NoHealthyBackends of "nvas": 0 of 3',
      'warn NoHealthyBackends of "nvas" still: 0 of 3',
      'warn NoHealthyBackends of "nvas": 0 of 3',
      'info NoHealthyBackends of "nvas" is over: 2 of 3',
    ]);
    assert.deepEqual(lines[0]?.fields, {
      event: 'health-event',
      name: 'NoHealthyBackends',
      severity: 'critical',
      phase: 'raised',
      subject: 'nvas',
      evidence: '0 of 3',
      atMs: 5,
    });
  });
});

describe('ReloadTally', () => {
  test('control() counts reloads by outcome and keeps the last', () => {
    const clock = new FakeClock();
    const tally = new ReloadTally({ clock });
    assert.deepEqual(tally.stats, { succeeded: 0, failed: 0, lastSucceeded: true });
    const start = clock.wallMs();
    tally.control({ type: 'config-loaded', configuration: sampleConfiguration(), source: 'c', findings: 0 });
    assert.deepEqual(tally.stats, { succeeded: 0, failed: 0, lastAtMs: start, lastSucceeded: true });
    clock.advance(10);
    tally.control({ type: 'reload-failed', cause: 'SIGHUP', error: new Error('no') });
    assert.deepEqual(tally.stats, { succeeded: 0, failed: 1, lastAtMs: start + 10, lastSucceeded: false });
    clock.advance(10);
    tally.control(health);
    tally.control({ type: 'reloaded', cause: 'SIGHUP', report });
    assert.deepEqual(tally.stats, { succeeded: 1, failed: 1, lastAtMs: start + 20, lastSucceeded: true });
  });
});
