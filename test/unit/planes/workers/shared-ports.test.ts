import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SharedPortArbiter } from '../../../../src/planes/workers/limit-broker.js';
import { ControlPortGate, type ControlApi } from '../../../../src/planes/workers/host.js';
import { expose, remote } from '../../../../src/planes/workers/rpc.js';
import { FakeClock } from '../../../support/fake-clock.js';
import { channelPair, turn } from './channel-pair.js';

class Lab {
  /** Every port tried, and what came of it; none: it may be listened on. */
  readonly tried: number[] = [];
  readonly verdicts = new Map<number, string>();
  readonly claims = new SharedPortArbiter((_address, port) => {
    this.tried.push(port);
    return Promise.resolve(this.verdicts.get(port));
  });

  worker(index: number): { gate: ControlPortGate; die: () => void; hangUp: () => void } {
    const { control, worker } = channelPair();
    const ports = this.claims.join(index, { inherit: () => undefined });
    expose<Pick<ControlApi, 'claim' | 'release'>>(control, ports);
    const api = remote<Pick<ControlApi, 'claim' | 'release'>>(
      worker,
      { claim: 1000, release: 'one-way' },
      { clock: new FakeClock() },
    );
    return { gate: new ControlPortGate(api), die: () => ports.left(), hangUp: () => worker.close() };
  }
}

const ADDRESS = '127.0.0.1';

void describe('SharedPortArbiter and ControlPortGate', () => {
  test('a port is tried for the first worker only, and again after all have left it', async () => {
    const lab = new Lab();
    const [one, two] = [lab.worker(0), lab.worker(1)];
    assert.equal(await one.gate.claim(ADDRESS, 80), undefined);
    assert.equal(await two.gate.claim(ADDRESS, 80), undefined);
    assert.deepEqual(lab.tried, [80]);
    one.gate.release(ADDRESS, 80);
    await turn();
    assert.equal(await one.gate.claim(ADDRESS, 80), undefined);
    one.gate.release(ADDRESS, 80);
    two.gate.release(ADDRESS, 80);
    await turn();
    assert.equal(await two.gate.claim(ADDRESS, 80), undefined);
    assert.deepEqual(lab.tried, [80, 80]);
  });

  test('two workers that ask at the same time get the verdict of one trial', async () => {
    const lab = new Lab();
    lab.verdicts.set(81, 'EADDRINUSE');
    const gates = [lab.worker(0).gate, lab.worker(1).gate];
    const asked = gates.flatMap((gate) => [80, 81, 82].map((port) => gate.claim(ADDRESS, port)));
    const expected = [undefined, 'EADDRINUSE', undefined];
    assert.deepEqual(await Promise.all(asked), [...expected, ...expected]);
    assert.deepEqual(lab.tried, [80, 81, 82]);
  });

  test('a port that could not be had is tried anew for whoever asks next', async () => {
    const lab = new Lab();
    lab.verdicts.set(80, 'EADDRINUSE');
    const { gate } = lab.worker(0);
    assert.equal(await gate.claim(ADDRESS, 80), 'EADDRINUSE');
    lab.verdicts.clear();
    assert.equal(await gate.claim(ADDRESS, 80), undefined);
  });

  test('an inherited socket goes to each worker untried, and is closed after the last of them', async () => {
    const lab = new Lab();
    const closed: number[] = [];
    const inherit = (port: number): void =>
      lab.claims.inherit([
        { protocol: 'tcp', address: ADDRESS, port, handle: {}, release: () => void closed.push(port) },
      ]);
    inherit(80);
    inherit(81);
    const [one, two] = [lab.worker(0), lab.worker(1)];
    assert.equal(await one.gate.claim(ADDRESS, 80), undefined);
    assert.equal(await two.gate.claim(ADDRESS, 80), undefined);
    assert.deepEqual(lab.tried, []);
    lab.claims.discard();
    assert.deepEqual(closed, [81], 'nobody wanted it');
    one.gate.release(ADDRESS, 80);
    await turn();
    assert.deepEqual(closed, [81]);
    two.die();
    await turn();
    assert.deepEqual(closed, [81, 80]);
    await one.gate.claim(ADDRESS, 80);
    assert.deepEqual(lab.tried, [80]);
  });

  test('a worker that dies leaves its ports', async () => {
    const lab = new Lab();
    const [one, two] = [lab.worker(0), lab.worker(1)];
    await one.gate.claim(ADDRESS, 80);
    await one.gate.claim(ADDRESS, 81);
    await two.gate.claim(ADDRESS, 81);
    one.die();
    await turn();
    const three = lab.worker(0);
    await three.gate.claim(ADDRESS, 80);
    await three.gate.claim(ADDRESS, 81);
    assert.deepEqual(lab.tried, [80, 81, 80]);
  });

  test('a claim that the control process did not live to answer is refused', async () => {
    const lab = new Lab();
    const { gate, hangUp } = lab.worker(0);
    const claim = gate.claim(ADDRESS, 80);
    await Promise.resolve();
    hangUp();
    assert.equal(await claim, 'EPIPE');
  });
});
