import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ruleSlots } from '../../../../src/flows/flow.js';
import type { ListenFailure, PortGate } from '../../../../src/planes/contract.js';
import { HandoverState } from '../../../../src/planes/userspace/handover-state.js';
import type { ListenerBinding } from '../../../../src/planes/userspace/listen-plan.js';
import {
  ListenerManager,
  type Listener,
  type ListenerFactory,
  type ListenerManagerOptions,
} from '../../../../src/planes/userspace/listeners.js';
import { ipAddress, isWildcard } from '../../../../src/model/address.js';
import type { PlaneEvent } from '../../../../src/model/events.js';
import type { Configuration } from '../../../../src/model/configuration.js';
import { portSetOf } from '../../../../src/model/ports.js';
import { FakeClock } from '../../../support/fake-clock.js';
import { aConfiguration, aFrontend, aRule } from '../../selection/fixtures.js';

class FakeListener implements Listener {
  serves = 0;
  closes = 0;
  destroys = 0;
  readonly binding: ListenerBinding;
  readonly #calls: string[];

  constructor(binding: ListenerBinding, calls: string[]) {
    this.binding = binding;
    this.#calls = calls;
  }

  serve(): void {
    this.serves++;
    this.#calls.push('serve');
  }

  close(): void {
    this.closes++;
    this.#calls.push('close');
  }

  destroy(): void {
    this.destroys++;
    this.#calls.push('destroy');
  }

  rawHandle(): undefined {
    return undefined;
  }
}

/** Opens what is not said to fail; while `held`, the answer waits. */
class FakeFactory implements ListenerFactory {
  readonly opened: FakeListener[] = [];
  /** Of the factory and its listeners, in order. */
  calls: string[] = [];
  readonly failing = new Map<number, Error>();
  /** Addresses share a port, but for a wildcard and another: as the kernel has it. */
  overlaps = false;
  held = false;
  opening = 0;
  mostOpening = 0;
  #release: (() => void)[] = [];

