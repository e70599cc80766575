import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { ipAddress } from '../../../../src/model/address.js';
import type { PlaneEvent } from '../../../../src/model/events.js';
import { parsePortSet, portSetOf, type PortSet } from '../../../../src/model/ports.js';
import {
  OwnPorts,
  SourcePorts,
  type SourcePortRequest,
} from '../../../../src/planes/userspace/source-ports.js';
import { FakeClock } from '../../../support/fake-clock.js';

const TEN: PortSet = [{ first: 1001, last: 1010 }];

function request(overrides: Partial<SourcePortRequest> = {}): SourcePortRequest {
  return {
    protocol: 'tcp',
    backendId: 'nvas/10.0.0.2',
    source: ipAddress('10.0.0.1'),
    destination: ipAddress('10.0.0.2'),
    destinationPort: 80,
    ports: TEN,
    ...overrides,
  };
}

function make(random = 0) {
  const clock = new FakeClock();
  const events: PlaneEvent[] = [];
  const ports = new SourcePorts({
    clock,
    events: { push: (event) => events.push(event) },
    random: () => random,
  });
  const levels = (): string[] =>
    events.map((event) =>
      event.type === 'source-port-pressure'
        ? `${event.pressure} ${event.used}/${event.available}`
        : event.type,
    );
  return { clock, ports, events, levels };
}

const times = (count: number): number[] => Array.from({ length: count }, (_, index) => index);

