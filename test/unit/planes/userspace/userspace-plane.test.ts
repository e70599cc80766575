import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { after, describe, test } from 'node:test';
import { ownAddresses, rendezvousOwner } from '../../../../src/planes/userspace/listen-plan.js';
import { UserspacePlane } from '../../../../src/planes/userspace/plane.js';
import { ipAddress } from '../../../../src/model/address.js';
import type { PlaneEvent } from '../../../../src/model/events.js';
import type { ForwardingState } from '../../../../src/model/forwarding.js';
import { portSetOf, type PortSet } from '../../../../src/model/ports.js';
import { createHasher } from '../../../../src/selection/flow-hash.js';
import { eventually, within } from '../../../support/deadline.js';
import { FakeClock } from '../../../support/fake-clock.js';
import { testState, type RuleParts } from '../../../support/forwarding-state.js';
import { loopbackBlock } from '../../../support/loopback.js';
import { TcpClient } from '../../../support/tcp-client.js';
import { UdpClient } from '../../../support/udp-client.js';

const hash = await createHasher();
const host = loopbackBlock();
const RETRY_MS = 10_000;
/** Taken on every address of the machine: by this test process alone. */
const WIDE_PORT = 20_000 + (process.pid % 10_000);

const planes: UserspacePlane[] = [];
const servers: Server[] = [];

after(async () => {
  await Promise.all(planes.map((plane) => plane.stop(0)));
  for (const server of servers) server.close();
});

interface Lab {
  readonly clock: FakeClock;
  readonly plane: UserspacePlane;
}

function lab(): Lab {
  const clock = new FakeClock();
  const plane = new UserspacePlane(
    { clock, hash, ownAddresses },
    { flowEvents: false, worker: 0, workers: 1 },
  );
  planes.push(plane);
  return { clock, plane };
}

/** Listens on these TCP ports of host(1); the backend is host(11), where nothing answers. */
function state(
  ports: PortSet,
  overrides: {
    rule?: RuleParts;
    digest?: string;
    revision?: number;
    backend?: string;
    frontend?: string;
  } = {},
): ForwardingState {
  const { backend = host(11), frontend = host(1), rule, ...rest } = overrides;
  return testState({
    ...{ backends: [backend], frontend: { address: ipAddress(frontend) }, ...rest },
    rule: { protocols: ['tcp'], ports, ...rule },
  });
}

/** Another process has the port. */
async function occupy(port: number): Promise<Server> {
  const server = createServer().listen({ host: host(1), port, exclusive: true });
  servers.push(server);
  await once(server, 'listening');
  return server;
}

async function answers(port: number): Promise<boolean> {
  try {
    const client = await TcpClient.connect({ host: host(1), port });
    client.socket.destroy();
    return true;
  } catch {
    return false;
  }
}

function listeningSockets(): number {
  return process.getActiveResourcesInfo().filter((name) => name === 'TCPServerWrap' || name === 'UDPWRAP')
    .length;
}

describe('UserspacePlane before its start', () => {
  test('it has no flows, no counters and nothing to stop, and says so without throwing', async () => {
    const { plane, clock } = lab();
    assert.equal(plane.flowCount(), 0);
    assert.deepEqual(await plane.flows({ limit: 10 }), { flows: [] });
    const counters = plane.counters();
    await assert.rejects(counters, { name: 'TypeError', message: /not been started/ });
    await assert.rejects(plane.apply(state(portSetOf(7000))), { message: /not been started/ });
    await assert.rejects(plane.prepare(state(portSetOf(7000))), { message: /not been started/ });
    await plane.answer();
    assert.deepEqual(await plane.stop(1000), { finished: 0, reset: 0 });
    assert.equal(clock.pendingTimers, 0);
  });
});

describe('UserspacePlane.start()', () => {
  test('start() rejects where not one port can be bound, and leaves nothing behind', async () => {
    await occupy(7100);
    await occupy(7101);
    const before = listeningSockets();
    const { plane, clock } = lab();
    await assert.rejects(plane.start(state(portSetOf(7100, 7101))), {
      name: 'BalancerError',
      code: 'LB_LISTEN_FAILED',
      source: 'system',
      message: `Cannot listen on any of 2 ports, first tcp ${host(1)} port 7100: EADDRINUSE`,
    });
    await eventually(() => listeningSockets() <= before, 5000, 'no socket after a start that failed');
    assert.equal(clock.pendingTimers, 0);
  });

  test('start() tells of ports that are taken, serves the others, and has them when they are free', async () => {
    const other = await occupy(7111);
    const { plane, clock } = lab();
    const report = await plane.start(state([{ first: 7110, last: 7112 }]));
    assert.deepEqual(report, {
      revision: 1,
      listeners: { tcp: 2, udp: 0 },
      failures: [
        { rule: 'ha-ports', protocol: 'tcp', address: host(1), port: 7111, errorCode: 'EADDRINUSE' },
      ],
    });
    assert.deepEqual((await plane.counters()).listeners, { hub: { open: 2, wanted: 3 } });
    assert.deepEqual([await answers(7110), await answers(7112)], [true, true]);

    // A probe result with the same configuration does not try again.
    other.close();
    await once(other, 'close');
    const applied = await plane.apply(state([{ first: 7110, last: 7112 }], { revision: 2 }));
    assert.deepEqual(applied, { ...report, revision: 2 });

    const told: PlaneEvent[] = [];
    plane.subscribe((events) => told.push(...events));
    clock.advance(RETRY_MS);
    await eventually(async () => (await plane.counters()).listeners['hub']?.open === 3, 5000, 'the retry');
    assert.equal(await answers(7111), true);
    clock.advance(1000);
    assert.deepEqual(
      told.filter(({ type }) => type === 'listening-changed').map((event) => ({ ...event, atMs: 0 })),
      [{ type: 'listening-changed', atMs: 0, worker: 0, listeners: { tcp: 3, udp: 0 }, failures: 0 }],
    );
    const later = await plane.apply(state([{ first: 7110, last: 7112 }], { revision: 3 }));
    assert.deepEqual(later.failures, []);
    assert.equal(later.listeners.tcp, 3);
  });

  test('start() without a wanted port is no failure', async () => {
    const { plane } = lab();
    assert.deepEqual((await plane.start(state([]))).listeners, { tcp: 0, udp: 0 });
  });
});

