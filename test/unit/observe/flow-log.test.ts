import assert from 'node:assert/strict';
import { mkdtemp, readFile, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { configurationFromJson, type Json } from '../../../src/api/flow-log.js';
import { FlowLog, type FlowEvent } from '../../../src/observe/flow-log.js';
import { nodeAppendFiles } from '../../../src/runtime/files.js';
import { systemClock } from '../../../src/runtime/clock.js';
import { FakeClock } from '../../support/fake-clock.js';
import { GoldenFolder } from '../../support/golden.js';
import { FakeAppendFiles } from './fake-append-files.js';
import { LineRecorder } from './line-recorder.js';
import { sampleConfiguration, sampleFlow, sampleState } from './sample-state.js';

const PATH = '/var/log/haports/flows.ndjson';

function started(id: number, epoch = 1): FlowEvent {
  return { type: 'flow-started', atMs: 1000, flow: sampleFlow(id, epoch) };
}

function ended(id: number, epoch = 1): FlowEvent {
  return { type: 'flow-ended', atMs: 3500, flow: sampleFlow(id, epoch), end: 'client-reset' };
}

function tell(log: FlowLog, ...events: readonly FlowEvent[]): void {
  for (const event of events) log.flow(event);
}

/** What kind of lines these are, and of which flow or revision. */
function kinds(text: string | undefined): readonly string[] {
  const lines = (text ?? '').trimEnd().split('\n');
  return lines.map((line) => {
    const { type, id, revision } = JSON.parse(line) as Record<string, string | number | undefined>;
    return [type, id ?? revision].join(' ').trimEnd();
  });
}

async function openLog(options: { sample?: number; bufferBytes?: number } = {}) {
  const files = new FakeAppendFiles();
  const recorder = new LineRecorder();
  const clock = new FakeClock();
  const deps = { files, onEvent: recorder.bus.emit, clock };
  const log = new FlowLog(deps, { file: PATH, sample: options.sample ?? 1 }, options.bufferBytes);
  await log.start();
  const lines = () =>
    (files.contents.get(PATH) ?? '')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  return { files, recorder, clock, log, lines, kinds: () => kinds(files.contents.get(PATH)) };
}

test('FlowLog writes configurations, epochs and flows as documented', async () => {
  const { files, log, lines } = await openLog();
  const [old, changed] = [sampleConfiguration('old'), sampleConfiguration('new')];
  log.epoch(sampleState(1, old));
  tell(
    log,
    started(7),
    { type: 'flow-moved', atMs: 2000, flow: sampleFlow(7), fromBackendId: 'nvas/127.0.0.12' },
    ended(7),
  );
  // The same configuration is not written again; flows have the digest of the one that placed them.
  log.epoch(sampleState(2, old));
  log.epoch(sampleState(5, changed));
  tell(log, ended(1, 4), started(2, 5));
  await log.writer.flush();
  new GoldenFolder('test/unit/observe', 'txt').compare('flow-log', files.contents.get(PATH) ?? '');
  assert.deepEqual(configurationFromJson(lines()[0]?.['configuration'] as Json), old);
});

describe('FlowLog sampling', () => {
  test('flow() logs all lines of a flow or none, and every epoch', async () => {
    const { log, lines } = await openLog({ sample: 0.25 });
    for (let revision = 1; revision <= 20; revision++) log.epoch(sampleState(revision));
    const flows = 4000;
    for (let id = 0; id < flows; id++) tell(log, started(id));
    for (let id = flows - 1; id >= 0; id--) tell(log, ended(id));
    await log.writer.flush();
    const idsOf = (type: string) =>
      new Set(lines().flatMap((line) => (line['type'] === type ? [line['id']] : [])));
    const [starts, ends] = [idsOf('start'), idsOf('end')];
    assert.deepEqual([...starts].sort(), [...ends].sort());
    // 4000 flows at 25 %: 1000, standard deviation 27.
    assert.ok(starts.size > 840 && starts.size < 1160, `${starts.size} of ${flows} flows`);
    assert.equal(lines().filter(({ type }) => type === 'epoch').length, 20);
  });

  test('flow() logs no flow at share 0', async () => {
    const { log, kinds } = await openLog({ sample: 0 });
    log.epoch(sampleState(1));
    for (let id = 0; id < 500; id++) tell(log, started(id));
    await log.writer.flush();
    assert.deepEqual(kinds(), ['config', 'epoch 1']);
  });
});

describe('FlowLog writing', () => {
  test('lines are written together, a second after the first at the latest', async () => {
    const { clock, log, lines } = await openLog();
    tell(log, started(1));
    await clock.advanceAsync(999);
    assert.equal(lines().length, 0);
    await clock.advanceAsync(1);
    assert.equal(lines().length, 1);
    assert.equal(clock.pendingTimers, 0);
  });

  test('a disk that is full for a while loses and tears nothing that fits the buffer, and is logged once', async () => {
    const { files, recorder, clock, log, kinds } = await openLog();
    tell(log, started(1), started(2), started(3));
    files.roomBytes = 500; // In the middle of the second line.
    await clock.advanceAsync(1000);
    for (let id = 4; id <= 6; id++) {
      tell(log, started(id));
      await clock.advanceAsync(1000);
    }
    assert.equal(log.writer.stats.writeErrors, 4);
    files.roomBytes = Number.POSITIVE_INFINITY;
    await clock.advanceAsync(1000);
    await log.writer.flush();
    assert.deepEqual(
      kinds(),
      [1, 2, 3, 4, 5, 6].map((id) => `start ${id}`),
    );
    assert.deepEqual(log.writer.stats, { linesWritten: 6, linesLost: 0, writeErrors: 4 });
    assert.deepEqual(recorder.texts, [
      `error Cannot write "${PATH}": ENOSPC: made up for this test`,
      `info Writing "${PATH}" again, 0 lines lost so far`,
    ]);
  });

  test('lines beyond the buffer are lost, counted, and said to be missing where they are missing', async () => {
    const { files, clock, log, lines, kinds } = await openLog({ bufferBytes: 4000 });
    log.epoch(sampleState(1));
    await log.writer.flush();
    files.roomBytes = 0;
    for (let id = 1; id <= 1000; id++) {
      tell(log, started(id));
      if (id % 100 === 0) await clock.advanceAsync(1000);
    }
    files.roomBytes = Number.POSITIVE_INFINITY;
    await clock.advanceAsync(1000);
    await log.writer.flush();
    tell(log, started(1001));
    await log.writer.flush();
    const ids = lines().flatMap(({ type, id }) => (type === 'start' ? [id] : []));
    const kept = ids.length - 1;
    assert.ok(kept >= 9 && kept <= 14, `${kept} lines of about 330 bytes were kept`);
    assert.deepEqual(ids, [...Array.from({ length: kept }, (_, index) => index + 1), 1001]);
    assert.equal(log.writer.stats.linesLost, 1000 - kept);
    const lost = lines().findIndex(({ type }) => type === 'lost');
    assert.equal(lines()[lost]?.['lines'], 1000 - kept);
    assert.equal(lines()[lost + 1]?.['id'], 1001);
    assert.deepEqual(kinds().slice(0, 2), ['config', 'epoch 1']);
  });

  test('a lost epoch is made good by the latest one', async () => {
    const { files, clock, log, kinds } = await openLog({ bufferBytes: 3000 });
    log.epoch(sampleState(1));
    await log.writer.flush();
    files.roomBytes = 0;
    for (let revision = 2; revision <= 50; revision++) log.epoch(sampleState(revision));
    await clock.advanceAsync(1000);
    files.roomBytes = Number.POSITIVE_INFINITY;
    await clock.advanceAsync(1000);
    tell(log, started(1, 50));
    await log.writer.flush();
    assert.deepEqual(kinds().slice(-4), ['lost', 'config', 'epoch 50', 'start 1']);
  });

  test('a closed descriptor is opened again', async () => {
    const { files, clock, log, kinds } = await openLog();
    tell(log, started(1));
    files.appendErrorCode = 'EBADF';
    await clock.advanceAsync(1000);
    assert.equal(files.opens, 2);
    await clock.advanceAsync(1000);
    assert.deepEqual(kinds(), ['start 1']);
  });

  test('start() rejects with the path where the file cannot be opened', async () => {
    const files = new FakeAppendFiles();
    files.openErrorCode = 'EACCES';
    const deps = { files, onEvent: () => undefined, clock: new FakeClock() };
    const log = new FlowLog(deps, { file: PATH, sample: 1 });
    await assert.rejects(log.start(), {
      code: 'LB_CONFIG_INVALID',
      message: `Cannot open flow log "${PATH}" (EACCES): it must be a file that can be appended to`,
    });
  });

  test('stop() writes what waits, counts what it cannot write, and closes', async () => {
    const { files, recorder, log, lines } = await openLog();
    tell(log, started(1), started(2));
    files.roomBytes = 400; // The first line and a piece.
    await log.writer.stop();
    await log.writer.stop();
    assert.match(files.contents.get(PATH) ?? '', /^\{[^\n]*\}\n\{/);
    assert.deepEqual(log.writer.stats, { linesWritten: 1, linesLost: 1, writeErrors: 1 });
    assert.equal(files.closes, 1);
    assert.equal(recorder.texts.at(-1), `warn Lost 1 line of "${PATH}"`);
    assert.throws(lines, 'the second line is torn');
  });
});

describe('FlowLog.reopen()', () => {
  test('reopen() ends the old file and starts the new one with configuration and epoch', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'haports-flow-log-'));
    try {
      const file = join(directory, 'flows.ndjson');
      const deps = { files: nodeAppendFiles, onEvent: () => undefined, clock: systemClock };
      const log = new FlowLog(deps, { file, sample: 1 });
      await log.start();
      log.epoch(sampleState(1));
      tell(log, started(1));
      await rename(file, `${file}.1`);
      await log.writer.reopen();
      tell(log, started(2));
      await log.writer.stop();
      assert.deepEqual(kinds(await readFile(`${file}.1`, 'utf8')), ['config', 'epoch 1', 'start 1']);
      assert.deepEqual(kinds(await readFile(file, 'utf8')), ['config', 'epoch 1', 'start 2']);
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  test('reopen() leaves half a line behind and continues with the next whole one', async () => {
    const { files, clock, log, kinds } = await openLog();
    log.epoch(sampleState(1));
    await log.writer.flush();
    tell(log, started(1), started(2), started(3));
    files.roomBytes = 500;
    await clock.advanceAsync(1000);
    files.contents.delete(PATH);
    files.roomBytes = 0;
    const reopened = log.writer.reopen();
    await new Promise((resolve) => setImmediate(resolve));
    files.roomBytes = Number.POSITIVE_INFINITY;
    await reopened;
    await clock.advanceAsync(1000);
    await log.writer.flush();
    assert.deepEqual(kinds(), ['config', 'epoch 1', 'start 3']);
    assert.equal(log.writer.stats.linesLost, 1);
    assert.equal(log.writer.stats.linesWritten, 2 + 2 + 2);
  });

  test('reopen() keeps the old file where a new one cannot be opened', async () => {
    const { files, recorder, log, lines } = await openLog();
    files.openErrorCode = 'EACCES';
    await log.writer.reopen();
    tell(log, started(1));
    await log.writer.flush();
    assert.equal(lines().length, 1);
    assert.deepEqual(recorder.texts, [`error Cannot reopen "${PATH}": EACCES: made up for this test`]);
  });
});
