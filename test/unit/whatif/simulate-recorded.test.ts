import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ForwardingCompiler } from '../../../src/selection/compiler.js';
import { simulateRecorded, type RecordedSimulation } from '../../../src/whatif/simulate.js';
import { createHasher } from '../../../src/selection/flow-hash.js';
import { Picker, NONE_EXCLUDED } from '../../../src/selection/picker.js';
import { aRule } from '../selection/fixtures.js';
import { inPieces, LogRecorder, randomFlows } from './recorded-flows.js';
import { aPool, settings } from '../control/settings.js';

const hash = await createHasher();
const picker = new Picker(hash);
const [ONE, TWO] = ['nvas/10.0.0.1', 'nvas/10.0.0.2'] as const;
const tuples = [...randomFlows(3000, 5)];

function recorded(): LogRecorder {
  const log = new LogRecorder(new ForwardingCompiler(hash), picker);
  log.epoch(settings());
  for (const tuple of tuples) log.place(tuple);
  return log;
}

const ask = (text: string, options: Partial<RecordedSimulation> = {}) =>
  simulateRecorded(inPieces(text, 65_536), { suppose: [], last: 100_000, ...options }, { hash, picker });

const calm = {
  health: () => ({ state: 'up' as const }),
};

describe('simulateRecorded()', () => {
  test('follows every flow from where it was recorded', async () => {
    const log = recorded();
    const report = await ask(log.text, { suppose: [{ backend: ONE, health: 'down' }] });
    // Counted one by one: in the rule of the fixture TCP stays on a dead backend, UDP moves.
    const state = log.state;
    const on = tuples.filter((tuple) => {
      const pick = picker.pick(state, tuple, NONE_EXCLUDED);
      return pick.kind === 'picked' && pick.backendId === ONE;
    });
    const udp = on.filter(({ protocol }) => protocol === 'udp').length;
    assert.ok(udp > 300 && on.length - udp > 300);
    const [rule] = report.rules;
    assert.equal(rule?.followed, 3000);
    assert.equal(rule.flows.udp.move, udp);
    assert.equal(rule.backends.find(({ backendId }) => backendId === ONE)?.shareBefore, on.length / 3000);
    assert.equal(rule.backends.find(({ backendId }) => backendId === ONE)?.shareAfter, 0);
    assert.equal(report.configDigest, log.state.configuration.digest);
    assert.deepEqual(report.recorded, {
      ...{ started: 3000, distinct: 3000, isCut: false, ofOtherRules: 0, lost: 0, damaged: 0 },
      start: 'epoch',
    });
  });

  test('starts from the last epoch: who was down then is down', async () => {
    const log = recorded();
    log.epoch(settings(), { [TWO]: 'down' });
    const report = await ask(log.text);
    const two = report.rules[0]?.backends.find(({ backendId }) => backendId === TWO);
    assert.ok((two?.shareBefore ?? 0) > 0.3, 'that is where the flows were');
    assert.equal(two?.shareAfter, 0);
    assert.equal(report.revision, 2);
    const healed = await ask(log.text, { suppose: [{ backend: TWO, health: 'up' }] });
    const again = healed.rules[0]?.backends.find(({ backendId }) => backendId === TWO);
    assert.equal(again?.shareAfter, again?.shareBefore);
  });

  test('starts from a configuration that is given, and says which flows it has no rule for', async () => {
    const log = recorded();
    log.log({ tuple: tuples[0]!, rule: 'gone', backendId: ONE, reason: 'hash' });
    const configuration = settings({ backendPools: [aPool(2)], rules: [aRule({ probe: 'alive' })] });
    const report = await ask(log.text, { start: { configuration, inputs: calm } });
    assert.equal(report.recorded?.start, 'configuration');
    assert.equal(report.recorded.ofOtherRules, 1);
    assert.equal(report.recorded.started, 3001);
    const [rule] = report.rules;
    assert.equal(rule?.followed, 2999);
    const gone = rule.backends.find(({ backendId }) => backendId === 'nvas/10.0.0.3');
    assert.ok((gone?.shareBefore ?? 0) > 0.3);
    assert.equal(gone?.shareAfter, 0);
    // Needs nothing of the log but flows.
    const [, , ...flows] = log.lines;
    assert.equal(
      (await ask(flows.join(''), { start: { configuration, inputs: calm } })).rules[0]?.followed,
      2999,
    );
  });

  test('follows only the last flows where there are more', async () => {
    const report = await ask(recorded().text, { last: 1000 });
    assert.equal(report.rules[0]?.followed, 1000);
    assert.deepEqual([report.recorded?.isCut, report.recorded?.distinct], [true, 1000]);
  });

  test('refuses a log that does not tell what to start from', async () => {
    const [config = '', epoch = '', ...flows] = recorded().lines;
    const unlike = epoch.replace(/"digest":"/, '"digest":"x');
    const huge = config.replace('"tableSize":251', '"tableSize":4294967291');
    assert.notEqual(huge, config);
    const strange = epoch.replace(ONE, 'nvas/10.9.9.9');
    for (const text of ['', flows.join(''), config, epoch, config + unlike, huge + epoch, config + strange]) {
      await assert.rejects(ask(text), {
        code: 'LB_USAGE',
        message: /name a configuration file by --offline/,
      });
    }
    await assert.rejects(ask(recorded().text, { suppose: [{ backend: 'nvas/x', health: 'up' }] }), {
      code: 'LB_UNKNOWN_BACKEND',
    });
  });
});
