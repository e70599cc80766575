import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { BackendCaps, WorkerCaps } from '../../../src/flows/caps.js';
import { testState } from '../../support/forwarding-state.js';

const WORKERS = 3;

describe('WorkerCaps', () => {
  test('shareOf() is the whole cap for one worker, and equal parts for several until told otherwise', () => {
    assert.equal(new WorkerCaps({ worker: 0, workers: 1 }).shareOf('tcp', 7), 7);
    const shares = Array.from({ length: WORKERS }, (_, worker) =>
      new WorkerCaps({ worker, workers: WORKERS }).shareOf('tcp', 7),
    );
    assert.deepEqual(shares, [3, 2, 2]);
  });

  test('shareOf() of a cap that has changed is never more than it was, nor than an equal part', () => {
    const caps = new WorkerCaps({ worker: 0, workers: 2 });
    caps.allow(new Map([['tcp', { cap: 100, share: 80 }]]));
    assert.equal(caps.shareOf('tcp', 100), 80);
    assert.equal(caps.shareOf('tcp', 10), 5);
    assert.equal(caps.shareOf('tcp', 1000), 80);
    assert.equal(caps.shareOf('udp', 10), 5);
  });
});

describe('BackendCaps of a share', () => {
  test('a share of nothing excludes the backend, and who asked for it is known once', () => {
    const caps = new BackendCaps();
    const id = 'nvas/10.0.0.1';
    const backends = [{ address: '10.0.0.1', backend: { maxConnections: 2 } }];
    caps.setCaps(testState({ backends }).configuration.backendPools, () => 0);
    assert.deepEqual(caps.uses().get(id), { used: 0, wanting: false });
    assert.deepEqual([...caps.excluded(new Set())], [id]);
    assert.deepEqual(caps.uses().get(id), { used: 0, wanting: true });
    assert.deepEqual(caps.uses().get(id), { used: 0, wanting: false });
  });
});