  async open(binding: ListenerBinding): Promise<Listener> {
    this.calls.push('open');
    this.opening++;
    this.mostOpening = Math.max(this.mostOpening, this.opening);
    if (this.held) await new Promise<void>((resolve) => this.#release.push(resolve));
    else await Promise.resolve();
    this.opening--;
    const failure = this.failing.get(binding.port);
    if (failure !== undefined) throw failure;
    if (this.overlaps && this.opened.some((other) => isInTheWay(other, binding))) {
      throw systemError('EADDRINUSE');
    }
    const listener = new FakeListener(binding, this.calls);
    this.opened.push(listener);
    return listener;
  }

  release(): void {
    this.held = false;
    for (const resolve of this.#release.splice(0)) resolve();
  }

  get ports(): readonly number[] {
    return this.opened.map(({ binding }) => binding.port);
  }

  on(port: number): FakeListener {
    const found = this.opened.findLast(({ binding }) => binding.port === port);
    assert.ok(found !== undefined, `Port ${port} was never opened`);
    return found;
  }
}

function isInTheWay(
  { binding, closes, destroys }: FakeListener,
  { address, port }: ListenerBinding,
): boolean {
  if (closes + destroys > 0 || binding.port !== port) return false;
  return isWildcard(binding.address) || isWildcard(address);
}

function systemError(code: string): Error {
  return Object.assign(new Error(`bind ${code}`), { code });
}

/** Each is another configuration. */
let configurations = 0;

function wanting(overrides: Partial<Configuration>): Configuration {
  return aConfiguration({ ...overrides, digest: `${++configurations}` });
}

function tcpOn(...ports: readonly number[]): Configuration {
  return wanting({ rules: [aRule({ protocols: ['tcp'], ports: portSetOf(...ports) })] });
}

function texts(failures: readonly ListenFailure[]): readonly string[] {
  return failures.map(({ protocol, port, errorCode }) => `${protocol} ${port} ${errorCode}`);
}

const OPEN_GATE: PortGate = { claim: () => Promise.resolve(undefined), release: () => undefined };

class Lab {
  readonly tcp = new FakeFactory();
  readonly udp = new FakeFactory();
  readonly clock = new FakeClock();
  readonly events: PlaneEvent[] = [];
  readonly manager: ListenerManager;

  constructor(options: Partial<ListenerManagerOptions> = {}, tcpGate?: PortGate) {
    this.manager = new ListenerManager(
      {
        clock: this.clock,
        events: { push: (event) => this.events.push(event) },
        factories: { tcp: this.tcp, udp: this.udp },
        handover: new HandoverState(),
        ownAddresses: () => [],
        slotsFor: ruleSlots,
        learnRoutes: () => Promise.resolve(),
        inTurn: (work) => work(),
        tcpGate,
      },
      { share: { worker: 0, ownerOf: () => 0 }, workers: 1, ...options },
    );
  }

  async start(configuration: Configuration): Promise<readonly ListenFailure[]> {
    await this.manager.start(configuration);
    return this.failures;
  }

  /** Stages and commits. */
  async change(configuration: Configuration): Promise<readonly ListenFailure[]> {
    await this.manager.stage(configuration);
    await this.manager.commit(() => undefined);
    return this.failures;
  }

  get failures(): readonly ListenFailure[] {
    return this.manager.report(0).failures;
  }

  /** Sockets open over TCP, and over UDP. */
  get counts(): readonly [number, number] {
    const { tcp, udp } = this.manager.report(0).listeners;
    return [tcp, udp];
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

describe('ListenerManager', () => {
  test('start() opens every socket of the configuration with its protocol`s factory', async () => {
    const lab = new Lab();
    assert.deepEqual(await lab.start(wanting({ rules: [aRule({ ports: portSetOf(80, 81) })] })), []);
    for (const { ports } of [lab.tcp, lab.udp]) assert.deepEqual(ports, [80, 81]);
    assert.deepEqual(lab.counts, [2, 2]);
    assert.deepEqual(lab.manager.census(), { hub: { open: 4, wanted: 4 } });
  });

  test('a change leaves alone what stays, closes what goes and opens what is new', async () => {
    const lab = new Lab();
    const { tcp } = lab;
    await lab.start(tcpOn(80, 81, 82));
    await lab.change(tcpOn(81, 83));
    assert.deepEqual(tcp.ports, [80, 81, 82, 83]);
    const ends = tcp.opened.map(({ closes, destroys }) => `${closes} closed, ${destroys} destroyed`);
    assert.deepEqual(
      ends,
      [80, 81, 82, 83].map((port) => `${port % 2 === 0 ? 1 : 0} closed, 0 destroyed`),
    );
    assert.deepEqual(lab.counts, [2, 0]);
    await lab.change(tcpOn());
    assert.deepEqual([tcp.on(81).closes, tcp.on(83).closes, lab.counts], [1, 1, [0, 0]]);
  });

  test('commit() hands what stays its new rule in one turn with `adopt`, and not before', async () => {
    const lab = new Lab();
    await lab.start(tcpOn(80));
    const other = aRule({ name: 'other', protocols: ['udp'], ports: portSetOf(1) });
    const web = aRule({ name: 'web', frontend: 'renamed', protocols: ['tcp'], ports: portSetOf(80) });
    const next = wanting({
      frontends: [aFrontend(), aFrontend({ name: 'renamed' })],
      rules: [other, web],
    });
    const { binding } = lab.tcp.on(80);
    await lab.manager.stage(next);
    const seen: string[] = [];
    await lab.manager.commit(() => {
      seen.push(binding.slot.rule.name);
      queueMicrotask(() => seen.push(binding.slot.rule.name));
    });
    assert.deepEqual(seen, ['ha-ports', 'web']);
    const { slot } = binding;
    assert.deepEqual([slot.rule, slot.index, slot.rule.frontend], [next.rules[1], 1, next.frontends[1]]);
    assert.equal(lab.tcp.opened.length, 1);
    assert.deepEqual(lab.manager.census(), { hub: { open: 1, wanted: 1 }, renamed: { open: 1, wanted: 1 } });
  });

  test('start() tells all ports that cannot be bound together, and opens the rest', async () => {
    const lab = new Lab();
    lab.tcp.failing.set(80, systemError('EADDRINUSE'));
    lab.udp.failing.set(81, systemError('EACCES'));
    lab.udp.failing.set(82, new Error('Odd'));
    const failures = await lab.start(wanting({ rules: [aRule({ ports: portSetOf(80, 81, 82) })] }));
    const where = { rule: 'ha-ports', address: '198.51.100.1' };
    assert.deepEqual(failures, [
      { ...where, protocol: 'tcp', port: 80, errorCode: 'EADDRINUSE' },
      { ...where, protocol: 'udp', port: 81, errorCode: 'EACCES' },
      { ...where, protocol: 'udp', port: 82, errorCode: 'Odd' },
    ]);
    assert.deepEqual(lab.counts, [2, 1]);
    assert.deepEqual(lab.manager.census(), { hub: { open: 3, wanted: 6 } });
  });

  test('a failure of a port that workers share is told of by one of them', async () => {
    const told = [0, 1, 2].map(async (worker) => {
      const lab = new Lab({ share: { worker, ownerOf: (_address, port) => port % 3 } });
      lab.tcp.failing.set(80, systemError('EACCES'));
      return texts(await lab.start(tcpOn(80, 81)));
    });
    assert.deepEqual(await Promise.all(told), [[], [], ['tcp 80 EACCES']]);
  });

  test('tries again every 10 s what could not be bound, and only that, and tells what has changed', async () => {
    const lab = new Lab();
    lab.tcp.failing.set(80, systemError('EADDRINUSE'));
    await lab.start(tcpOn(80, 81));
    await lab.clock.advanceAsync(10_000);
    assert.equal(lab.failures.length, 1);
    assert.deepEqual(lab.events, []);
    lab.tcp.failing.clear();
    await lab.clock.advanceAsync(10_000);
    assert.deepEqual(lab.failures, []);
    assert.deepEqual(lab.tcp.ports, [81, 80]);
    assert.deepEqual(lab.manager.census(), { hub: { open: 2, wanted: 2 } });
    assert.deepEqual(
      lab.events.map(({ type }) => type),
      ['listening-changed'],
    );
    assert.equal(lab.clock.pendingTimers, 0);
  });

  test('does not try again what lacks permission, nor serves what is staged meanwhile', async () => {
    const lab = new Lab();
    lab.tcp.failing.set(80, systemError('EACCES'));
    await lab.start(tcpOn(80));
    assert.equal(lab.clock.pendingTimers, 0);
    const again = new Lab();
    again.tcp.failing.set(80, systemError('EADDRINUSE'));
    await again.start(tcpOn(80));
    await again.manager.stage(tcpOn(80, 83));
    await again.clock.advanceAsync(10_000);
    assert.equal(again.tcp.on(83).serves, 0);
  });

  test('start() opens at most 256 sockets at a time', async () => {
    const lab = new Lab();
    const rule = aRule({ protocols: ['tcp'], ports: [{ first: 1, last: 1000 }] });
    assert.deepEqual(await lab.start(wanting({ rules: [rule] })), []);
    assert.deepEqual(lab.counts, [1000, 0]);
    assert.equal(lab.tcp.mostOpening, 256);
  });

  test('start() keeps a tenth of the descriptors for flows: the highest ports go without', async () => {
    const lab = new Lab({ descriptorLimit: 10 });
    const configuration = wanting({ rules: [aRule({ ports: [{ first: 80, last: 85 }] })] });
    const failures = await lab.start(configuration);
    assert.equal(lab.counts[0] + lab.counts[1], 9);
    assert.deepEqual(texts(failures), ['udp 84 EMFILE', 'tcp 85 EMFILE', 'udp 85 EMFILE']);
    // What is open already counts too.
    assert.equal((await lab.start(configuration)).length, 3);
    assert.equal(lab.tcp.opened.length + lab.udp.opened.length, 9);
  });

  test('gives the place of a port that is taken to the next one', async () => {
    const lab = new Lab({ descriptorLimit: 10 });
    lab.tcp.failing.set(3, systemError('EADDRINUSE'));
    lab.tcp.failing.set(10, systemError('EADDRINUSE'));
    const failures = await lab.start(tcpOn(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12));
    assert.deepEqual(lab.tcp.ports, [1, 2, 4, 5, 6, 7, 8, 9, 11]);
    assert.deepEqual([...texts(failures)].sort(), ['tcp 10 EADDRINUSE', 'tcp 12 EMFILE', 'tcp 3 EADDRINUSE']);
  });

  test('opens no more after a real want of descriptors', async () => {
    const lab = new Lab({ descriptorLimit: 10 });
    lab.tcp.failing.set(3, systemError('EMFILE'));
    await lab.start(tcpOn(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12));
    assert.equal(lab.tcp.ports.includes(10), false);
  });

  test('census() takes frontends by their names, whatever those are', async () => {
    const lab = new Lab();
    const frontends = [aFrontend({ name: 'constructor' })];
    const rules = [aRule({ frontend: 'constructor', protocols: ['tcp'], ports: portSetOf(80) })];
    await lab.start(wanting({ frontends, rules }));
    assert.deepEqual(Object.entries(lab.manager.census()), [['constructor', { open: 1, wanted: 1 }]]);
  });

  test('close() takes no new flows but destroys nothing; destroy() ends all', async () => {
    const lab = new Lab();
    const { tcp, udp, manager } = lab;
    await lab.start(wanting({ rules: [aRule({ ports: portSetOf(80) })] }));
    manager.close();
    assert.deepEqual([tcp.on(80).closes, udp.on(80).closes], [1, 1]);
    assert.deepEqual([tcp.on(80).destroys, udp.on(80).destroys], [0, 0]);
    manager.destroy();
    assert.deepEqual([tcp.on(80).destroys, udp.on(80).destroys], [1, 1]);
    assert.deepEqual(lab.counts, [0, 0]);
  });

  test('a socket that opens after close() or destroy() is not left behind', async () => {
    for (const end of ['close', 'destroy'] as const) {
      const lab = new Lab();
      const { tcp } = lab;
      tcp.held = true;
      const rule = aRule({ protocols: ['tcp'], ports: [{ first: 1, last: 600 }] });
      const started = lab.start(wanting({ rules: [rule] }));
      await turn();
      lab.manager[end]();
      tcp.release();
      assert.deepEqual(await started, []);
      assert.equal(tcp.opened.length, 256, 'the next batch is not begun');
      assert.equal(
        tcp.opened.every(({ destroys }) => destroys === 1),
        true,
      );
      assert.deepEqual(lab.counts, [0, 0]);
    }
  });
});

describe('ListenerManager.stage()', () => {
  test('it opens what the configuration adds and nothing more, and serves nothing there before commit()', async () => {
    const lab = new Lab();
    const { tcp, manager } = lab;
    await lab.start(tcpOn(80, 81));
    const rule = aRule({ name: 'new', protocols: ['tcp'], ports: portSetOf(81, 82) });
    const next = wanting({ rules: [rule] });
    await manager.stage(next);
    await manager.stage(next);
    assert.deepEqual(tcp.ports, [80, 81, 82]);
    assert.deepEqual([tcp.on(80).closes, tcp.on(81).closes, tcp.on(82).serves], [0, 0, 0]);
    assert.deepEqual(lab.counts, [2, 0]);
    assert.deepEqual(manager.census(), { hub: { open: 2, wanted: 2 } });
    await manager.commit(() => undefined);
    assert.deepEqual(lab.failures, []);
    assert.deepEqual([tcp.on(80).closes, tcp.on(81).closes, tcp.on(82).serves], [1, 0, 1]);
    assert.equal(tcp.on(82).binding.slot.rule, rule);
    assert.deepEqual([lab.counts, tcp.opened.length], [[2, 0], 3]);
  });

  test('it closes all it has opened if one cannot be, tells which, and changes nothing else', async () => {
    const lab = new Lab();
    const { tcp, udp, manager } = lab;
    await lab.start(tcpOn(80));
    udp.failing.set(83, systemError('EADDRINUSE'));
    const next = wanting({ rules: [aRule({ ports: portSetOf(81, 82, 83) })] });
    await assert.rejects(manager.stage(next), {
      code: 'LB_LISTEN_FAILED',
      message: /a port .*, first udp 198\.51\.100\.1 port 83: EADDRINUSE/,
    });
    for (const listener of [...tcp.opened, ...udp.opened]) {
      assert.deepEqual([listener.closes, listener.serves], listener.binding.port === 80 ? [0, 1] : [1, 0]);
    }
    assert.deepEqual(lab.counts, [1, 0]);
    await assert.rejects(
      manager.commit(() => assert.fail('adopted')),
      TypeError,
    );
    assert.deepEqual(await lab.change(tcpOn(80)), []);
    assert.equal(tcp.on(80).closes, 0);
  });

  test('what this or the former configuration wanted in vain is no reason to refuse', async () => {
    const lab = new Lab();
    for (const port of [80, 82]) lab.tcp.failing.set(port, systemError('EADDRINUSE'));
    await lab.start(tcpOn(80, 81));
    await assert.rejects(lab.change(tcpOn(80, 82)), /a port .* port 82/);
    const [with80, without] = [tcpOn(80, 81), tcpOn(81)];
    assert.deepEqual(texts(await lab.change(with80)), ['tcp 80 EADDRINUSE']);
    assert.deepEqual(await lab.change(without), []);
    assert.deepEqual(texts(await lab.change(tcpOn(80, 83))), ['tcp 80 EADDRINUSE']);
    assert.deepEqual(lab.manager.census(), { hub: { open: 1, wanted: 2 } });
  });

  test('staging another, discard(), close() and destroy() leave nothing of it open', async () => {
    for (const [end, left] of [
      ['stage', 0],
      ['discard', 0],
      ['close', 1],
      ['destroy', 1],
    ] as const) {
      const lab = new Lab();
      const { tcp, manager } = lab;
      await lab.start(tcpOn(80));
      await manager.stage(tcpOn(80, 81));
      if (end === 'stage') await manager.stage(tcpOn(82));
      else manager[end]();
      assert.equal(tcp.on(81).closes, 1);
      assert.equal(tcp.on(80).closes, left);
      assert.equal(tcp.on(80).destroys, end === 'destroy' ? 1 : 0);
    }
  });

  test('sockets of both configurations together keep within the descriptors', async () => {
    const lab = new Lab({ descriptorLimit: 10 });
    await lab.start(tcpOn(1, 2, 3, 4, 5));
    await assert.rejects(lab.change(tcpOn(11, 12, 13, 14, 15)), /a port .* port 15: EMFILE$/);
    // Known before, so none of the others was opened in vain.
    assert.deepEqual(lab.tcp.ports, [1, 2, 3, 4, 5]);
  });
});

describe('ListenerManager.commit()', () => {
  const at = (address: string, ...ports: readonly number[]): Configuration =>
    wanting({
      frontends: [aFrontend({ address: ipAddress(address) })],
      rules: [aRule({ protocols: ['tcp'], ports: portSetOf(...ports) })],
    });

  for (const [from, to] of [
    ['0.0.0.0', '198.51.100.1'],
    ['198.51.100.1', '0.0.0.0'],
    ['::', '2001:db8::1'],
  ] as const) {
    test(`from ${from} to ${to}: own listeners in the way are closed just before`, async () => {
      const lab = new Lab();
      const { tcp, manager } = lab;
      tcp.overlaps = true;
      await lab.start(at(from, 80, 81));
      await manager.stage(at(to, 80, 82));
      assert.equal(tcp.on(80).closes, 0, 'not before it must be');
      await manager.commit(() => undefined);
      assert.deepEqual(lab.failures, []);
      const open = tcp.opened.filter(({ closes }) => closes === 0);
      const served = open.map(({ binding, serves }) => `${binding.address.text} ${binding.port} ${serves}`);
      assert.deepEqual(served.sort(), [`${to} 80 1`, `${to} 82 1`]);
    });
  }

  test('it refuses, and adopts nothing, where another process has the port', async () => {
    const lab = new Lab();
    await lab.start(at('0.0.0.0', 80));
    lab.tcp.failing.set(80, systemError('EADDRINUSE'));
    await lab.manager.stage(at('198.51.100.1', 80));
    await assert.rejects(
      lab.manager.commit(() => assert.fail('adopted')),
      /a port .*, first tcp 198\.51\.100\.1 port 80: EADDRINUSE/,
    );
    // The old one was opened again if that was possible, and is missing else.
    assert.deepEqual([lab.counts, texts(lab.failures)], [[0, 0], ['tcp 80 EADDRINUSE']]);
    lab.tcp.failing.clear();
    await lab.clock.advanceAsync(10_000);
    assert.deepEqual([lab.counts, lab.failures], [[1, 0], []]);
    assert.equal(lab.tcp.on(80).binding.address.text, '0.0.0.0');
  });

  test('if one cannot be opened, all that was closed is open and serves again', async () => {
    const lab = new Lab();
    const { tcp } = lab;
    tcp.overlaps = true;
    const ports = Array.from({ length: 300 }, (_, index) => index + 1);
    await lab.start(at('0.0.0.0', ...ports));
    await lab.manager.stage(at('198.51.100.1', ...ports));
    tcp.failing.set(299, systemError('EACCES'));
    await assert.rejects(
      lab.manager.commit(() => assert.fail('adopted')),
      /a port .* port 299: EACCES/,
    );
    assert.deepEqual(lab.counts, [299, 0]);
    const open = tcp.opened.filter(({ closes }) => closes === 0);
    assert.ok(open.every(({ binding, serves }) => binding.address.text === '0.0.0.0' && serves === 1));
  });

  test('it waits for other workers to close what they share', async () => {
    const lab = new Lab({}, OPEN_GATE);
    await lab.start(at('0.0.0.0', 80));
    lab.tcp.failing.set(80, systemError('EADDRINUSE'));
    await lab.manager.stage(at('198.51.100.1', 80));
    const committed = lab.manager.commit(() => undefined);
    await lab.clock.advanceAsync(500, 20);
    lab.tcp.failing.clear();
    await lab.clock.advanceAsync(100, 20);
    await committed;
    assert.deepEqual(lab.failures, []);
    assert.deepEqual([lab.counts, lab.clock.pendingTimers], [[1, 0], 0]);
  });

  test('an address that stays is in the way by no doing of ours: that is refused', async () => {
    const lab = new Lab();
    lab.tcp.overlaps = true;
    await lab.start(at('198.51.100.1', 80));
    const both = wanting({
      frontends: [aFrontend(), aFrontend({ name: 'all', address: ipAddress('0.0.0.0') })],
      rules: [
        aRule({ protocols: ['tcp'], ports: portSetOf(80) }),
        aRule({ name: 'b', frontend: 'all', protocols: ['tcp'], ports: portSetOf(80) }),
      ],
    });
    await assert.rejects(lab.manager.stage(both), { code: 'LB_LISTEN_FAILED' });
    assert.equal(lab.tcp.on(80).closes, 0);
  });
});

describe('ListenerManager with a gate', () => {
  /** What is asked of the gate, and what becomes of the socket, in order. */
  function gated(refusal?: string) {
    const calls: string[] = [];
    const lab = new Lab(
      {},
      {
        claim: (address, port) => {
          calls.push(`claim ${address} ${port}`);
          return Promise.resolve(refusal);
        },
        release: (address, port) => void calls.push(`release ${address} ${port}`),
      },
    );
    lab.tcp.calls = calls;
    return { lab, calls };
  }

  test('asks before it opens, and tells once when the socket has closed', async () => {
    for (const end of ['close', 'plan'] as const) {
      const { lab, calls } = gated();
      await lab.start(tcpOn(80));
      if (end === 'close') lab.manager.close();
      else await lab.change(tcpOn());
      const expected = ['claim 198.51.100.1 80', 'open', 'serve', 'close', 'release 198.51.100.1 80'];
      assert.deepEqual(calls, expected);
      lab.manager.destroy();
      assert.deepEqual(calls, end === 'close' ? [...expected, 'close', 'destroy'] : expected);
    }
  });

  test('opens nothing that is refused, and gives back what could not be opened', async () => {
    const refused = gated('EADDRINUSE');
    assert.deepEqual(texts(await refused.lab.start(tcpOn(80))), ['tcp 80 EADDRINUSE']);
    assert.deepEqual(refused.calls, ['claim 198.51.100.1 80']);
    const failing = gated();
    failing.lab.tcp.failing.set(80, new Error('no'));
    assert.deepEqual(texts(await failing.lab.start(tcpOn(80))), ['tcp 80 no']);
    assert.deepEqual(failing.calls, ['claim 198.51.100.1 80', 'open', 'release 198.51.100.1 80']);
  });
});
