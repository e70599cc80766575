import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIperf } from '../../../../bench/e2e/load/iperf.js';
import { checkWrk, parseWrk } from '../../../../bench/e2e/load/wrk.js';

test('parseWrk() reads the line of the summary script', () => {
  const output = 'Running 1s test\n\nSUMMARY 1200 300000 1000500 3\n';
  assert.deepEqual(parseWrk(output), { requests: 1200, bytes: 300_000, seconds: 1.0005, errors: 3 });
});

test('parseWrk() throws when wrk ended without a summary', () => {
  assert.throws(() => parseWrk('unable to connect to 127.0.0.1:1\n'), /no summary: unable to connect/);
});

test('checkWrk() takes whole answers and the beginning of one more on each connection', () => {
  const right = { requests: 100, bytes: 25_000, seconds: 1, errors: 0 };
  checkWrk(right, 250, 2);
  checkWrk({ ...right, bytes: 25_500 }, 250, 2);
  assert.throws(() => checkWrk({ ...right, bytes: 25_501 }, 250, 2), /must be 250 each/);
  assert.throws(() => checkWrk({ ...right, bytes: 24_999 }, 250, 2), /must be 250 each/);
});

test('checkWrk() throws when a request failed or none was answered', () => {
  const right = { requests: 100, bytes: 25_000, seconds: 1, errors: 0 };
  assert.throws(() => checkWrk({ ...right, errors: 1 }, 250, 2), /1 of 100 requests failed/);
  assert.throws(() => checkWrk({ ...right, requests: 0, bytes: 0 }, 250, 2), /no request was answered/);
});

test('parseIperf() takes what the receiver counted', () => {
  const tcp = { end: { sum_sent: { bytes: 9, seconds: 2 }, sum_received: { bytes: 8, seconds: 2 } } };
  assert.deepEqual(parseIperf(JSON.stringify(tcp)), { bytes: 8, seconds: 2, datagrams: 0, lost: 0 });
  const udp = { end: { sum: { bytes: 800, seconds: 2, packets: 10, lost_packets: 2 } } };
  assert.deepEqual(parseIperf(JSON.stringify(udp)), { bytes: 800, seconds: 2, datagrams: 10, lost: 2 });
});

test('parseIperf() throws what iperf3 reports as an error', () => {
  assert.throws(() => parseIperf('{"error":"control socket has closed"}'), /control socket has closed/);
});
