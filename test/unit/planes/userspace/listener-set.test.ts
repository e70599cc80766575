import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ruleSlots } from '../../../../src/flows/flow.js';
import type { PortGate } from '../../../../src/planes/contract.js';
import { HandoverState } from '../../../../src/planes/userspace/handover-state.js';
import { planListeners, type ListenerBinding } from '../../../../src/planes/userspace/listen-plan.js';
import {
  ListenerSet,
  type Listener,
  type ListenerFactory,
  type ListenerSetOptions,
} from '../../../../src/planes/userspace/listeners.js';
import { ipAddress, isWildcard } from '../../../../src/model/address.js';
import type { Configuration } from '../../../../src/model/configuration.js';
import { portSetOf } from '../../../../src/model/ports.js';
import { FakeClock } from '../../../support/fake-clock.js';
import { aConfiguration, aFrontend, aRule } from '../../selection/fixtures.js';

class FakeListener implements Listener {
  serves = 0;
  closes = 0;
  destroys = 0;
  readonly binding: ListenerBinding;

  constructor(binding: ListenerBinding) {
    this.binding = binding;
  }

  serve(): void {
    this.serves++;
  }

  close(): void {
    this.closes++;
  }

  destroy(): void {
    this.destroys++;
  }

  rawHandle(): undefined {
    return undefined;
  }
}

/** Opens what is not said to fail; while `held`, the answer waits. */
class FakeFactory implements ListenerFactory {
  readonly opened: FakeListener[] = [];
  readonly failing = new Map<number, Error>();
  /** Addresses share a port, but for a wildcard and another: as the kernel has it. */
  overlaps = false;
  held = false;
  opening = 0;
  mostOpening = 0;
  #release: (() => void)[] = [];

  async open(binding: ListenerBinding): Promise<Listener> {
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
    const listener = new FakeListener(binding);
    this.opened.push(listener);
    return listener;
  }

