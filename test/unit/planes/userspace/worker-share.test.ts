import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { before, describe, test } from 'node:test';
import { BackendCaps, WorkerCaps } from '../../../../src/flows/caps.js';
import { ruleSlots } from '../../../../src/flows/flow.js';
import type { PortGate } from '../../../../src/planes/contract.js';
import { HandoverState } from '../../../../src/planes/userspace/handover-state.js';
import {
  ListenerManager,
  type Listener,
  type ListenerFactory,
} from '../../../../src/planes/userspace/listeners.js';
import {
  ownAddresses,
  planListeners,
  rendezvousOwner,
  udpEndpoints,
  type PlanShare,
} from '../../../../src/planes/userspace/listen-plan.js';
import { SourcePorts } from '../../../../src/planes/userspace/source-ports.js';
import { UserspacePlane } from '../../../../src/planes/userspace/plane.js';
import { ipAddress, type Protocol } from '../../../../src/model/address.js';
import {
  ALL_PORTS,
  formatPortSet,
  parsePortSet,
  portSetOf,
  portsOf,
  type PortSet,
} from '../../../../src/model/ports.js';
import { createHasher, type Hash32 } from '../../../../src/selection/flow-hash.js';
import { eventually } from '../../../support/deadline.js';
import { FakeClock } from '../../../support/fake-clock.js';
import { testState } from '../../../support/forwarding-state.js';
import { loopbackBlock } from '../../../support/loopback.js';
import { aBackend, aConfiguration, aRule } from '../../selection/fixtures.js';

const host = loopbackBlock();
const set = (text: string): PortSet => parsePortSet(text) ?? assert.fail(text);
const WORKERS = 3;

let hash: Hash32;

function aManager(
  clock: FakeClock,
  factories: Readonly<Record<Protocol, ListenerFactory>>,
  share: PlanShare = { worker: 0, ownerOf: () => 0 },
  tcpGate?: PortGate,
): ListenerManager {
  return new ListenerManager(
    {
      ...{ clock, events: { push: () => undefined }, factories, handover: new HandoverState(), tcpGate },
      ...{ ownAddresses: () => [], slotsFor: ruleSlots, learnRoutes: () => Promise.resolve() },
      inTurn: (work) => work(),
    },
    { share, workers: 1 },
  );
}

before(async () => {
  hash = await createHasher();
});

void describe('planListeners() for several workers', () => {
  const configuration = aConfiguration({
    rules: [
      aRule({ ports: set('8000-8099') }),
      aRule({ name: 'dns', haPorts: false, protocols: ['udp'], ports: set('53') }),
    ],
  });
  const plans = () => {
    const ownerOf = rendezvousOwner(hash, WORKERS);
    return Array.from({ length: WORKERS }, (_, worker) =>
      planListeners(configuration, ruleSlots(configuration), () => [], { worker, ownerOf }),
    );
  };

  test('each UDP port is in one plan, each TCP port in all and told of by one', () => {
    const of = (protocol: Protocol) =>
      plans().map((plan) => [...plan.values()].filter((binding) => binding.protocol === protocol));
    const udp = of('udp').flatMap((bindings) => bindings.map(({ port }) => port));
    assert.equal(udp.length, 101);
    assert.equal(new Set(udp).size, 101);
    const tcp = of('tcp');
    for (const bindings of tcp) assert.equal(bindings.length, 100);
    const reported = tcp.flat().filter(({ reportedElsewhere }) => reportedElsewhere !== true);
    assert.equal(reported.length, 100);
    assert.equal(new Set(reported.map(({ port }) => port)).size, 100);
  });

  test('a failure of a shared port is told of by one worker', async () => {
    const ownerOf = rendezvousOwner(hash, WORKERS);
    const broken = { open: () => Promise.reject(Object.assign(new Error('no'), { code: 'EACCES' })) };
    const told = Array.from({ length: WORKERS }, async (_, worker) => {
      const manager = aManager(new FakeClock(), { tcp: broken, udp: broken }, { worker, ownerOf });
      await manager.start(configuration);
      return manager.report(0).failures.filter(({ protocol }) => protocol === 'tcp').length;
    });
    assert.equal(
      (await Promise.all(told)).reduce((sum, count) => sum + count, 0),
      100,
    );
  });

  test('udpEndpoints() knows those of all workers', () => {
    const isPlanned = udpEndpoints(configuration, () => []);
    const planned = [...portsOf(ALL_PORTS)].filter((port) => isPlanned('198.51.100.1', port));
    assert.equal(formatPortSet(portSetOf(...planned)), '53,8000-8099');
    assert.equal(isPlanned('198.51.100.2', 53), false);
  });
});

