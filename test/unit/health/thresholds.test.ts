import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { BackendHealth } from '../../../src/model/forwarding.js';
import type { FlapDamping, HttpProbe, Probe, ProbeResult } from '../../../src/model/configuration.js';
import { HISTORY_LENGTH, initialHealth, observe } from '../../../src/health/thresholds.js';
import { httpProbe, tcpProbe } from './probe-fixtures.js';

const tcp = tcpProbe();
const http = httpProbe();

/** S/F: explicit success and failure. `.`: silence. I: inconclusive. */
const RESULTS: Readonly<Record<string, ProbeResult>> = {
  S: { verdict: 'success', answer: 'explicit', evidence: 'HTTP 200', durationMs: 1 },
  F: { verdict: 'failure', answer: 'explicit', evidence: 'HTTP 503', durationMs: 1 },
  '.': { verdict: 'failure', answer: 'silence', evidence: 'no answer in 5s', durationMs: 5000 },
  I: {
    verdict: 'failure',
    answer: 'silence',
    evidence: 'EMFILE',
    durationMs: 0,
    inconclusive: 'descriptors',
  },
};

/** Feeds one result a second; gives the state after each as u, U(p) or D(own), and the last health. */
function run(
  probe: Probe,
  script: string,
  start = initialHealth(),
  startMs = 0,
): { seen: string; health: BackendHealth } {
  let health = start;
  let seen = '';
  Array.from(script).forEach((letter, index) => {
    const monotonicMs = startMs + index * 1000;
    const result = RESULTS[letter];
    assert.ok(result);
    health = observe(health, probe, result, { monotonicMs, wallMs: 1_000_000 + monotonicMs }).health;
    seen += { unknown: 'u', up: 'U', down: 'D' }[health.state];
  });
  return { seen, health };
}

describe('observe() on a TCP probe', () => {
  const cases: readonly (readonly [script: string, states: string, why: string])[] = [
    ['S', 'U', 'the first success brings an unknown target up'],
    ['F', 'u', 'one failure leaves it unknown'],
    ['FF', 'uD', 'the threshold of failures takes an unknown target down'],
    ['FSF', 'uUU', 'failures apart do not add up while unknown'],
    ['SFSF', 'UUUU', 'failures apart do not add up'],
    ['SFF', 'UUD', 'consecutive failures do'],
    ['S.F', 'UUD', 'silence and refusal count alike'],
    ['SFFS', 'UUDD', 'one success is not enough to come back'],
    ['SFFSFS', 'UUDDDD', 'successes apart do not add up'],
    ['SFFSS', 'UUDDU', 'consecutive successes bring it back'],
    ['SFIF', 'UUUD', 'an inconclusive result neither counts nor ends the run'],
    ['III', 'uuu', 'inconclusive results never decide'],
  ];
  for (const [script, states, why] of cases) {
    test(`${script} gives ${states}: ${why}`, () => assert.equal(run(tcp, script).seen, states));
  }

  test('observe() honours different thresholds up and down', () => {
    assert.equal(run({ ...tcp, upThreshold: 3, downThreshold: 1 }, 'SFSSSF').seen, 'UDDDUD');
  });
});

describe('observe() on an HTTP probe', () => {
  const cases: readonly (readonly [script: string, states: string, why: string])[] = [
    ['F', 'D', 'an explicit failure decides at once, from unknown too'],
    ['SF', 'UD', 'an explicit failure flips at once'],
    ['SFS', 'UDU', 'an explicit success flips back at once'],
    ['.', 'u', 'one silence leaves it unknown'],
    ['..', 'uD', 'the threshold of silences takes an unknown target down'],
    ['S.S.', 'UUUU', 'silences apart do not add up'],
    ['S..', 'UUD', 'consecutive silences do'],
    ['S..S', 'UUDU', 'the first explicit success brings it back'],
  ];
  for (const [script, states, why] of cases) {
    test(`${script} gives ${states}: ${why}`, () => assert.equal(run(http, script).seen, states));
  }

  test('observe() counts explicit answers too when explicitAnswerFlips is off', () => {
    assert.equal(run({ ...http, explicitAnswerFlips: false }, 'SFFSS').seen, 'UUDDU');
  });
});

