import assert from 'node:assert/strict';
import test from 'node:test';
import { EventStreamParser } from '../../../src/cli/flows.js';

const STREAM =
  ': heartbeat\n\nretry: 2000\n\nid: 1\nevent: applied\ndata: {"a":1}\n\n' +
  'data:one\r\ndata: two\r\n\r\nid: 3\rdata\r\r: bye\n\nevent: lost\n\ndata: plain\n\ndata: unfinished';

const EXPECTED = [
  { id: '1', event: 'applied', data: '{"a":1}' },
  { id: '1', event: 'message', data: 'one\ntwo' },
  { id: '3', event: 'message', data: '' },
  { id: '3', event: 'message', data: 'plain' },
];

test('EventStreamParser gives the events of a stream, whatever ends its lines', () => {
  assert.deepEqual(new EventStreamParser().feed(STREAM), EXPECTED);
});

test('EventStreamParser gives the same in pieces of any size', () => {
  for (let size = 1; size < STREAM.length; size++) {
    const parser = new EventStreamParser();
    const events = [];
    for (let from = 0; from < STREAM.length; from += size) {
      events.push(...parser.feed(STREAM.slice(from, from + size)));
    }
    assert.deepEqual(events, EXPECTED, `pieces of ${size}`);
  }
});