  release(): void {
    this.held = false;
    for (const resolve of this.#release.splice(0)) resolve();
  }

  ports(): readonly number[] {
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

function plan(overrides: Partial<Configuration>): ReturnType<typeof planListeners> {
  const configuration = aConfiguration(overrides);
  return planListeners(configuration, ruleSlots(configuration), () => []);
}

function tcpPlan(...ports: readonly number[]): ReturnType<typeof planListeners> {
  return plan({ rules: [aRule({ protocols: ['tcp'], ports: portSetOf(...ports) })] });
}

const OPEN_GATE: PortGate = { claim: () => Promise.resolve(undefined), release: () => undefined };

class Lab {
  readonly tcp = new FakeFactory();
  readonly udp = new FakeFactory();
  readonly clock = new FakeClock();
  readonly set: ListenerSet;

  constructor(options: ListenerSetOptions = {}, tcpGate?: PortGate) {
    const factories = { tcp: this.tcp, udp: this.udp };
    const deps = { clock: this.clock, factories, handover: new HandoverState(), tcpGate };
    this.set = new ListenerSet(deps, options);
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

describe('ListenerSet', () => {
  test('apply() opens every socket of the plan with its protocol`s factory', async () => {
    const { set, tcp, udp } = new Lab();
    const failures = await set.apply(plan({ rules: [aRule({ ports: portSetOf(80, 81) })] }));
    assert.deepEqual(failures, []);
    assert.deepEqual(
      [tcp.ports(), udp.ports()],
      [
        [80, 81],
        [80, 81],
      ],
    );
    assert.deepEqual([set.count('tcp'), set.count('udp')], [2, 2]);
    assert.deepEqual(set.census(), { hub: { open: 4, wanted: 4 } });
  });

  test('apply() leaves alone what stays, closes what goes and opens what is new', async () => {
    const { set, tcp } = new Lab();
    await set.apply(tcpPlan(80, 81, 82));
    await set.apply(tcpPlan(81, 83));
    assert.deepEqual(tcp.ports(), [80, 81, 82, 83]);
    assert.deepEqual(
      tcp.opened.map(({ closes, destroys }) => [closes, destroys]),
      [
        [1, 0],
        [0, 0],
        [1, 0],
        [0, 0],
      ],
    );
    assert.equal(set.count('tcp'), 2);
    await set.apply(tcpPlan());
    assert.deepEqual([tcp.on(81).closes, tcp.on(83).closes, set.count('tcp')], [1, 1, 0]);
  });

  test('apply() hands what stays its new rule, index and frontend, before anything is awaited', async () => {
    const { set, tcp } = new Lab();
    await set.apply(tcpPlan(80));
    const other = aRule({ name: 'other', protocols: ['udp'], ports: portSetOf(1) });
    const web = aRule({ name: 'web', frontend: 'renamed', protocols: ['tcp'], ports: portSetOf(80) });
    const { frontends, rules } = aConfiguration({
      frontends: [aFrontend(), aFrontend({ name: 'renamed' })],
      rules: [other, web],
    });
    const applied = set.apply(plan({ frontends, rules }));
    const { binding } = tcp.on(80);
    assert.deepEqual(
      [binding.slot.rule, binding.slot.index, binding.slot.rule.frontend],
      [rules[1], 1, frontends[1]],
    );
    await applied;
    assert.equal(tcp.opened.length, 1);
    assert.deepEqual(set.census(), { hub: { open: 1, wanted: 1 }, renamed: { open: 1, wanted: 1 } });
  });

  test('rebind() opens and closes nothing', async () => {
    const { set, tcp } = new Lab();
    await set.apply(tcpPlan(80, 81));
    const rule = aRule({ name: 'web', protocols: ['tcp'], ports: portSetOf(80, 90) });
    set.rebind(plan({ rules: [rule] }));
    assert.equal(tcp.on(80).binding.slot.rule, rule);
    assert.equal(tcp.on(81).binding.slot.rule.name, 'ha-ports');
    assert.deepEqual([tcp.opened.length, tcp.on(81).closes], [2, 0]);
  });

  test('apply() tells all ports that cannot be bound together, and opens the rest', async () => {
    const { set, tcp, udp } = new Lab();
    tcp.failing.set(80, systemError('EADDRINUSE'));
    udp.failing.set(81, systemError('EACCES'));
    udp.failing.set(82, new Error('Odd'));
    const failures = await set.apply(plan({ rules: [aRule({ ports: portSetOf(80, 81, 82) })] }));
    const where = { rule: 'ha-ports', address: '198.51.100.1' };
    assert.deepEqual(failures, [
      { ...where, protocol: 'tcp', port: 80, errorCode: 'EADDRINUSE' },
      { ...where, protocol: 'udp', port: 81, errorCode: 'EACCES' },
      { ...where, protocol: 'udp', port: 82, errorCode: 'Odd' },
    ]);
    assert.deepEqual([set.count('tcp'), set.count('udp')], [2, 1]);
    assert.deepEqual(set.census(), { hub: { open: 3, wanted: 6 } });
  });

  test('apply() tries again what could not be bound, and only that', async () => {
    const { set, tcp } = new Lab();
    tcp.failing.set(80, systemError('EADDRINUSE'));
    await set.apply(tcpPlan(80, 81));
    assert.equal((await set.apply(tcpPlan(80, 81))).length, 1);
    tcp.failing.clear();
    assert.deepEqual(await set.apply(tcpPlan(80, 81)), []);
    assert.deepEqual(tcp.ports(), [81, 80]);
    assert.deepEqual(set.census(), { hub: { open: 2, wanted: 2 } });
  });

  test('apply() opens at most 256 sockets at a time', async () => {
    const { set, tcp } = new Lab();
    const rule = aRule({ protocols: ['tcp'], ports: [{ first: 1, last: 1000 }] });
    assert.deepEqual(await set.apply(plan({ rules: [rule] })), []);
    assert.equal(set.count('tcp'), 1000);
    assert.equal(tcp.mostOpening, 256);
  });

  test('apply() keeps a tenth of the descriptors for flows: the highest ports go without', async () => {
    const { set, tcp, udp } = new Lab({ descriptorLimit: 10 });
    const rule = aRule({ ports: [{ first: 80, last: 85 }] });
    const failures = await set.apply(plan({ rules: [rule] }));
    assert.equal(set.count('tcp') + set.count('udp'), 9);
    assert.deepEqual(
      failures.map(({ protocol, port, errorCode }) => `${protocol} ${port} ${errorCode}`),
      ['udp 84 EMFILE', 'tcp 85 EMFILE', 'udp 85 EMFILE'],
    );
    // What is open already counts too.
    assert.equal((await set.apply(plan({ rules: [rule] }))).length, 3);
    assert.equal(tcp.opened.length + udp.opened.length, 9);
  });

  test('census() takes frontends by their names, whatever those are', async () => {
    const { set } = new Lab();
    const frontends = [aFrontend({ name: 'constructor' })];
    const rules = [aRule({ frontend: 'constructor', protocols: ['tcp'], ports: portSetOf(80) })];
    await set.apply(plan({ frontends, rules }));
    assert.deepEqual(Object.entries(set.census()), [['constructor', { open: 1, wanted: 1 }]]);
  });

  test('close() takes no new flows but destroys nothing; destroy() ends all', async () => {
    const { set, tcp, udp } = new Lab();
    await set.apply(plan({ rules: [aRule({ ports: portSetOf(80) })] }));
    set.close();
    assert.deepEqual([tcp.on(80).closes, udp.on(80).closes], [1, 1]);
    assert.deepEqual([tcp.on(80).destroys, udp.on(80).destroys], [0, 0]);
    set.destroy();
    assert.deepEqual([tcp.on(80).destroys, udp.on(80).destroys], [1, 1]);
    assert.deepEqual([set.count('tcp'), set.count('udp')], [0, 0]);
  });

  test('a socket that opens after close() or destroy() is not left behind', async () => {
    for (const end of ['close', 'destroy'] as const) {
      const { set, tcp } = new Lab();
      tcp.held = true;
      const rule = aRule({ protocols: ['tcp'], ports: [{ first: 1, last: 600 }] });
      const applied = set.apply(plan({ rules: [rule] }));
      await turn();
      set[end]();
      tcp.release();
      assert.deepEqual(await applied, []);
      assert.equal(tcp.opened.length, 256, 'the next batch is not begun');
      assert.equal(
        tcp.opened.every(({ destroys }) => destroys === 1),
        true,
      );
      assert.equal(set.count('tcp'), 0);
    }
  });
});

describe('ListenerSet.stage()', () => {
  test('it opens what the plan adds and nothing more, and serves nobody there before apply()', async () => {
    const { set, tcp } = new Lab();
    await set.apply(tcpPlan(80, 81));
    assert.deepEqual(await set.stage(tcpPlan(81, 82)), []);
    assert.deepEqual(tcp.ports(), [80, 81, 82]);
    assert.deepEqual([tcp.on(80).closes, tcp.on(81).closes, tcp.on(82).serves], [0, 0, 0]);
    assert.equal(set.count('tcp'), 2);
    assert.deepEqual(set.census(), { hub: { open: 2, wanted: 2 } });
    const rule = aRule({ name: 'new', protocols: ['tcp'], ports: portSetOf(81, 82) });
    assert.deepEqual(await set.apply(plan({ rules: [rule] })), []);
    assert.deepEqual([tcp.on(80).closes, tcp.on(81).closes, tcp.on(82).serves], [1, 0, 1]);
    assert.equal(tcp.on(82).binding.slot.rule, rule);
    assert.equal(set.count('tcp'), 2);
    assert.equal(tcp.opened.length, 3);
  });

  test('it closes all it has opened if one cannot be, tells which, and changes nothing else', async () => {
    const { set, tcp, udp } = new Lab();
    await set.apply(tcpPlan(80));
    udp.failing.set(83, systemError('EADDRINUSE'));
    const failures = await set.stage(plan({ rules: [aRule({ ports: portSetOf(81, 82, 83) })] }));
    assert.deepEqual(
      failures.map(({ protocol, port, errorCode }) => `${protocol} ${port} ${errorCode}`),
      ['udp 83 EADDRINUSE'],
    );
    for (const listener of [...tcp.opened, ...udp.opened]) {
      assert.deepEqual([listener.closes, listener.serves], listener.binding.port === 80 ? [0, 1] : [1, 0]);
    }
    assert.equal(set.count('tcp'), 1);
    assert.deepEqual(await set.apply(tcpPlan(80)), []);
    assert.equal(tcp.on(80).closes, 0);
  });

  test('what the present plan wants in vain, and what is excused, is no reason to refuse', async () => {
    const { set, tcp } = new Lab();
    for (const port of [80, 82]) tcp.failing.set(port, systemError('EADDRINUSE'));
    await set.apply(tcpPlan(80, 81));
    assert.equal((await set.stage(tcpPlan(80, 82))).length, 1);
    assert.deepEqual(await set.stage(tcpPlan(80, 82, 83), ({ port }) => port === 82), []);
    assert.deepEqual(
      (await set.apply(tcpPlan(80, 82, 83))).map(({ port }) => port),
      [80, 82],
    );
    assert.deepEqual(set.census(), { hub: { open: 1, wanted: 3 } });
  });

  test('staging another plan, discard(), close() and destroy() leave nothing of it open', async () => {
    for (const [end, left] of [
      ['stage', 0],
      ['discard', 0],
      ['close', 1],
      ['destroy', 1],
    ] as const) {
      const { set, tcp } = new Lab();
      await set.apply(tcpPlan(80));
      await set.stage(tcpPlan(80, 81));
      if (end === 'stage') await set.stage(tcpPlan(82));
      else set[end]();
      assert.equal(tcp.on(81).closes, 1);
      assert.equal(tcp.on(80).closes + tcp.on(80).destroys, left);
    }
  });

  test('sockets of both plans together keep within the descriptors', async () => {
    const { set, tcp } = new Lab({ descriptorLimit: 10 });
    await set.apply(tcpPlan(1, 2, 3, 4, 5));
    const failures = await set.stage(tcpPlan(11, 12, 13, 14, 15));
    assert.deepEqual(
      failures.map(({ port, errorCode }) => `${port} ${errorCode}`),
      ['15 EMFILE'],
    );
    // Known before, so none of the others was opened in vain.
    assert.deepEqual(tcp.ports(), [1, 2, 3, 4, 5]);
  });

  test('apply() gives the place of a port that is taken to the next one', async () => {
    const { set, tcp } = new Lab({ descriptorLimit: 10 });
    tcp.failing.set(3, systemError('EADDRINUSE'));
    tcp.failing.set(10, systemError('EADDRINUSE'));
    const failures = await set.apply(tcpPlan(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12));
    assert.deepEqual(tcp.ports(), [1, 2, 4, 5, 6, 7, 8, 9, 11]);
    assert.deepEqual(failures.map(({ port, errorCode }) => `${port} ${errorCode}`).sort(), [
      '10 EADDRINUSE',
      '12 EMFILE',
      '3 EADDRINUSE',
    ]);
  });

  test('apply() does not go on after a real want of descriptors', async () => {
    const { set, tcp } = new Lab({ descriptorLimit: 10 });
    tcp.failing.set(3, systemError('EMFILE'));
    await set.apply(tcpPlan(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12));
    assert.equal(tcp.ports().includes(10), false);
  });
});

describe('ListenerSet.makeRoom()', () => {
  const at = (address: string, ...ports: readonly number[]): ReturnType<typeof planListeners> =>
    plan({
      frontends: [aFrontend({ address: ipAddress(address) })],
      rules: [aRule({ protocols: ['tcp'], ports: portSetOf(...ports) })],
    });

  for (const [from, to] of [
    ['0.0.0.0', '198.51.100.1'],
    ['198.51.100.1', '0.0.0.0'],
    ['::', '2001:db8::1'],
  ] as const) {
    test(`from ${from} to ${to}: own listeners in the way are closed just before`, async () => {
      const { set, tcp } = new Lab();
      tcp.overlaps = true;
      await set.apply(at(from, 80, 81));
      assert.deepEqual(await set.stage(at(to, 80, 82)), []);
      assert.equal(tcp.on(80).closes, 0, 'not before it must be');
      assert.deepEqual(await set.makeRoom(), []);
      assert.deepEqual(await set.apply(at(to, 80, 82)), []);
      const open = tcp.opened.filter(({ closes }) => closes === 0);
      assert.deepEqual(
        open.map(({ binding, serves }) => [binding.address.text, binding.port, serves]).sort(),
        [
          [to, 80, 1],
          [to, 82, 1],
        ],
      );
    });
  }

  test('who else has the port is in the way for good', async () => {
    const { set, tcp } = new Lab();
    await set.apply(at('0.0.0.0', 80));
    tcp.failing.set(80, systemError('EADDRINUSE'));
    assert.deepEqual(await set.stage(at('198.51.100.1', 80)), []);
    const madeRoom = await set.makeRoom();
    assert.deepEqual(
      madeRoom.map(({ address, port, errorCode }) => `${address} ${port} ${errorCode}`),
      ['198.51.100.1 80 EADDRINUSE'],
    );
    // The old one was opened again if that was possible, and is missing else.
    assert.equal(set.count('tcp'), 0);
    tcp.failing.clear();
    assert.deepEqual(await set.apply(at('0.0.0.0', 80)), []);
    assert.equal(set.count('tcp'), 1);
  });

  test('if one cannot be opened, all that was closed is open and serves again', async () => {
    const { set, tcp } = new Lab();
    tcp.overlaps = true;
    const ports = Array.from({ length: 300 }, (_, index) => index + 1);
    await set.apply(at('0.0.0.0', ...ports));
    await set.stage(at('198.51.100.1', ...ports));
    tcp.failing.set(299, systemError('EACCES'));
    assert.equal((await set.makeRoom()).length, 1);
    assert.equal(set.count('tcp'), 299);
    const open = tcp.opened.filter(({ closes }) => closes === 0);
    assert.ok(open.every(({ binding, serves }) => binding.address.text === '0.0.0.0' && serves === 1));
  });

  test('it waits for other workers to close what they share', async () => {
    const { set, tcp, clock } = new Lab({}, OPEN_GATE);
    await set.apply(at('0.0.0.0', 80));
    tcp.failing.set(80, systemError('EADDRINUSE'));
    await set.stage(at('198.51.100.1', 80));
    const madeRoom = set.makeRoom();
    await clock.advanceAsync(500, 20);
    tcp.failing.clear();
    await clock.advanceAsync(100, 20);
    assert.deepEqual(await madeRoom, []);
    assert.deepEqual(await set.apply(at('198.51.100.1', 80)), []);
    assert.deepEqual([set.count('tcp'), clock.pendingTimers], [1, 0]);
  });

  test('an address that stays in the plan is in nobody`s way by our doing: that is refused', async () => {
    const { set, tcp } = new Lab();
    tcp.overlaps = true;
    await set.apply(at('198.51.100.1', 80));
    const both = plan({
      frontends: [aFrontend(), aFrontend({ name: 'all', address: ipAddress('0.0.0.0') })],
      rules: [
        aRule({ protocols: ['tcp'], ports: portSetOf(80) }),
        aRule({ name: 'b', frontend: 'all', protocols: ['tcp'], ports: portSetOf(80) }),
      ],
    });
    assert.equal((await set.stage(both)).length, 1);
    assert.equal(tcp.on(80).closes, 0);
  });
});
