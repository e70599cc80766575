import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Hindrances } from '../../../src/health/hindrances.js';
import type { LocalCause } from '../../../src/model/configuration.js';
import { FakeClock } from '../../support/fake-clock.js';
import { UP } from './probe-fixtures.js';

const QUIET_MS = 5000;

class Lab {
  readonly clock = new FakeClock();
  readonly told: string[] = [];
  readonly hindrances = new Hindrances({
    clock: this.clock,
    onEvent: (event) => {
      const what = event.phase === 'started' ? event.evidence : event.probes;
      this.told.push(`${event.phase} ${event.cause} ${what}`);
    },
  });

  hinder(target: string, cause: LocalCause = 'ports'): void {
    this.hindrances.observe(target, { ...UP, evidence: `${cause} of ${target}`, inconclusive: cause });
  }

  answer(target: string): void {
    this.hindrances.observe(target, UP);
  }

  takeTold(): readonly string[] {
    return this.told.splice(0);
  }
}

describe('Hindrances', () => {
  test('tells once that probes are hindered, and once that they are not, however many they are', () => {
    const lab = new Lab();
    for (let round = 0; round < 10; round++) for (const target of ['a', 'b', 'c']) lab.hinder(target);
    assert.deepEqual(lab.takeTold(), ['started ports ports of a']);
    for (const target of ['a', 'b', 'c']) lab.answer(target);
    lab.clock.advance(QUIET_MS - 1);
    assert.deepEqual(lab.takeTold(), []);
    lab.clock.advance(1);
    assert.deepEqual(lab.takeTold(), ['ended ports 30']);
    lab.clock.advance(60_000);
    lab.hinder('b');
    assert.deepEqual(lab.takeTold(), ['started ports ports of b']);
  });

  test('is not over before each target it hindered has been asked', () => {
    const lab = new Lab();
    lab.hinder('a');
    lab.hinder('b');
    lab.answer('a');
    lab.clock.advance(600_000);
    assert.deepEqual(lab.takeTold(), ['started ports ports of a']);
    lab.answer('b');
    lab.clock.advance(QUIET_MS);
    assert.deepEqual(lab.takeTold(), ['ended ports 2']);
  });

  test('a shortage that comes and goes is one', () => {
    const lab = new Lab();
    for (let round = 0; round < 5; round++) {
      lab.hinder('a');
      lab.answer('a');
      lab.clock.advance(QUIET_MS - 1);
    }
    assert.deepEqual(lab.takeTold(), ['started ports ports of a']);
    lab.clock.advance(1);
    assert.deepEqual(lab.takeTold(), ['ended ports 5']);
  });

  test('tells causes apart: a probe that meets another one no longer meets the first', () => {
    const lab = new Lab();
    lab.hinder('a', 'ports');
    lab.hinder('a', 'descriptors');
    lab.clock.advance(QUIET_MS);
    assert.deepEqual(lab.takeTold(), [
      'started ports ports of a',
      'started descriptors descriptors of a',
      'ended ports 1',
    ]);
  });

  test('targets that are probed no more do not keep it up', () => {
    const lab = new Lab();
    lab.hinder('a');
    lab.hinder('b');
    lab.hindrances.keep(new Set(['b']));
    lab.answer('b');
    lab.clock.advance(QUIET_MS);
    assert.deepEqual(lab.takeTold(), ['started ports ports of a', 'ended ports 2']);
  });

  test('tells nothing after its stop, and keeps no timer', () => {
    const lab = new Lab();
    lab.hinder('a');
    lab.answer('a');
    lab.hindrances.stop();
    assert.equal(lab.clock.pendingTimers, 0);
  });
});