void describe('SourcePorts of several workers', () => {
  test('never give out the same port, and have all of them together', () => {
    const request = {
      protocol: 'udp',
      backendId: 'nvas/10.0.0.2',
      source: ipAddress('10.0.0.1'),
      destination: ipAddress('10.0.0.2'),
      destinationPort: 80,
      ports: set('1001-1010'),
    } as const;
    const taken = Array.from({ length: WORKERS }, (_, worker) => {
      const events = { push: () => undefined };
      const ports = new SourcePorts({ clock: new FakeClock(), events }, { worker, workers: WORKERS });
      const own: number[] = [];
      for (let port = ports.take(request); port !== undefined; port = ports.take(request)) own.push(port);
      assert.equal(ports.uses()[0]?.available, own.length);
      return own;
    }).flat();
    assert.deepEqual(
      taken.sort((a, b) => a - b),
      Array.from({ length: 10 }, (_, index) => 1001 + index),
    );
  });
});

void describe('WorkerCaps', () => {
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

void describe('BackendCaps of a share', () => {
  test('a share of nothing excludes the backend, and who asked for it is known once', () => {
    const caps = new BackendCaps();
    const id = 'nvas/10.0.0.1';
    const pool = testState({ backends: ['10.0.0.1'] }).configuration.backendPools[0];
    assert.ok(pool !== undefined);
    caps.setCaps([{ ...pool, backends: [aBackend('a', '10.0.0.1', { maxConnections: 2 })] }], () => 0);
    assert.deepEqual(caps.uses().get(id), { used: 0, wanting: false });
    assert.deepEqual([...caps.excluded(new Set())], [id]);
    assert.deepEqual(caps.uses().get(id), { used: 0, wanting: true });
    assert.deepEqual(caps.uses().get(id), { used: 0, wanting: false });
  });
});

void describe('ListenerManager with a gate', () => {
  const configuration = aConfiguration({
    rules: [aRule({ protocols: ['tcp'], ports: set('80') })],
  });
  const empty = { ...configuration, digest: 'empty', rules: [] };

  const lab = (refusal?: string, failure?: Error) => {
    const calls: string[] = [];
    const tcpGate = {
      claim: (address: string, port: number) => {
        calls.push(`claim ${address} ${port}`);
        return Promise.resolve(refusal);
      },
      release: (address: string, port: number) => void calls.push(`release ${address} ${port}`),
    };
    const tcp = {
      open: (binding: Listener['binding']): Promise<Listener> => {
        calls.push('open');
        const listener = {
          ...{ binding, serve: () => calls.push('serve'), rawHandle: () => undefined },
          ...{ close: () => calls.push('close'), destroy: () => calls.push('destroy') },
        };
        return failure === undefined ? Promise.resolve(listener) : Promise.reject(failure);
      },
    };
    const factories = { tcp, udp: { open: () => assert.fail('opened') } };
    return { calls, manager: aManager(new FakeClock(), factories, undefined, tcpGate) };
  };

  test('asks before it opens, and tells once when the socket has closed', async () => {
    for (const end of ['close', 'plan'] as const) {
      const { calls, manager } = lab();
      await manager.start(configuration);
      if (end === 'close') manager.close();
      else {
        await manager.stage(empty);
        await manager.commit(() => undefined);
      }
      const expected = ['claim 198.51.100.1 80', 'open', 'serve', 'close', 'release 198.51.100.1 80'];
      assert.deepEqual(calls, expected);
      manager.destroy();
      assert.deepEqual(calls, end === 'close' ? [...expected, 'close', 'destroy'] : expected);
    }
  });

  test('opens nothing that is refused, and gives back what could not be opened', async () => {
    const refused = lab('EADDRINUSE');
    await refused.manager.start(configuration);
    assert.equal(refused.manager.report(0).failures[0]?.errorCode, 'EADDRINUSE');
    assert.deepEqual(refused.calls, ['claim 198.51.100.1 80']);
    const failing = lab(undefined, new Error('no'));
    await failing.manager.start(configuration);
    assert.equal(failing.manager.report(0).failures[0]?.errorCode, 'no');
    assert.deepEqual(failing.calls, ['claim 198.51.100.1 80', 'open', 'release 198.51.100.1 80']);
  });
});

void describe('UserspacePlane as one of two workers', () => {
  test('a datagram from an endpoint that the other worker listens on is dropped and counted', async (t) => {
    const ownerOf = rendezvousOwner(hash, 2);
    const address = ipAddress(host(1));
    const portOf = (worker: number): number => {
      for (let port = 7000; ; port++) if (ownerOf(address, port) === worker) return port;
    };
    const state = testState({
      backends: [host(11)],
      frontend: { address },
      rule: { protocols: ['udp'], ports: set('7000-7031') },
    });
    const plane = new UserspacePlane(
      { clock: new FakeClock(), hash, ownAddresses },
      { flowEvents: false, worker: 0, workers: 2 },
    );
    t.after(() => plane.stop(0));
    await plane.start(state);
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