describe('SourcePorts', () => {
  test('take() gives each port once and then none', () => {
    const { ports } = make();
    const taken = times(10).map(() => ports.take(request()));
    assert.deepEqual(
      taken,
      times(10).map((index) => 1001 + index),
    );
    assert.equal(ports.take(request()), undefined);
  });

  test('take() walks over all ranges of the set, from a random start', () => {
    const { ports } = make(0.5);
    const set = portSetOf(7, 20, 21, 4000);
    assert.deepEqual(
      times(5).map(() => ports.take(request({ ports: set }))),
      [21, 4000, 7, 20, undefined],
    );
  });

  test('take() gives the same port for another destination, port, source or protocol', () => {
    const { ports } = make();
    const others = [
      request(),
      request({ destination: ipAddress('10.0.0.3') }),
      request({ destinationPort: 81 }),
      request({ source: ipAddress('10.0.0.9') }),
      request({ protocol: 'udp' }),
    ];
    assert.deepEqual(
      others.map((other) => ports.take(other)),
      [1001, 1001, 1001, 1001, 1001],
    );
  });

  test('take() passes over a released UDP port for 5 s, even when no other is left', () => {
    const { ports, clock } = make();
    const udp = request({ protocol: 'udp' });
    times(10).forEach(() => ports.take(udp));
    ports.release(udp, 1004);
    clock.advance(4_999);
    assert.equal(ports.take(udp), undefined);
    clock.advance(1);
    assert.equal(ports.take(udp), 1004);
  });

  test('take() passes over a released TCP port for 60 s while others are free', () => {
    const { ports, clock } = make();
    const first = ports.take(request());
    assert.ok(first !== undefined);
    ports.release(request(), first);
    // Once round and back to the port after it: the released one is not among them.
    for (const index of times(9)) assert.equal(ports.take(request()), 1002 + index);
    times(8).forEach((index) => ports.release(request(), 1002 + index));
    clock.advance(59_999);
    assert.equal(ports.uses()[0]?.used, 10);
    clock.advance(1);
    assert.equal(ports.uses()[0]?.used, 1);
    assert.equal(ports.take(request()), 1001);
  });

  test('take() gives out the TCP port that rested longest when no other is left, after a second', () => {
    const { ports, clock } = make();
    times(10).forEach(() => ports.take(request()));
    ports.release(request(), 1007);
    clock.advance(10);
    ports.release(request(), 1003);
    assert.equal(ports.take(request()), undefined);
    clock.advance(990);
    assert.equal(ports.take(request()), 1007);
    assert.equal(ports.take(request()), undefined);
    clock.advance(10);
    assert.equal(ports.take(request()), 1003);
  });

  test('take() never gives a port that would make the socket meet itself', () => {
    const { ports } = make();
    const own = ipAddress('10.0.0.1');
    const loop = request({ source: own, destination: own, destinationPort: 1002 });
    const taken = times(10).map(() => ports.take(loop));
    assert.deepEqual(taken, [1001, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010, undefined]);
  });

  test('release() ignores what is not taken', () => {
    const { ports } = make();
    ports.release(request(), 1001);
    ports.take(request());
    ports.release(request(), 1001);
    ports.release(request(), 1001);
    assert.equal(ports.uses()[0]?.used, 1);
  });

  test('tells high at 75 %, exhausted when none is left, normal again below 70 %', () => {
    const { ports, clock, levels, events } = make();
    const udp = request({ protocol: 'udp' });
    times(7).forEach(() => ports.take(udp));
    assert.deepEqual(levels(), []);
    ports.take(udp);
    assert.deepEqual(levels(), ['high 8/10']);
    times(2).forEach(() => ports.take(udp));
    assert.deepEqual(levels(), ['high 8/10']);
    ports.take(udp);
    ports.take(udp);
    assert.deepEqual(levels(), ['high 8/10', 'exhausted 10/10']);
    times(4).forEach((index) => ports.release(udp, 1001 + index));
    assert.equal(levels().length, 2);
    clock.advance(5_000);
    ports.uses();
    assert.deepEqual(levels().slice(2), ['normal 6/10']);
    const [first] = events;
    assert.ok(first?.type === 'source-port-pressure');
    assert.equal(first.backendId, 'nvas/10.0.0.2');
    assert.equal(first.sourceAddress, '10.0.0.1');
  });

  test('tells a level once for all ports of a backend', () => {
    const { ports, clock, levels } = make();
    const http = request({ protocol: 'udp' });
    const https = request({ protocol: 'udp', destinationPort: 443 });
    times(8).forEach(() => ports.take(http));
    times(8).forEach(() => ports.take(https));
    assert.deepEqual(levels(), ['high 8/10']);
    times(8).forEach((index) => ports.release(http, 1001 + index));
    clock.advance(5_000);
    ports.uses();
    assert.deepEqual(levels(), ['high 8/10'], 'the other port still is high');
    times(8).forEach((index) => ports.release(https, 1001 + index));
    clock.advance(5_000);
    ports.uses();
    assert.deepEqual(levels(), ['high 8/10', 'normal 0/10']);
  });

  test('uses() tells the port of a backend that is nearest to running out', () => {
    const { ports } = make();
    times(2).forEach(() => ports.take(request()));
    times(5).forEach(() => ports.take(request({ destinationPort: 443 })));
    ports.take(request({ destinationPort: 22 }));
    assert.deepEqual(ports.uses(), [
      { backendId: 'nvas/10.0.0.2', protocol: 'tcp', sourceAddress: '10.0.0.1', used: 5, available: 10 },
    ]);
  });

  test('forgets destinations that hold nothing', () => {
    const { ports, clock } = make();
    for (const index of times(1000)) {
      const one = request({ destinationPort: 1 + index });
      const port = ports.take(one);
      assert.ok(port !== undefined);
      ports.release(one, port);
    }
    assert.equal(ports.uses().length, 1);
    clock.advance(60_000);
    assert.deepEqual(ports.uses(), []);
  });

  test('goes over to another port set after a reload', () => {
    const { ports } = make();
    times(10).forEach(() => ports.take(request()));
    const moved: PortSet = [{ first: 1010, last: 1012 }];
    const taken = times(3).map(() => ports.take(request({ ports: moved })));
    assert.deepEqual(taken, [1011, 1012, undefined], '1010 is still in use');
    ports.release(request({ ports: moved }), 1001);
    assert.equal(ports.uses()[0]?.available, 3);
  });

  test('pools with one backend and other ports never share a port towards it', () => {
    const { ports } = make();
    const first = request();
    const second = request({ backendId: 'other/10.0.0.2', ports: [{ first: 1005, last: 1014 }] });
    const taken = [first, second, first, second].flatMap((one) => times(5).map(() => ports.take(one)));
    const given = taken.filter((port) => port !== undefined);
    assert.equal(new Set(given).size, given.length, given.join(' '));
    assert.equal(given.length, 14, 'all of both sets');
    assert.deepEqual(
      ports.uses().map(({ backendId, used, available }) => [backendId, used, available]),
      [
        ['nvas/10.0.0.2', 10, 10],
        ['other/10.0.0.2', 10, 10],
      ],
    );
    ports.release(second, 1005);
    assert.equal(ports.take(first), undefined, 'it rests, whichever pool had it');
  });
});