describe('observe() keeps', () => {
  test('the evidence and wall time of each transition', () => {
    assert.deepEqual(run(http, 'SSF').health.history, [
      { atMs: 1_000_000, from: 'unknown', to: 'up', evidence: 'HTTP 200' },
      { atMs: 1_002_000, from: 'up', to: 'down', evidence: 'HTTP 503' },
    ]);
  });

  test('the last 16 transitions and the count of all', () => {
    const { health } = run(http, 'SF'.repeat(20));
    assert.equal(health.transitions, 40);
    assert.equal(health.history.length, HISTORY_LENGTH);
    assert.equal(HISTORY_LENGTH, 16);
    assert.equal(health.history.at(-1)?.atMs, 1_039_000);
    assert.equal(health.history[0]?.atMs, 1_024_000);
  });

  test('the weight of the last success, through failures, until a success brings none', () => {
    const at = { monotonicMs: 0, wallMs: 0 };
    const heavy = observe(initialHealth(), http, { ...RESULTS['S']!, weight: 7 }, at).health;
    assert.equal(heavy.weight, 7);
    const silent = observe(heavy, http, RESULTS['.']!, at).health;
    assert.equal(silent.weight, 7);
    assert.equal(observe(silent, http, RESULTS['S']!, at).health.weight, undefined);
  });

  test('an inconclusive result as the last one, and nothing else of it', () => {
    const before = run(http, 'S.').health;
    const { health, transition } = observe(before, http, RESULTS['I']!, { monotonicMs: 1, wallMs: 1 });
    assert.equal(transition, undefined);
    assert.deepEqual(health, { ...before, last: RESULTS['I'] });
  });

  test('the old health untouched', () => {
    const before = Object.freeze(initialHealth());
    observe(before, http, RESULTS['S']!, { monotonicMs: 0, wallMs: 0 });
    assert.deepEqual(before, initialHealth());
  });
});

describe('observe() with flap damping', () => {
  const flapDamping: FlapDamping = { transitions: 4, windowMs: 60_000, holdMs: 10_000 };
  const probe: HttpProbe = { ...http, flapDamping };

  test('holds the next up for holdMs after the given number of changes', () => {
    // Changes at 1, 2, 3 and 4 s; the up at 5 s is held until 15 s.
    const { seen, health } = run(probe, 'SFSFSF' + 'S'.repeat(11));
    assert.equal(seen, 'UDUDUD' + 'D'.repeat(10) + 'U');
    assert.match(health.history.at(-1)?.evidence ?? '', /held back for flapping/);
    assert.equal(health.heldUntilMs, undefined);
  });

  test('shows until when an up is held and what is measured', () => {
    const { health } = run(probe, 'SFSFSFS');
    assert.deepEqual(
      [health.state, health.measured, health.heldUntilMs],
      ['down', 'up', 6000 + flapDamping.holdMs],
    );
  });

  test('starts the hold anew when the target goes down while held', () => {
    const { seen, health } = run(probe, 'SFSFSF' + 'SSSFS');
    assert.equal(seen, 'UDUDUD' + 'DDDDD');
    assert.equal(health.heldUntilMs, 10_000 + flapDamping.holdMs);
  });

  test('keeps the hold over a failure below the threshold, but does not end it on one', () => {
    const held = run(probe, 'SFSFSFS').health;
    const { seen } = run(probe, '.S.S', held, 13_000);
    // 13 s and 14 s are within the hold, 15 s and 16 s too (16 s is its end): the success at 16 s ends it.
    assert.equal(seen, 'DDDU');
    const { seen: onFailure } = run(probe, '.S', held, 16_000);
    assert.equal(onFailure, 'DU');
  });

  test('forgets changes older than the window', () => {
    const quick = run(probe, 'SFSFS').health;
    assert.equal(quick.state, 'up');
    assert.equal(run(probe, 'FS', quick, 62_000).seen, 'DU');
  });

  test('never delays a down', () => {
    assert.equal(run(probe, 'SFSFSF').seen.at(-1), 'D');
  });

  test('does not count leaving unknown as a change', () => {
    assert.equal(run({ ...probe, flapDamping: { ...flapDamping, transitions: 2 } }, 'SFS').seen, 'UDU');
    assert.equal(run({ ...probe, flapDamping: { ...flapDamping, transitions: 1 } }, 'SFS').seen, 'UDD');
  });
});
