import assert from 'node:assert/strict';
import { PassThrough, Writable } from 'node:stream';
import { describe, test } from 'node:test';
import { createLogger, type LogStream } from '../../../src/observe/log.js';

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

describe('createLogger()', () => {
  test('createLogger() writes one JSON object a line off a terminal', async () => {
    const { stream, text } = capture(false);
    const logger = await createLogger({ level: 'info', format: 'auto' }, stream);
    logger.debug({ event: 'x' }, 'Not shown');
    logger.warn({ event: 'pool-down', pool: 'nvas' }, 'No backend "a"\nis left');
    const lines = text().split('\n');
    assert.equal(lines.length, 2);
    const line = JSON.parse(lines[0] ?? '') as Record<string, unknown>;
    assert.match(String(line['time']), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    const { level, pid, event, pool, msg } = line;
    assert.deepEqual(
      { level, pid, event, pool, msg },
      { level: 'warn', pid: process.pid, event: 'pool-down', pool: 'nvas', msg: 'No backend "a"\nis left' },
    );
  });

  test('createLogger() writes for people on a terminal', async (t) => {
    const { stream, text } = capture(true);
    const logger = await createLogger({ level: 'info', format: 'auto' }, stream);
    logger.info({ pool: 'nvas' }, 'Pool has recovered');
    await new Promise((resolve) => setImmediate(resolve));
    if (text().startsWith('{')) {
      t.skip('pino-pretty is not installed');
      return;
    }
    assert.match(text(), /INFO.*Pool has recovered/);
    assert.equal(text().split('\n').length, 2, 'one line, without the fields');
  });

  test('createLogger() writes JSON on a terminal where told to', async () => {
    const { stream, text } = capture(true);
    const logger = await createLogger({ level: 'info', format: 'json' }, stream);
    logger.info({}, 'Hello');
    assert.equal((JSON.parse(text()) as { msg: string }).msg, 'Hello');
  });

  test('createLogger() falls back to JSON without pino-pretty, and says so where it was asked for', async () => {
    const auto = capture(true);
    const missing = () => Promise.resolve(undefined);
    (await createLogger({ level: 'info', format: 'auto' }, auto.stream, missing)).info({}, 'Hello');
    assert.equal((JSON.parse(auto.text()) as { msg: string }).msg, 'Hello');
    const pretty = capture(false);
    await createLogger({ level: 'info', format: 'pretty' }, pretty.stream, missing);
    assert.equal((JSON.parse(pretty.text()) as { event: string }).event, 'pretty-missing');
  });

  test('createLogger() survives a reader that went away', async () => {
    const stream = Object.assign(new PassThrough(), { isTTY: false });
    const logger = await createLogger({ level: 'info', format: 'json' }, stream);
    stream.destroy(Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }));
    await new Promise((resolve) => setImmediate(resolve));
    logger.info({}, 'Nobody listens');
    await new Promise((resolve) => setImmediate(resolve));
    assert.ok(stream.destroyed);
  });
});
