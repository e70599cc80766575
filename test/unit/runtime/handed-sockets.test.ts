import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ipAddress } from '../../../src/model/address.js';
import { handedDescriptors, handedListeners } from '../../../src/planes/capture/ports-in-use.js';

describe('handedDescriptors()', () => {
  test('numbers descriptors from 3, with their names', () => {
    const env = { LISTEN_FDS: '2', LISTEN_PID: '42', LISTEN_FDNAMES: 'four' };
    assert.deepEqual(handedDescriptors(env, 42), [
      { descriptor: 3, name: 'four' },
      { descriptor: 4, name: 'unknown' },
    ]);
  });

  test('gives none where they were meant for another process, or are not there', () => {
    for (const env of [
      {},
      { LISTEN_FDS: '2' },
      { LISTEN_FDS: '2', LISTEN_PID: '43' },
      { LISTEN_FDS: '0', LISTEN_PID: '42' },
      { LISTEN_FDS: 'x', LISTEN_PID: '42' },
      { LISTEN_FDS: '1.5', LISTEN_PID: '42' },
    ]) {
      assert.deepEqual(handedDescriptors(env, 42), [], JSON.stringify(env));
    }
  });
});

describe('handedListeners()', () => {
  test('keeps what listens on TCP', () => {
    const handed = [3, 4, 5, 6].map((descriptor) => ({ descriptor, name: 'unknown' }));
    const links = new Map([
      ['3', 'socket:[70]'],
      ['4', 'pipe:[71]'],
      ['5', 'socket:[72]'],
      ['6', 'socket:[73]'],
    ]);
    const address = ipAddress('::');
    const ports = [
      { protocol: 'udp', address, port: 1, inode: '72' },
      { protocol: 'tcp', address, port: 7000, inode: '70' },
      { protocol: 'tcp', address, port: 7001, inode: '71' },
    ] as const;
    assert.deepEqual(handedListeners(handed, links, ports), [
      { descriptor: 3, name: 'unknown', address, port: 7000 },
    ]);
  });
});
