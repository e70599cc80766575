import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ForwardingCompiler } from '../../../src/selection/compiler.js';
import { readRecordedFlows } from '../../../src/whatif/simulate.js';
import { formatFiveTuple } from '../../../src/model/address.js';
import { flowLine } from '../../../src/observe/flow-log.js';
import { createHasher } from '../../../src/selection/flow-hash.js';
import { Picker } from '../../../src/selection/picker.js';
import { aTuple } from '../selection/fixtures.js';
import { aFlowRecord } from '../status/counters-fixtures.js';
import { inPieces, LogRecorder } from './recorded-flows.js';
import { settings } from '../control/settings.js';

const hash = await createHasher();
const A = aTuple('192.0.2.1:1', '198.51.100.1:443');
const B = aTuple('192.0.2.2:1', '198.51.100.1:443');
const C = aTuple('192.0.2.3:1', '198.51.100.1:443', 'udp');

function recorder(): LogRecorder {
  const log = new LogRecorder(new ForwardingCompiler(hash), new Picker(hash));
  log.epoch(settings());
  return log;
}

const started = (log: LogRecorder, tuple: typeof A, backendId: string): void =>
  log.log({ tuple, backendId, rule: 'ha-ports', reason: 'hash' });

const moved = (tuple: typeof A, backendId: string): string =>
  flowLine(
    {
      ...{ type: 'flow-moved', atMs: 2000, fromBackendId: 'nvas/10.0.0.1' },
      flow: aFlowRecord(1, { tuple, backendId, rule: 'ha-ports' }),
    },
    'd',
  );

async function read(text: string, most = 10) {
  const { flows, ...rest } = await readRecordedFlows(inPieces(text), { most });
  return { ...rest, flows: flows.map(({ tuple, backendId }) => [formatFiveTuple(tuple), backendId]) };
}

describe('readRecordedFlows()', () => {
  test('gives each five-tuple once, where it was last', async () => {
    const log = recorder();
    started(log, A, 'nvas/10.0.0.1');
    started(log, B, 'nvas/10.0.0.2');
    started(log, A, 'nvas/10.0.0.3');
    log.lines.push(moved(B, 'nvas/10.0.0.3'));
    const { flows, started: starts, isCut } = await read(log.text);
    assert.deepEqual(flows, [
      [formatFiveTuple(B), 'nvas/10.0.0.3'],
      [formatFiveTuple(A), 'nvas/10.0.0.3'],
    ]);
    assert.deepEqual([starts, isCut], [3, false]);
  });

  test('keeps the last ones that started, and says that it left older ones out', async () => {
    const log = recorder();
    for (const tuple of [A, B, A, C]) started(log, tuple, 'nvas/10.0.0.1');
    log.lines.push(moved(B, 'nvas/10.0.0.2'));
    const { flows, isCut, started: starts } = await read(log.text, 2);
    assert.deepEqual(
      flows.map(([tuple]) => tuple),
      [A, C].map(formatFiveTuple),
    );
    assert.deepEqual([starts, isCut], [4, true]);
    assert.equal((await read(log.text, 3)).isCut, false);
  });

  test('has the last configuration and epoch, and counts what is missing', async () => {
    const log = recorder();
    log.epoch(settings({ tableSize: 509, digest: 'e'.repeat(64) }));
    log.epoch(settings({ tableSize: 509, digest: 'e'.repeat(64) }), { 'nvas/10.0.0.2': 'down' });
    const { configuration, epoch, lost, damaged } = await read(`${log.text}{"type":"lost","lines":7}\n{"ty`);
    assert.equal(configuration?.tableSize, 509);
    assert.equal(epoch?.revision, 3);
    assert.deepEqual(
      epoch.views[0]?.backends.map(({ health }) => health),
      ['up', 'down', 'up'],
    );
    assert.deepEqual([lost, damaged], [7, 1]);
    const empty = await read('');
    assert.deepEqual([empty.configuration, empty.epoch, empty.flows], [undefined, undefined, []]);
  });
});
