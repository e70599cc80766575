import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ipAddress } from '../../../../src/model/address.js';
import type { Configuration } from '../../../../src/model/configuration.js';
import { portSetOf } from '../../../../src/model/ports.js';
import type { ListenerManagerOptions } from '../../../../src/planes/userspace/listeners.js';
import { testStories } from '../../../support/stories.js';
import { aFrontend, aRule } from '../../selection/fixtures.js';
import { Lab, OPEN_GATE, systemError, tcpOn, tellListeners, texts, wanting } from './listener-story.js';

testStories('ListenerManager', 'test/unit/planes/userspace/listener-stories.txt', ({ setting, lines }) =>
  tellListeners(new Lab(setting as Partial<ListenerManagerOptions>), lines),
);

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

describe('ListenerManager', () => {
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

  test('start() opens at most 256 sockets at a time', async () => {
    const lab = new Lab();
    const rule = aRule({ protocols: ['tcp'], ports: [{ first: 1, last: 1000 }] });
    assert.deepEqual(await lab.start(wanting({ rules: [rule] })), []);
    assert.deepEqual(lab.counts, [1000, 0]);
    assert.equal(lab.tcp.mostOpening, 256);
  });

  test('census() counts what is open at each moment of a change, whenever it was asked before', async () => {
    const lab = new Lab();
    lab.tcp.overlaps = true;
    const census = () => lab.manager.census()['hub'];
    lab.tcp.held = true;
    const started = lab.start(tcpOn(80));
    await turn();
    assert.deepEqual(census(), { open: 0, wanted: 1 });
    lab.tcp.release();
    await started;
    assert.deepEqual(census(), { open: 1, wanted: 1 });

    // The listener at one address is in the way of that at all of them, and is closed first.
    const anywhere = wanting({
      frontends: [aFrontend({ address: ipAddress('0.0.0.0') })],
      rules: [aRule({ protocols: ['tcp'], ports: portSetOf(80) })],
    });
    await lab.manager.stage(anywhere);
    lab.tcp.held = true;
    const committed = lab.manager.commit(() => undefined);
    await turn();
    assert.deepEqual(census(), { open: 0, wanted: 1 });
    lab.tcp.release();
    await committed;
    assert.deepEqual(census(), { open: 1, wanted: 1 });
  });

  test('census() takes frontends by their names, whatever those are', async () => {
    const lab = new Lab();
    const frontends = [aFrontend({ name: 'constructor' })];
    const rules = [aRule({ frontend: 'constructor', protocols: ['tcp'], ports: portSetOf(80) })];
    await lab.start(wanting({ frontends, rules }));
    assert.deepEqual(Object.entries(lab.manager.census()), [['constructor', { open: 1, wanted: 1 }]]);
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

describe('ListenerManager.commit()', () => {
  const at = (address: string, ...ports: readonly number[]): Configuration =>
    wanting({
      frontends: [aFrontend({ address: ipAddress(address) })],
      rules: [aRule({ protocols: ['tcp'], ports: portSetOf(...ports) })],
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
      const expected = [
        'claim 198.51.100.1 80',
        'open tcp 80',
        'serve tcp 80',
        'close tcp 80',
        'release 198.51.100.1 80',
      ];
      assert.deepEqual(calls, expected);
      lab.manager.destroy();
      assert.deepEqual(calls, end === 'close' ? [...expected, 'close tcp 80', 'destroy tcp 80'] : expected);
    }
  });

  test('opens nothing that is refused, and gives back what could not be opened', async () => {
    const refused = gated('EADDRINUSE');
    assert.deepEqual(texts(await refused.lab.start(tcpOn(80))), ['tcp 80 EADDRINUSE']);
    assert.deepEqual(refused.calls, ['claim 198.51.100.1 80']);
    const failing = gated();
    failing.lab.tcp.failing.set(80, new Error('no'));
    assert.deepEqual(texts(await failing.lab.start(tcpOn(80))), ['tcp 80 no']);
    assert.deepEqual(failing.calls, ['claim 198.51.100.1 80', 'open tcp 80', 'release 198.51.100.1 80']);
  });
});
