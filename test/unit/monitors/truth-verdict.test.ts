import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { assess, type TruthWindow } from '../../../src/monitors/probe-truth.js';

function window(changes: Partial<TruthWindow> = {}): TruthWindow {
  return {
    probe: 'alive',
    health: 'up',
    healthAgeMs: 3_600_000,
    attempts: 0,
    unconnected: 0,
    reset: 0,
    unanswered: 0,
    resets: 0,
    answers: 0,
    answerBytes: 0,
    ...changes,
  };
}

describe('assess()', () => {
  test('assess() finds traffic failing from half of 20 attempts on', () => {
    const table = [
      { attempts: 20, unconnected: 10, expected: 'bad' },
      { attempts: 20, unconnected: 9, expected: 'unclear' },
      { attempts: 19, unconnected: 19, expected: 'unclear' },
      { attempts: 1000, unconnected: 250, expected: 'unclear' },
      { attempts: 1000, unconnected: 249, expected: 'fine' },
      { attempts: 20, unconnected: 0, expected: 'fine' },
      { attempts: 0, unconnected: 0, expected: 'unclear' },
    ];
    for (const { expected, ...numbers } of table) {
      const { trafficFailing, trafficFine } = assess(window(numbers));
      assert.equal(trafficFailing, expected, JSON.stringify(numbers));
      assert.equal(trafficFine, 'fine');
    }
  });

  test('assess() adds up the ways to fail, and names them', () => {
    const verdict = assess(window({ attempts: 60, unconnected: 20, reset: 6, unanswered: 4 }));
    assert.equal(verdict.trafficFailing, 'bad');
    assert.equal(
      verdict.evidence,
      'Probe "alive" finds it up; 30 of 60 new flows failed in the last 60 s: 20 could not connect, 6 were reset without an answer, 4 got no answer where other backends answer',
    );
    const more = assess(window({ attempts: 30, unconnected: 30, reset: 30 }));
    assert.match(more.evidence, /30 of 30 new flows/);
  });

  test('assess() finds traffic fine when a backend found down answered for a whole window', () => {
    const down = { health: 'down', healthAgeMs: 60_000, answers: 20, answerBytes: 4000 } as const;
    assert.equal(assess(window(down)).trafficFine, 'bad');
    assert.equal(
      assess(window(down)).evidence,
      'Probe "alive" finds it down; it answered 20 times (4000 bytes) and failed 0 times in the last 60 s',
    );
    const table: readonly [Partial<TruthWindow>, string][] = [
      [{ healthAgeMs: 59_999 }, 'unclear'],
      [{ answers: 19 }, 'unclear'],
      [{ answers: 0 }, 'fine'],
      [{ unconnected: 1, attempts: 1 }, 'fine'],
      [{ resets: 1 }, 'fine'],
      [{ unanswered: 20, attempts: 20 }, 'fine'],
    ];
    for (const [changes, expected] of table) {
      const verdict = assess(window({ ...down, ...changes }));
      assert.equal(verdict.trafficFine, expected, JSON.stringify(changes));
      assert.equal(verdict.trafficFailing, 'fine');
    }
  });

  test('assess() holds nothing against a probe that has no verdict', () => {
    const verdict = assess(window({ health: 'unknown', attempts: 100, unconnected: 100, answers: 100 }));
    assert.deepEqual([verdict.trafficFailing, verdict.trafficFine], ['fine', 'fine']);
  });
});
