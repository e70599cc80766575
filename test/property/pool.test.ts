import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Probe, ProbeResult } from '../../src/model/configuration.js';
import { initialHealth, observe } from '../../src/health/thresholds.js';
import { evaluatePool } from '../../src/selection/pool.js';
import { aBackend } from '../unit/selection/fixtures.js';

const result: fc.Arbitrary<ProbeResult> = fc.constantFrom<ProbeResult>(
  { verdict: 'success', answer: 'explicit', evidence: 'ok', durationMs: 1 },
  { verdict: 'failure', answer: 'explicit', evidence: 'bad', durationMs: 1 },
  { verdict: 'failure', answer: 'silence', evidence: 'nothing', durationMs: 1 },
);

const base = {
  name: 'p',
  port: 1,
  intervalMs: 1000,
  timeoutMs: 1000,
  sendProxy: 'none',
  path: '/',
  expectStatus: [],
  skipVerify: false,
} as const;
const threshold = fc.integer({ min: 1, max: 5 });
const probe: fc.Arbitrary<Probe> = fc
  .record({ upThreshold: threshold, downThreshold: threshold, flips: fc.option(fc.boolean()) })
  .map(({ flips, ...thresholds }) =>
    flips === null
      ? { ...base, ...thresholds, protocol: 'tcp' }
      : { ...base, ...thresholds, protocol: 'http', explicitAnswerFlips: flips },
  );

/** Oracle: re-reads the whole past for every state, without counters: is there a run of n verdicts that ends here? */
function stateAfter(past: readonly ProbeResult[], definition: Probe): string {
  let state = 'unknown';
  for (let end = 1; end <= past.length; end++) {
    const runOf = (verdict: string, length: number) =>
      end >= length && past.slice(end - length, end).every((each) => each.verdict === verdict);
    const now = past[end - 1]!;
    const flips = 'explicitAnswerFlips' in definition && definition.explicitAnswerFlips;
    if (flips && now.answer === 'explicit') state = now.verdict === 'success' ? 'up' : 'down';
    else if (state === 'unknown' && runOf('success', 1)) state = 'up';
    else if (state !== 'up' && runOf('success', definition.upThreshold)) state = 'up';
    else if (state !== 'down' && runOf('failure', definition.downThreshold)) state = 'down';
  }
  return state;
}

test('observe() agrees with a re-reading of the whole past, and reports each change once', () => {
  fc.assert(
    fc.property(probe, fc.array(result, { maxLength: 40 }), (definition, results) => {
      let health = initialHealth();
      results.forEach((each, index) => {
        const before = health.state;
        const observation = observe(health, definition, each, { monotonicMs: index, wallMs: index });
        health = observation.health;
        assert.equal(health.state, stateAfter(results.slice(0, index + 1), definition));
        assert.equal(observation.transition !== undefined, health.state !== before);
        if (observation.transition) assert.deepEqual(health.history.at(-1), observation.transition);
      });
    }),
  );
});

test('observe() with damping is never up when it would be down without, and never late to go down', () => {
  const flapDamping = fc.record({
    transitions: fc.integer({ min: 1, max: 6 }),
    windowMs: fc.integer({ min: 1, max: 20 }),
    holdMs: fc.integer({ min: 1, max: 20 }),
  });
  fc.assert(
    fc.property(probe, flapDamping, fc.array(result, { maxLength: 60 }), (plain, damping, results) => {
      const damped = { ...plain, flapDamping: damping };
      let without = initialHealth();
      let health = initialHealth();
      let upSinceMs = -1;
      results.forEach((each, nowMs) => {
        const at = { monotonicMs: nowMs, wallMs: nowMs };
        without = observe(without, plain, each, at).health;
        health = observe(health, damped, each, at).health;
        assert.equal(health.measured, without.state);
        if (without.state !== 'up') assert.equal(health.state, without.state);
        // Held back at most holdMs, as long as it stays up and answers.
        if (without.state !== 'up') upSinceMs = -1;
        else if (upSinceMs < 0) upSinceMs = nowMs;
        const dueMs = upSinceMs + damping.holdMs;
        if (upSinceMs >= 0 && nowMs >= dueMs && each.verdict === 'success') assert.equal(health.state, 'up');
      });
    }),
  );
});

const member = fc.record({
  priority: fc.integer({ min: 0, max: 3 }),
  health: fc.constantFrom('unknown', 'up', 'down'),
  adminState: fc.constantFrom('none', 'up', 'down'),
  draining: fc.boolean(),
  weight: fc.nat(2),
} as const);

test('evaluatePool() serves exactly whom a plain reading of the rules names', () => {
  fc.assert(
    fc.property(
      fc.array(member, { maxLength: 12 }),
      fc.integer({ min: 1, max: 4 }),
      (members, minimumHealthy) => {
        const backends = members.map(({ priority }, index) =>
          aBackend(`nva-${index}`, `10.0.0.${index + 1}`, { priority }),
        );
        const evaluation = evaluatePool(
          { backends, minimumHealthy },
          (backend) => members[backends.indexOf(backend)]!,
        );

        const alive = (m: (typeof members)[number]) =>
          m.adminState === 'up' || (m.adminState === 'none' && m.health === 'up');
        const wanted = members.map((m) => alive(m) && !m.draining && m.weight > 0);
        const groups = [0, 1, 2, 3].map(
          (p) => members.filter((m, i) => wanted[i] && m.priority === p).length,
        );
        const enough = groups.findIndex((size) => size >= minimumHealthy);
        const serving = enough >= 0 ? enough : groups.findIndex((size) => size > 0);

        assert.deepEqual(
          evaluation.backends.map((state) => state.backend),
          backends,
        );
        assert.equal(evaluation.servingPriority, serving < 0 ? undefined : serving);
        evaluation.backends.forEach((state, index) => {
          const m = members[index]!;
          assert.equal(state.eligible, wanted[index]);
          assert.equal(state.serving, wanted[index] && m.priority === serving);
          assert.equal(state.exclusion === undefined, state.serving);
          assert.equal(state.invalidBecause === undefined, state.valid);
          const dead = m.adminState === 'none' && m.health === 'down';
          assert.equal(state.valid, !dead && m.adminState !== 'down');
        });
      },
    ),
  );
});
