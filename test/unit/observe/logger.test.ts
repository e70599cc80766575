import assert from 'node:assert/strict';
import { PassThrough, Writable } from 'node:stream';
import { describe, test } from 'node:test';
import type { EventLine } from '../../../src/model/events.js';
import { EventBus, EventFeed } from '../../../src/observe/bus.js';
import { openLog, type LogStream } from '../../../src/observe/log.js';
import { FakeClock } from '../../support/fake-clock.js';

const HELLO: EventLine = { level: 'info', type: 'x', fields: {}, message: 'Hello' };

function capture(isTTY: boolean): { readonly stream: LogStream; readonly text: () => string } {
  let text = '';
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      text += chunk.toString();
      done();
    },
  });
  return { stream: Object.assign(stream, { isTTY }), text: () => text };
}

describe('openLog()', () => {
  test('openLog() writes one JSON object a line off a terminal', async () => {
    const { stream, text } = capture(false);
    const log = await openLog({ level: 'info', format: 'auto' }, stream);
    log({ level: 'debug', type: 'x', fields: {}, message: 'Not shown' });
    const message = 'No backend "a"\nis left';
    log({ level: 'warn', type: 'pool-down', fields: { pool: 'nvas' }, message });
    const lines = text().split('\n');
    assert.equal(lines.length, 2);
    const line = JSON.parse(lines[0] ?? '') as Record<string, unknown>;
    assert.match(String(line['time']), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    const { level, pid, event, pool, msg } = line;
    assert.deepEqual(
      { level, pid, event, pool, msg },
      { level: 'warn', pid: process.pid, event: 'pool-down', pool: 'nvas', msg: message },
    );
  });

  test('openLog() leaves out what is below its level, which the event stream still has', async () => {
    const { stream, text } = capture(false);
    const feed = new EventFeed({ clock: new FakeClock() });
    const bus = new EventBus();
    bus.onLine('port-sockets', [await openLog({ level: 'error', format: 'json' }, stream), feed.add]);
    bus.emit({ type: 'upgrade-started', pid: 7 });
    bus.emit({ type: 'apply-failed', revision: 1, error: new Error('no') });
    assert.deepEqual(
      feed.since(0).map(({ type }) => type),
      ['upgrade-started', 'apply-failed'],
    );
    assert.ok(!text().includes('upgrade-started') && text().includes('apply-failed'));
  });

  test('openLog() writes for people on a terminal', async (t) => {
    const { stream, text } = capture(true);
    const log = await openLog({ level: 'info', format: 'auto' }, stream);
    log({ ...HELLO, fields: { pool: 'nvas' }, message: 'Pool has recovered' });
    await new Promise((resolve) => setImmediate(resolve));
    if (text().startsWith('{')) {
      t.skip('pino-pretty is not installed');
      return;
    }
    assert.match(text(), /INFO.*Pool has recovered/);
    assert.equal(text().split('\n').length, 2, 'one line, without the fields');
  });

  test('openLog() writes JSON on a terminal where told to', async () => {
    const { stream, text } = capture(true);
    const log = await openLog({ level: 'info', format: 'json' }, stream);
    log(HELLO);
    assert.equal((JSON.parse(text()) as { msg: string }).msg, 'Hello');
  });

  test('openLog() falls back to JSON without pino-pretty, and says so where it was asked for', async () => {
    const auto = capture(true);
    const missing = () => Promise.resolve(undefined);
    (await openLog({ level: 'info', format: 'auto' }, auto.stream, missing))(HELLO);
    assert.equal((JSON.parse(auto.text()) as { msg: string }).msg, 'Hello');
    const pretty = capture(false);
    await openLog({ level: 'info', format: 'pretty' }, pretty.stream, missing);
    assert.equal((JSON.parse(pretty.text()) as { event: string }).event, 'pretty-missing');
  });

  test('openLog() survives a reader that went away', async () => {
    const stream = Object.assign(new PassThrough(), { isTTY: false });
    const log = await openLog({ level: 'info', format: 'json' }, stream);
    stream.destroy(Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }));
    await new Promise((resolve) => setImmediate(resolve));
    log(HELLO);
    await new Promise((resolve) => setImmediate(resolve));
    assert.ok(stream.destroyed);
  });
});