describe('SourcePorts of several workers', () => {
  test('never give out the same port, and have all of them together', () => {
    const taken = times(3).flatMap((worker) => {
      const events = { push: () => undefined };
      const ports = new SourcePorts({ clock: new FakeClock(), events }, { worker, workers: 3 });
      const own = times(11).flatMap(() => ports.take(request()) ?? []);
      assert.equal(ports.uses()[0]?.available, own.length);
      return own;
    });
    assert.deepEqual(
      taken.sort((a, b) => a - b),
      times(10).map((index) => 1001 + index),
    );
  });
});

const set = (text: string): PortSet => parsePortSet(text) ?? assert.fail(text);

const ownOf = (ports: PortSet, worker: number, workers: number): readonly number[] => {
  const own = new OwnPorts(ports, { worker, workers });
  return times(own.size).map((offset) => own.at(offset));
};

describe('pools with the same backend', () => {
  test('never give out one port twice, whatever source ports each has, over several workers', () => {
    const [wide, narrow] = [set('1001-1040'), set('1021-1030')];
    const taken = times(2).flatMap((worker) => {
      const ports = new SourcePorts(
        { clock: new FakeClock(), events: { push: () => undefined } },
        { worker, workers: 2 },
      );
      const take = (backendId: string, from: PortSet, count: number) =>
        times(count).flatMap(() => ports.take(request({ protocol: 'udp', backendId, ports: from })) ?? []);
      return [...take('narrow/a', narrow, 5), ...take('wide/a', wide, 20)];
    });
    assert.equal(new Set(taken).size, taken.length);
    assert.equal(taken.length, 40);
  });
});

describe('OwnPorts', () => {
  test('OwnPorts are those whose remainder is the number of the worker, through all ranges', () => {
    const parts = [0, 1, 2].map((worker) => ownOf(set('10-12,20,30-34'), worker, 3));
    assert.deepEqual(parts, [
      [12, 30, 33],
      [10, 31, 34],
      [11, 20, 32],
    ]);
  });

  test('OwnPorts gives each port to exactly one worker, the same in every set', () => {
    const ports = fc.uniqueArray(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 120 });
    fc.assert(
      fc.property(ports, ports, fc.integer({ min: 1, max: 9 }), (some, others, workers) => {
        const owners = (list: readonly number[]) =>
          new Map(
            times(workers).flatMap((worker) =>
              ownOf(portSetOf(...list), worker, workers).map((port) => [port, worker]),
            ),
          );
        const [a, b] = [owners(some), owners(others)];
        assert.deepEqual(
          [...a.keys()].sort((x, y) => x - y),
          some.toSorted((x, y) => x - y),
        );
        for (const [port, worker] of a) if (b.has(port)) assert.equal(b.get(port), worker);
        for (const [port, worker] of a) {
          const own = new OwnPorts(portSetOf(...some), { worker, workers });
          assert.ok(own.has(port));
          assert.ok(!own.has(port + 1) || workers === 1);
        }
      }),
    );
  });
});
