import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Predecessor } from '../../../src/upgrade/new-process.js';
import { UPGRADE_PROTOCOL, type ControlState } from '../../../src/upgrade/messages.js';
import { Succession } from '../../../src/upgrade/old-process.js';
import type { ControlEvent, UpgradeOutcome } from '../../../src/model/events.js';
import type { DataPlane } from '../../../src/planes/contract.js';
import type { PeerChannel, SuccessorProcess } from '../../../src/runtime/peer.js';
import { FakeClock } from '../../support/fake-clock.js';
import { channelPair, turn, type PairEnd } from '../planes/workers/channel-pair.js';
import { ScriptedPlane } from '../planes/workers/scripted-plane.js';
import { aUdpFlow, FakeSocket } from '../planes/hand-over-fixtures.js';

const STATE: ControlState = {
  monotonicMs: 5,
  overrides: new Map([['nvas/a', { weight: 3 }]]),
  drains: [],
  health: new Map(),
};

function peer(end: PairEnd): PeerChannel {
  return {
    send: (message, sent) => end.send(message, sent),
    onMessage: (listener) => end.onMessage(listener),
    onClose: (listener) => end.onClose(listener),
    close: () => {
      // What was sent before arrives before.
      queueMicrotask(() => end.peer?.close());
      end.close();
    },
  };
}

class Lab {
  readonly clock = new FakeClock();
  readonly plane = new ScriptedPlane();
  readonly events: ControlEvent['type'][] = [];
  readonly ends = channelPair();
  launches = 0;
  kills = 0;
  letGo = 0;
  stopping = false;
  exit: (how: string) => void = () => undefined;
  readonly succession = this.successionOf(this.plane);

  successionOf(plane: DataPlane): Succession {
    return new Succession({
      ...{ clock: this.clock, plane },
      launch: () => this.#launch(),
      state: () => STATE,
      isStopping: () => this.stopping,
      release: () => Promise.resolve(),
      onEvent: ({ type }) => this.events.push(type),
    });
  }

  upgrade(): Promise<UpgradeOutcome> {
    return this.succession.upgrade({});
  }

  /** The new process's end, of a real Predecessor. */
  predecessor(): Predecessor {
    return new Predecessor(this.clock, peer(this.ends.worker));
  }

  says(message: object): Promise<void> {
    this.ends.worker.send(message);
    return turn();
  }

  #launch(): SuccessorProcess {
    this.launches++;
    return {
      pid: 4711,
      channel: peer(this.ends.control),
      exited: new Promise((resolve) => (this.exit = resolve)),
      kill: () => this.kills++,
      letGo: () => this.letGo++,
    };
  }
}

const HELLO = { kind: 'hello', protocol: UPGRADE_PROTOCOL, version: '9.9.9' };

async function assertFailed(lab: Lab, upgrade: Promise<unknown>, expected: object): Promise<void> {
  await assert.rejects(upgrade, expected);
  assert.deepEqual(lab.events, ['upgrade-started', 'upgrade-failed']);
  assert.equal(lab.kills, 1);
  assert.equal(lab.plane.calls.at(-1), 'thaw', 'UDP is read on');
  assert.equal(lab.clock.pendingTimers, 0);
}

describe('Succession and Predecessor', () => {
  test('sockets, state and flows go over in order, and UDP is frozen last', async () => {
    const lab = new Lab();
    const socket = new FakeSocket('tcp', 80);
    lab.plane.lent = [socket];
    lab.plane.frozenFlows = [aUdpFlow(7)];
    const predecessor = lab.predecessor();
    const upgrade = lab.upgrade();
    const { state, sockets } = await predecessor.meet();
    assert.deepEqual(state, STATE);
    assert.deepEqual(
      sockets.map(({ port, handle }) => [port, handle]),
      [[80, socket.handle]],
    );
    assert.deepEqual(lab.plane.calls, ['lend'], 'not frozen before the new process is ready');
    assert.deepEqual(await predecessor.takeOver(), [aUdpFlow(7)]);
    const served = predecessor.serving();
    const { sockets: count, udpFlows, pid } = await upgrade;
    assert.deepEqual(lab.events, ['upgrade-started', 'upgrade-ready']);
    assert.deepEqual([count, udpFlows, pid], [1, 1, 4711]);
    assert.deepEqual([lab.letGo, lab.succession.isOver], [0, true]);
    lab.clock.advance(0);
    await served;
    assert.equal(lab.letGo, 1);
    assert.equal(lab.kills, 0);
    assert.ok(!lab.plane.calls.includes('thaw'));
  });

  test('a new process that ends too early changes nothing, and another try may follow', async () => {
    const lab = new Lab();
    const upgrade = lab.upgrade();
    await turn();
    lab.exit('exit code 2');
    await assertFailed(lab, upgrade, { code: 'LB_UPGRADE_FAILED', message: /\(exit code 2\)/ });
    void lab.upgrade().catch(() => undefined);
    assert.equal(lab.launches, 2);
  });

  test('a new process that says why it fails is quoted', async () => {
    const lab = new Lab();
    const predecessor = lab.predecessor();
    const upgrade = lab.upgrade();
    const failed = assertFailed(lab, upgrade, { code: 'LB_UPGRADE_FAILED', message: 'No room' });
    await predecessor.meet();
    predecessor.failed(new Error('No room'));
    await failed;
  });

  test('a new process that is not ready in 30 s, or does not serve after the hand-over, is ended', async () => {
    for (const messages of [[], [HELLO], [HELLO, { kind: 'ready' }]]) {
      const lab = new Lab();
      const failed = assertFailed(lab, lab.upgrade(), { code: 'LB_UPGRADE_FAILED' });
      await turn();
      for (const message of messages) await lab.says(message);
      await lab.clock.advanceAsync(60_000, 1000);
      await failed;
    }
  });

  test('another protocol is refused: only a restart helps', async () => {
    const lab = new Lab();
    const failed = assertFailed(lab, lab.upgrade(), { code: 'LB_RESTART_NEEDED' });
    await turn();
    await lab.says({ ...HELLO, protocol: UPGRADE_PROTOCOL + 1 });
    await failed;
  });

  test('a stop that begins meanwhile wins, as long as nothing was handed over', async () => {
    const lab = new Lab();
    const failed = assertFailed(lab, lab.upgrade(), { code: 'LB_CONFLICT' });
    await turn();
    await lab.says(HELLO);
    lab.stopping = true;
    await lab.says({ kind: 'ready' });
    await failed;
    assert.ok(!lab.plane.calls.includes('freeze'));
  });

  test('upgrade() is refused while one is under way, on a stop, and where the plane cannot', async () => {
    const lab = new Lab();
    void lab.upgrade().catch(() => undefined);
    await assert.rejects(lab.upgrade(), { code: 'LB_CONFLICT', message: /An upgrade/ });
    const stopping = new Lab();
    stopping.stopping = true;
    await assert.rejects(stopping.upgrade(), { code: 'LB_CONFLICT', message: /A stop/ });
    const cannot = new Lab();
    const withoutSockets = cannot.successionOf({} as DataPlane);
    await assert.rejects(withoutSockets.upgrade({}), { code: 'LB_RESTART_NEEDED' });
    assert.deepEqual([lab.launches, cannot.launches], [1, 0]);
  });

  test('a predecessor that dies is noticed', async () => {
    const lab = new Lab();
    const meeting = lab.predecessor().meet();
    lab.ends.worker.close();
    await assert.rejects(meeting, { code: 'LB_UPGRADE_FAILED', message: /closed the channel/ });
  });
});
