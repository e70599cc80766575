import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { describe, test } from 'node:test';
import { ipAddress } from '../../../src/model/address.js';
import type { HealthTransition, HttpProbe, Probe } from '../../../src/model/configuration.js';
import { initialHealth } from '../../../src/health/thresholds.js';
import { createProbeRunner } from '../../../src/health/probes.js';
import {
  IMMEDIATE_STARTS,
  ProbeScheduler,
  probeKey,
  questionKey,
  type ProbeTarget,
} from '../../../src/health/scheduler.js';
import { systemClock } from '../../../src/runtime/clock.js';
import { FakeClock } from '../../support/fake-clock.js';
import { bind } from './loopback-server.js';
import { httpProbe, ScriptedRunner, SICK, tcpProbe, UP } from './probe-fixtures.js';

const A = ipAddress('10.0.0.1');
const B = ipAddress('10.0.0.2');

function setUp({ random = (): number => 0.5, clock = new FakeClock() } = {}) {
  const runner = new ScriptedRunner(clock);
  const scheduler = new ProbeScheduler({ clock, runner, random });
  const transitions: HealthTransition[] = [];
  const results: string[] = [];
  scheduler.onHealth((key, health, transition) => {
    results.push(`${key.split(' ')[0] ?? ''} ${health.state} ${health.consecutiveFailures}`);
    if (transition) transitions.push(transition);
  });
  return { clock, runner, scheduler, transitions, results };
}

const at = (probe: Probe, address = A): ProbeTarget => ({ address, probe });
const probe = httpProbe({ intervalMs: 5000, timeoutMs: 2000 });

/** This many addresses, from 10.1.0.0 on. */
function targets(count: number, one: Probe = probe): readonly ProbeTarget[] {
  return Array.from({ length: count }, (_, index) => at(one, ipAddress(`10.1.${index >> 8}.${index & 255}`)));
}