describe('UserspacePlane.apply()', () => {
  test('applies are served one after another, the last one wins', async () => {
    const { plane } = lab();
    await plane.start(state(portSetOf(7140)));
    const reports = await Promise.all(
      [7141, 7142, 7143].map((port, index) =>
        plane.apply(state(portSetOf(port), { digest: String(index).repeat(64), revision: index + 2 })),
      ),
    );
    assert.deepEqual(
      reports.map(({ revision, listeners }) => `revision ${revision}: ${listeners.tcp}`),
      ['revision 2: 1', 'revision 3: 1', 'revision 4: 1'],
    );
    assert.deepEqual(
      [await answers(7140), await answers(7141), await answers(7142), await answers(7143)],
      [false, false, false, true],
    );
  });
});

describe('UserspacePlane.apply() whole or not at all', () => {
  const other = (ports: PortSet, { frontend = host(1), revision = 2, digest = 'b'.repeat(64) } = {}) =>
    state(ports, { frontend, revision, digest });

  test('another process on one of the addresses keeps a wildcard frontend out, and the old one stays', async () => {
    const { plane } = lab();
    await plane.start(state(portSetOf(WIDE_PORT)));
    const foreign = createServer().listen({ host: host(2), port: WIDE_PORT, exclusive: true });
    servers.push(foreign);
    await once(foreign, 'listening');
    await assert.rejects(plane.apply(other(portSetOf(WIDE_PORT), { frontend: '0.0.0.0' })), {
      code: 'LB_LISTEN_FAILED',
    });
    assert.equal(await answers(WIDE_PORT), true);
    assert.deepEqual((await plane.counters()).listeners, { hub: { open: 1, wanted: 1 } });
  });

  test('who connects to what is only prepared waits, and is served once it is applied', async () => {
    const { plane } = lab();
    await plane.start(state(portSetOf(7240)));
    const backend = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.on('data', (data) => socket.write(`served: ${String(data)}`));
    }).listen({ host: host(12), port: 7241 });
    servers.push(backend);
    await once(backend, 'listening');
    const changed = { backend: host(12), digest: 'b'.repeat(64), revision: 2, rule: { name: 'new' } };
    const next = state(portSetOf(7240, 7241), changed);
    await plane.prepare(next);
    const client = await TcpClient.connect({ host: host(1), port: 7241 });
    let answered = false;
    const answer = client.ask('hello').then((line) => {
      answered = true;
      return line;
    });
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(answered, false);
    assert.equal(plane.flowCount(), 0);
    await plane.apply(next);
    assert.equal(await answer, 'served: hello');
    client.destroy();
  });

  test('who leaves again before it is applied leaves nothing behind', async () => {
    const { plane } = lab();
    await plane.start(state(portSetOf(7242)));
    const next = other(portSetOf(7242, 7243));
    await plane.prepare(next);
    const client = await TcpClient.connect({ host: host(1), port: 7243 });
    client.socket.resetAndDestroy();
    await new Promise((resolve) => setTimeout(resolve, 20));
    await plane.apply(next);
    await eventually(() => plane.flowCount() === 0, 5000, 'no flow');
  });

  test('a datagram to what is only prepared waits too, and the first of many only', async () => {
    const { plane, clock } = lab();
    const udp = (ports: PortSet, digest: string, revision: number): ForwardingState =>
      state(ports, {
        ...{ backend: host(12), digest: digest.repeat(64), revision },
        rule: { protocols: ['udp'] },
      });
    await plane.start(udp(portSetOf(7245), 'a', 1));
    const echo = createSocket('udp4').bind({ address: host(12), port: 7246 });
    echo.on('message', (datagram, { address, port }) => echo.send(datagram, port, address));
    await once(echo, 'listening');
    await plane.prepare(udp(portSetOf(7245, 7246), 'b', 2));
    const client = await UdpClient.open({ host: host(1), port: 7246 });
    const answer = client.ask(3000);
    for (let i = 0; i < 200; i++) client.send(`more ${i}`);
    // Each turn of the event loop reads up to 32 datagrams; after a time alone, none may have been read.
    for (let turn = 0; turn < 100; turn++) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(plane.flowCount(), 0);
    await plane.apply(udp(portSetOf(7245, 7246), 'b', 2));
    assert.ok((await answer) !== undefined);
    const row = (await plane.counters()).traffic.find(({ protocol }) => protocol === 'udp');
    assert.equal(row?.packetsToBackend, 64);
    // Thrown away with what was prepared.
    await plane.prepare(udp(portSetOf(7245, 7247), 'c', 3));
    const late = await UdpClient.open({ host: host(1), port: 7247 });
    assert.equal(await late.ask(50), undefined);
    await plane.apply(udp(portSetOf(7245, 7246), 'b', 4));
    await plane.apply(udp(portSetOf(7245, 7247), 'c', 5));
    assert.equal(plane.flowCount(), 1);
    clock.advance(60_000);
    for (const one of [client, late]) one.close();
    echo.close();
  });

  test('what was prepared is closed again by an apply of the present configuration', async () => {
    const { plane } = lab();
    await plane.start(state(portSetOf(7250)));
    const next = other(portSetOf(7250, 7251));
    await plane.prepare(next);
    await plane.prepare(next);
    const waits = await TcpClient.connect({ host: host(1), port: 7251 });
    await plane.apply(state(portSetOf(7250), { revision: 2 }));
    assert.equal(await waits.ended(), 'reset');
    assert.equal(await answers(7251), false);
    const twice = await plane.apply({ ...next, revision: 3 });
    assert.equal(twice.listeners.tcp, 2);
  });
});

