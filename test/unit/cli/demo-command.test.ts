import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { describe, test } from 'node:test';
import { within } from '../../support/deadline.js';
import { labConfig } from '../../support/lab-config.js';
import { loopbackBlock } from '../../support/loopback.js';
import { BalancerError } from '../../../src/model/errors.js';
import { FakeDeps } from './fake-deps.js';

const host = loopbackBlock();
const PORT = 7000;

/** Whether a sample NVA answers there. */
function isUp(number: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: host(number), port: PORT });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

async function nvasUp(): Promise<readonly boolean[]> {
  return Promise.all([isUp(11), isUp(12)]);
}

function lab(): FakeDeps {
  const deps = new FakeDeps();
  deps.files.set('demo.json', labConfig(host, { listenPorts: String(PORT), backends: 2 }));
  return deps;
}

describe('haports demo', () => {
  test('demo has NVAs before the balancer, then what to try, and NVAs until the balancer has stopped', async () => {
    const deps = lab();
    let upAtStart: readonly boolean[] = [];
    let printedAtStart = '';
    let started: () => void = () => undefined;
    const starting = new Promise<void>((resolve) => (started = resolve));
    deps.onStart = async () => {
      upAtStart = await nvasUp();
      printedAtStart = deps.stdout;
      setImmediate(started);
      return deps.balancer;
    };
    const exit = deps.run('demo', '-c', 'demo.json');
    await within(starting, 20_000, 'the start of the demo');
    assert.deepEqual(upAtStart, [true, true]);
    assert.equal(printedAtStart, '', 'nothing is promised before it works');
    assert.ok(deps.stdout.includes(`${host(1)} ${PORT}`), deps.stdout);
    assert.match(deps.stdout, /explain -c demo\.json/);

    deps.signal('SIGINT');
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(deps.balancer.stops, [{ cause: 'SIGINT', deadlineMs: 1000 }]);
    assert.deepEqual(await nvasUp(), [true, true], 'flows are finishing');
    deps.balancer.stopped();
    assert.equal(await within(exit, 10_000, 'the end of the demo'), 0);
    assert.deepEqual(await nvasUp(), [false, false]);
    assert.equal(deps.signalListeners, 0);
  });

  test('demo leaves no NVA behind if the balancer cannot start', async () => {
    const deps = lab();
    deps.onStart = () =>
      Promise.reject(new BalancerError('Cannot listen', { code: 'LB_LISTEN_FAILED', source: 'system' }));
    assert.equal(await within(deps.run('demo', '-c', 'demo.json'), 20_000, 'the end of the demo'), 1);
    assert.equal(deps.stderr, 'haports: LB_LISTEN_FAILED: Cannot listen\n');
    assert.equal(deps.stdout, '');
    assert.deepEqual(await nvasUp(), [false, false]);
  });

  test('demo runs the bundled configuration without -c', async () => {
    const deps = new FakeDeps();
    deps.files.set('bundled.json', '{ "no": "configuration" }');
    assert.equal(await deps.run('demo'), 2);
    assert.deepEqual(deps.loaded, ['bundled.json']);
    assert.match(deps.stderr, /^bundled\.json:1:\d+: error LB_/);
    assert.deepEqual(deps.started, []);
  });
});