describe('ProbeScheduler', () => {
  test('probes at once, then every interval from the start of the last probe', async () => {
    const { clock, runner, scheduler, results } = setUp();
    scheduler.update([at(probe)]);
    await clock.advanceAsync(12_000, 500);
    assert.deepEqual(runner.takeTimes(), [0, 5000, 10_000]);
    assert.deepEqual(results, ['10.0.0.1 up 0', '10.0.0.1 up 0', '10.0.0.1 up 0']);
    runner.answer = 'hang';
    await clock.advanceAsync(10_000, 500);
    assert.deepEqual(runner.takeTimes(), [15_000, 20_000], 'a slow probe does not delay the next');
  });

  test('inherit() has a target start with what another process knew, and no other', () => {
    const { scheduler } = setUp();
    const up = { state: 'up', measured: 'up', consecutiveSuccesses: 4 } as const;
    const known = { ...initialHealth(), ...up };
    scheduler.inherit(new Map([[probeKey(A, probe), known]]));
    scheduler.update([at(probe), at(probe, B)]);
    assert.deepEqual(scheduler.health(probeKey(A, probe)), known);
    assert.equal(scheduler.health(probeKey(B, probe))?.state, 'unknown');
    scheduler.update([]);
    scheduler.update([at(probe)]);
    assert.equal(scheduler.health(probeKey(A, probe))?.state, 'unknown', 'only once');
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
    assert.deepEqual(results, ['10.0.0.1 unknown 1']);
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
    await clock.advanceAsync(1);
    assert.deepEqual(
      runner.calls.splice(0).map(({ probe: { port } }) => port),
      [2],
      'no extra probe of the one that stays',
    );
    await clock.advanceAsync(499);
    assert.equal(scheduler.health(key)?.state, 'down', 'the third failure in a row, two from before');
    assert.equal(scheduler.health(probeKey(B, tcp)), undefined);
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
  });

  test('spreads many first probes over min(interval, 1 s), the first few excepted', async () => {
    let step = 0;
    const { clock, runner, scheduler } = setUp({ random: () => (step++ % 100) / 100 });
    scheduler.update(targets(1000));
    await clock.advanceAsync(0);
    clock.advance(0);
    const startedAt = (ms: number) => runner.calls.filter(({ atMs }) => atMs === ms).length;
    await clock.advanceAsync(1000, 10);
    assert.equal(runner.calls.length, 1000);
    assert.ok(startedAt(0) >= IMMEDIATE_STARTS && startedAt(0) <= 30, `${startedAt(0)} at once`);
    for (let ms = 10; ms < 1000; ms += 10) assert.ok(startedAt(ms) <= 30, `${startedAt(ms)} at ${ms} ms`);
  });

  test('starts within the interval when that is shorter than a second', async () => {
    const { clock, runner, scheduler } = setUp({ random: () => 0.999 });
    scheduler.update(targets(IMMEDIATE_STARTS + 1, { ...probe, intervalMs: 200, timeoutMs: 100 }));
    await clock.advanceAsync(1);
    assert.equal(runner.takeTimes().length, IMMEDIATE_STARTS);
    await clock.advanceAsync(199, 1);
    assert.ok(runner.calls.some(({ address }) => address === `10.1.0.${IMMEDIATE_STARTS}`));
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
  });

  test('follows at once on a probe under way, which may have asked too early', async () => {
    const { clock, runner, scheduler } = setUp();
    runner.answer = 'hang';
    scheduler.update([at(probe)]);
    await clock.advanceAsync(1000, 500);
    scheduler.hasten(A);
    await clock.advanceAsync(1500, 100);
    assert.deepEqual(runner.takeTimes(), [0, 2000]);
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
    return { ...setUp({ random, clock }), clock };
  }

  test('throws away the verdict of a probe that was under way', async () => {
    const { clock, runner, scheduler, results } = setUpFrozen();
    scheduler.update([at(probe)]);
    await clock.advanceAsync(1);
    runner.answer = 'hang';
    await clock.advanceAsync(5000, 1000);
    clock.freeze(2000 + 2 * probe.intervalMs + 1);
    await clock.advanceAsync(2000, 1000);
    assert.deepEqual(results, ['10.0.0.1 up 0'], 'the silence was ours');
    runner.answer = UP;
    await clock.advanceAsync(2000, 500);
    assert.equal(results.length, 2, 'the next one counts');
  });

  test('counts the verdict of a probe that was held up for less', async () => {
    const { clock, runner, scheduler, results } = setUpFrozen();
    runner.answer = 'hang';
    scheduler.update([at(probe)]);
    await clock.advanceAsync(1);
    clock.freeze(probe.intervalMs);
    await clock.advanceAsync(2000, 1000);
    assert.deepEqual(results, ['10.0.0.1 unknown 1']);
  });

  test('spreads the probes that are all overdue', async () => {
    let step = 0;
    const { clock, runner, scheduler } = setUpFrozen(() => (step++ % 10) / 10);
    scheduler.update(targets(10));
    await clock.advanceAsync(1000, 100);
    runner.takeTimes();
    clock.freeze(60_000);
    await clock.advanceAsync(5000, 50);
    const times = runner.takeTimes();
    assert.equal(times.length, 10);
    assert.equal(new Set(times).size, 10, 'each at its own time');
  });

  test('goes on probing when every timer is late', async () => {
    const { clock, runner, scheduler } = setUpFrozen();
    scheduler.update([at(probe)]);
    for (let round = 0; round < 20; round++) {
      clock.freeze(3 * probe.intervalMs);
      await clock.advanceAsync(5000, 500);
    }
    assert.ok(runner.takeTimes().length >= 10);
  });
});

describe('ProbeScheduler.stop()', () => {
  test('aborts all, leaves no timer, tells nobody, and can be called again', async () => {
    const { clock, runner, scheduler, results } = setUp({ random: () => 0.9 });
    runner.answer = 'hang';
    scheduler.update(targets(IMMEDIATE_STARTS + 1));
    await clock.advanceAsync(1);
    await scheduler.stop();
    await scheduler.stop();
    assert.equal(runner.inFlight, 0);
    assert.equal(clock.pendingTimers, 0);
    scheduler.update([at(probe)]);
    scheduler.hasten(A);
    await clock.advanceAsync(10_000, 1000);
    assert.deepEqual([runner.calls.length, results.length], [IMMEDIATE_STARTS, 0]);
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

describe('keys of a target', () => {
  const base = httpProbe();
  const damping = { transitions: 6, windowMs: 60_000, holdMs: 30_000 };

  /** For each of these fields a probe that differs from the base in it alone. */
  const variants = (fields: Partial<HttpProbe>): readonly Probe[] =>
    Object.entries(fields).map(([field, value]) => ({ ...base, [field]: value }));
  const QUESTION = variants({
    ...{ port: 2, protocol: 'https', path: '/other', host: 'a.example', serverName: 'a.example', ca: 'PEM' },
    ...{ expectStatus: [{ first: 200, last: 299 }], expectBody: 'OK', skipVerify: true, sendProxy: 'v1' },
    ...{
      sourceAddress: ipAddress('10.0.0.9'),
      weightFromProbeHeader: 'X-Weight',
      explicitAnswerFlips: false,
    },
  });
  const PACING = variants({
    ...{ intervalMs: 1, timeoutMs: 1, upThreshold: 9, downThreshold: 9, flapDamping: damping },
  });

  test('probeKey() tells every difference but the name', () => {
    const keys = [base, tcpProbe(), ...QUESTION, ...PACING].map((probe) => probeKey(A, probe));
    assert.equal(new Set(keys).size, keys.length);
    assert.equal(probeKey(A, { ...base, name: 'other' }), keys[0]);
    assert.notEqual(probeKey(ipAddress('10.0.0.2'), base), keys[0]);
  });

  test('questionKey() tells what is asked, not how often', () => {
    const keys = [base, tcpProbe(), ...QUESTION].map((probe) => questionKey(A, probe));
    assert.equal(new Set(keys).size, keys.length);
    for (const probe of PACING) assert.equal(questionKey(A, probe), keys[0]);
  });

  test('probeKey() does not depend on the order of a definition, on any level', () => {
    const { name, protocol, port, ...rest } = { ...base, flapDamping: damping };
    const { transitions, windowMs, holdMs } = damping;
    const turned: Probe = { ...rest, flapDamping: { holdMs, windowMs, transitions }, port, protocol, name };
    assert.equal(probeKey(A, turned), probeKey(A, { ...base, flapDamping: damping }));
  });

  test('probeKey() is short and readable, and shows no certificate', () => {
    const key = probeKey(A, { ...base, port: 9000, ca: 'x'.repeat(10_000) });
    assert.match(key, /^10\.0\.0\.1 http:9000 [0-9a-f]{16}$/);
  });
});

test('ProbeScheduler sees a real backend come up, fall sick, stop answering and recover', async (t) => {
  let mode: 200 | 503 | 'hang' = 200;
  let connections = 0;
  const server = createServer((_request, response) => {
    if (mode !== 'hang') response.writeHead(mode).end('said');
  });
  server.on('connection', () => connections++);
  const port = await bind(server);
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });

  const runner = createProbeRunner({ clock: systemClock });
  const scheduler = new ProbeScheduler({ clock: systemClock, runner, random: Math.random });
  t.after(() => scheduler.stop());
  let told: (transition: HealthTransition) => void = () => undefined;
  scheduler.onHealth((_key, _health, transition) => {
    if (transition !== undefined) told(transition);
  });
  const next = () => new Promise<HealthTransition>((resolve) => (told = resolve));
  const seen: string[] = [];
  const expectNext = async (change: () => void) => {
    const transition = next();
    change();
    const { from, to, evidence } = await transition;
    seen.push(`${from} ${to} ${evidence}`);
  };

  const probe = httpProbe({ port, intervalMs: 100, timeoutMs: 80 });
  await expectNext(() => scheduler.update([{ address: ipAddress('127.0.0.1'), probe }]));
  await expectNext(() => (mode = 503));
  await expectNext(() => (mode = 200));
  await expectNext(() => (mode = 'hang'));
  await expectNext(() => (mode = 200));
  assert.deepEqual(seen, [
    'unknown up HTTP 200',
    'up down HTTP 503',
    'down up HTTP 200',
    'up down no answer in 80ms',
    'down up HTTP 200',
  ]);

  await scheduler.stop();
  const atStop = connections;
  assert.ok(atStop >= 6, 'five transitions, the fourth of two probes');
  server.closeIdleConnections();
  const open = await new Promise<number>((resolve) =>
    server.getConnections((_error, count) => resolve(count)),
  );
  assert.ok(open <= 1, `${open} connections left open`);
});
