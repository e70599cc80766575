import assert from 'node:assert/strict';
import { networkInterfaces } from 'node:os';
import { describe, test } from 'node:test';
import { lookUpRoute, RouteSource } from '../../../../src/planes/userspace/source-address.js';
import { ipAddress, isLoopback, type IpAddress } from '../../../../src/model/address.js';
import { localCandidates } from '../../../../src/runtime/machine.js';
import { FakeClock } from '../../../support/fake-clock.js';

const HOST = ipAddress('10.0.0.2');

function systemError(code: string): Error {
  return Object.assign(new Error(code), { code });
}

describe('lookUpRoute()', () => {
  test('finds the loopback address the kernel would use', async () => {
    assert.equal((await lookUpRoute(ipAddress('127.0.0.11'))).text, '127.0.0.1');
    assert.equal((await lookUpRoute(ipAddress('::1'))).text, '::1');
  });

  test('finds an own address as its own source', async (t) => {
    const own = Object.values(networkInterfaces())
      .flatMap((addresses) => addresses ?? [])
      .find(({ internal, family }) => !internal && family === 'IPv4');
    if (own === undefined) {
      t.skip('this machine has no IPv4 address but loopback');
      return;
    }
    assert.equal((await lookUpRoute(ipAddress(own.address))).text, own.address);
  });

  test('rejects where there is no route', async () => {
    // 255.255.255.255 needs SO_BROADCAST, which is not set: EACCES on every Linux.
    await assert.rejects(lookUpRoute(ipAddress('255.255.255.255')));
  });
});

describe('RouteSource', () => {
  test('sourceFor() asks once in 30 s, also when asked at the same time', async () => {
    const clock = new FakeClock();
    let asked = 0;
    const routes = new RouteSource({
      clock,
      lookUp: () => Promise.resolve(ipAddress(`10.0.0.${++asked}`)),
    });
    assert.equal(routes.known(HOST), undefined);
    const [a, b] = await Promise.all([routes.sourceFor(HOST), routes.sourceFor(HOST)]);
    assert.equal(a.text, '10.0.0.1');
    assert.equal(b.text, '10.0.0.1');
    clock.advance(29_999);
    assert.equal((await routes.sourceFor(HOST)).text, '10.0.0.1');
    assert.equal(routes.known(HOST)?.text, '10.0.0.1');
    clock.advance(1);
    assert.equal(routes.known(HOST), undefined);
    assert.equal((await routes.sourceFor(HOST)).text, '10.0.0.2');
    assert.equal(asked, 2);
  });

  test('sourceFor() passes on that there is no route and asks again next time', async () => {
    let asked = 0;
    const routes = new RouteSource({
      clock: new FakeClock(),
      lookUp: () => {
        asked++;
        return Promise.reject(systemError('ENETUNREACH'));
      },
    });
    await assert.rejects(routes.sourceFor(HOST), { code: 'ENETUNREACH' });
    await assert.rejects(routes.sourceFor(HOST), { code: 'ENETUNREACH' });
    assert.equal(asked, 2);
  });

  test('sourceFor() keeps to its last answer when the system has no port to ask with', async () => {
    const clock = new FakeClock();
    let answer: () => Promise<IpAddress> = () => Promise.resolve(ipAddress('10.0.0.1'));
    const routes = new RouteSource({ clock, lookUp: () => answer() });
    await routes.sourceFor(HOST);
    clock.advance(60_000);
    answer = () => Promise.reject(systemError('EADDRINUSE'));
    assert.equal((await routes.sourceFor(HOST)).text, '10.0.0.1');
    assert.equal(routes.known(HOST)?.text, '10.0.0.1');
  });

  test('learn() asks ahead, and what has no route does not keep it from the others', async () => {
    const asked: string[] = [];
    const routes = new RouteSource({
      clock: new FakeClock(),
      lookUp: ({ text }) => {
        asked.push(text);
        if (text === '10.0.0.7') return Promise.reject(systemError('ENETUNREACH'));
        return Promise.resolve(ipAddress('10.0.0.1'));
      },
    });
    const many = Array.from({ length: 200 }, (_, index) => ipAddress(`10.0.0.${1 + index}`));
    await routes.learn(many);
    assert.equal(asked.length, 200);
    assert.deepEqual(
      many.filter((one) => routes.known(one) === undefined).map(({ text }) => text),
      ['10.0.0.7'],
    );
  });

  test('hasPorts() is false for 30 s after the kernel had no port, and only for that destination', () => {
    const clock = new FakeClock();
    const routes = new RouteSource({ clock });
    const other = ipAddress('10.0.0.3');
    assert.ok(routes.hasPorts(HOST));
    routes.foundNoPort(HOST);
    clock.advance(29_999);
    assert.deepEqual([routes.hasPorts(HOST), routes.hasPorts(other)], [false, true]);
    clock.advance(1);
    assert.ok(routes.hasPorts(HOST));
  });

  test('sourceFor() falls back on loopback for loopback, and rejects where it knows nothing', async () => {
    const routes = new RouteSource({
      clock: new FakeClock(),
      lookUp: () => Promise.reject(systemError('EADDRINUSE')),
      candidates: (destination) => (isLoopback(destination) ? localCandidates(destination) : []),
    });
    assert.equal((await routes.sourceFor(ipAddress('127.0.0.11'))).text, '127.0.0.1');
    assert.equal((await routes.sourceFor(ipAddress('::1'))).text, '::1');
    await assert.rejects(routes.sourceFor(ipAddress('203.0.113.250')), { code: 'EADDRINUSE' });
  });
});