describe('UserspacePlane.stop()', () => {
  test('stop() frees every port and leaves no timer', async () => {
    const { plane, clock } = lab();
    const both = { rule: { protocols: ['tcp', 'udp'] } } as const;
    await plane.start(state([{ first: 7150, last: 7169 }], both));
    assert.deepEqual(await plane.stop(5000), { finished: 0, reset: 0 });
    assert.equal(clock.pendingTimers, 0);
    const next = lab();
    const report = await next.plane.start(state([{ first: 7150, last: 7169 }], both));
    assert.deepEqual(report.listeners, { tcp: 20, udp: 20 });
    assert.deepEqual(report.failures, []);
  });

  test('stop() during a start or an apply leaves no socket behind', async () => {
    const before = listeningSockets();
    const many: PortSet = [{ first: 10_000, last: 11_999 }];
    const starting = lab();
    const start = starting.plane.start(state(many));
    await starting.plane.stop(0);
    await within(start, 5000, 'the start that was cut off');
    await eventually(() => listeningSockets() <= before, 5000, 'no socket after a start that was cut off');

    const applying = lab();
    await applying.plane.start(state(portSetOf(9999)));
    const apply = applying.plane.apply(state(many, { digest: 'b'.repeat(64), revision: 2 }));
    await new Promise((resolve) => setImmediate(resolve));
    await applying.plane.stop(0);
    await within(apply, 5000, 'the apply that was cut off');
    await eventually(() => listeningSockets() <= before, 5000, 'no socket after an apply that was cut off');
    assert.equal(starting.clock.pendingTimers + applying.clock.pendingTimers, 0);
  });

  test('stop() may be called again, and an apply after it changes nothing', async () => {
    const { plane } = lab();
    await plane.start(state(portSetOf(7170)));
    const reports = await Promise.all([plane.stop(5000), plane.stop(0), plane.stop(0, 'at-once')]);
    assert.deepEqual(reports, [
      { finished: 0, reset: 0 },
      { finished: 0, reset: 0 },
      { finished: 0, reset: 0 },
    ]);
    const late = await plane.apply(state(portSetOf(7171), { digest: 'b'.repeat(64), revision: 2 }));
    assert.equal(late.revision, 2);
    assert.deepEqual([await answers(7170), await answers(7171)], [false, false]);
  });
});

describe('UserspacePlane as one of two workers', () => {
  test('a datagram from an endpoint that the other worker listens on is dropped and counted', async (t) => {
    const ownerOf = rendezvousOwner(hash, 2);
    const address = ipAddress(host(1));
    const portOf = (worker: number): number => {
      for (let port = 7000; ; port++) if (ownerOf(address, port) === worker) return port;
    };
    const plane = new UserspacePlane(
      { clock: new FakeClock(), hash, ownAddresses },
      { flowEvents: false, worker: 0, workers: 2 },
    );
    t.after(() => plane.stop(0));
    await plane.start(state([{ first: 7000, last: 7031 }], { rule: { protocols: ['udp'] } }));
    // The other worker's socket, if there were one.
    const other = createSocket('udp4').bind({ address: host(1), port: portOf(1) });
    t.after(() => other.close());
    await once(other, 'listening');
    other.send('loop', portOf(0), host(1));
    await eventually(
      async () => (await plane.counters()).arrivals[0]?.drops['own-listener'] === 1,
      3000,
      'the drop',
    );
    assert.equal(plane.flowCount(), 0);
  });
});
