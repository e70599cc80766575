import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import test from 'node:test';
import { eventData } from '../../../src/api/client.js';

const STREAM =
  ': heartbeat\n\nretry: 2000\n\nid: 1\nevent: applied\ndata: {"a":1}\n\n' +
  'data:one\r\ndata: two\r\n\r\nid: 3\rdata\r\r: bye\n\nevent: lost\n\ndata: plain\n\ndata: unfinished';

test('eventData() gives the data of each event of a stream, in pieces of any size, whatever ends its lines', async () => {
  for (let size = 1; size <= STREAM.length; size++) {
    const pieces = STREAM.match(new RegExp(`[^]{1,${size}}`, 'g')) ?? [];
    const data: string[] = [];
    for await (const one of eventData(Readable.from(pieces))) data.push(one);
    assert.deepEqual(data, ['{"a":1}', 'one\ntwo', '', 'plain'], `pieces of ${size}`);
  }
});
