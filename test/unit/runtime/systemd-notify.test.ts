import assert from 'node:assert/strict';
import { delimiter } from 'node:path';
import { describe, test } from 'node:test';
import {
  SystemdNotifier,
  systemdNotifyProgram,
  type NotifyEnvironment,
  type SystemdNotifierOptions,
} from '../../../src/runtime/systemd.js';
import { hasCommand } from '../../support/commands.js';
import { FakeClock } from '../../support/fake-clock.js';
import { NotifySocket } from '../../support/notify-socket.js';

const LISTENED: NotifyEnvironment = { NOTIFY_SOCKET: '/run/systemd/notify' };

function recorded(environment: NotifyEnvironment, options: SystemdNotifierOptions = {}) {
  const sent: (readonly string[])[] = [];
  const notifier = new SystemdNotifier(
    environment,
    (variables) => {
      sent.push(variables);
      return Promise.resolve();
    },
    { clock: new FakeClock(), pid: 42, ...options },
  );
  return { notifier, sent };
}

describe('new SystemdNotifier()', () => {
  for (const environment of [{}, { NOTIFY_SOCKET: '' }, { WATCHDOG_USEC: '1000000' }]) {
    test(`does nothing when nobody listens: ${JSON.stringify(environment)}`, async () => {
      const clock = new FakeClock();
      const { notifier, sent } = recorded(environment, { clock });
      await notifier.ready('Serving');
      await notifier.reloading();
      await notifier.stopping('Stopping', 1000);
      await notifier.status('Serving');
      await notifier.mainPid(7);
      notifier.watch(() => Promise.resolve(true));
      await clock.advanceAsync(10_000);
      notifier.stop();
      assert.deepEqual(sent, []);
    });
  }

  test('says what sd_notify(3) knows, each fact in one message', async () => {
    const { notifier, sent } = recorded(LISTENED, { monotonicMicros: () => 123_456_789n });
    await notifier.ready('Serving 200 listeners');
    await notifier.reloading();
    await notifier.status('3 of 3 backends serve');
    await notifier.mainPid(4711);
    await notifier.stopping('Waiting for 12 flows', 30_000);
    assert.deepEqual(sent, [
      ['READY=1', 'STATUS=Serving 200 listeners'],
      ['RELOADING=1', 'MONOTONIC_USEC=123456789'],
      ['STATUS=3 of 3 backends serve'],
      ['MAINPID=4711'],
      ['STOPPING=1', 'EXTEND_TIMEOUT_USEC=40000000', 'STATUS=Waiting for 12 flows'],
    ]);
  });

  test('takes the time of a reload from CLOCK_MONOTONIC', async () => {
    const { notifier, sent } = recorded(LISTENED);
    const before = process.hrtime.bigint() / 1000n;
    await notifier.reloading();
    const after = process.hrtime.bigint() / 1000n;
    const micros = BigInt(/^MONOTONIC_USEC=(\d+)$/.exec(sent[0]?.[1] ?? '')?.[1] ?? 0);
    assert.ok(micros >= before && micros <= after);
  });

  test('keeps a status on one line', async () => {
    const { notifier, sent } = recorded(LISTENED);
    await notifier.status('one\nREADY=1\r\n\0two');
    assert.deepEqual(sent, [['STATUS=one READY=1 two']]);
  });

  test('sends one message after the other, in the order of the calls', async () => {
    const log: string[] = [];
    let release: () => void = () => undefined;
    const notifier = new SystemdNotifier(LISTENED, async ([first = '']) => {
      log.push(`begin ${first}`);
      await new Promise<void>((resolve) => (release = resolve));
      log.push(`end ${first}`);
    });
    const ready = notifier.ready('Serving');
    const stopping = notifier.stopping('Stopping', 0);
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(log, ['begin READY=1']);
    release();
    await ready;
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(log, ['begin READY=1', 'end READY=1', 'begin STOPPING=1']);
    release();
    await stopping;
  });

  test('never rejects, and tells of the first failure in a row', async () => {
    const failures: string[] = [];
    let works = false;
    const notifier = new SystemdNotifier(
      LISTENED,
      () => (works ? Promise.resolve() : Promise.reject(new Error('spawn systemd-notify ENOENT'))),
      { onFailure: (message) => failures.push(message) },
    );
    await notifier.ready('Serving');
    await notifier.status('Serving');
    assert.deepEqual(failures, ['Cannot tell systemd READY=1: spawn systemd-notify ENOENT']);
    works = true;
    await notifier.status('Serving');
    works = false;
    await notifier.status('Serving');
    assert.equal(failures.length, 2);
  });
});

describe('watch()', () => {
  const WATCHED = { ...LISTENED, WATCHDOG_USEC: '20000000', WATCHDOG_PID: '42' };

  /** How many signs of life there were after so many seconds. */
  async function signsOfLife(
    seconds: number,
    environment: NotifyEnvironment,
    isAlive: () => Promise<boolean> = () => Promise.resolve(true),
  ): Promise<number> {
    const clock = new FakeClock();
    const { notifier, sent } = recorded(environment, { clock });
    notifier.watch(isAlive);
    await clock.advanceAsync(seconds * 1000, 1000);
    for (const message of sent) assert.deepEqual(message, ['WATCHDOG=1']);
    return sent.length;
  }

  const never = (): Promise<never> => new Promise(() => undefined);
  const throws = (): never => {
    throw new Error('gone');
  };
  const cases: readonly (readonly [string, number, object, number, (() => Promise<boolean>)?])[] = [
    ['none before half of WATCHDOG_USEC', 9, {}, 0],
    ['one after half of it', 10, {}, 1],
    ['two for each', 60, {}, 6],
    ['some to a watchdog that names no process', 20, { WATCHDOG_PID: undefined }, 2],
    ["none to another process's watchdog", 20, { WATCHDOG_PID: '43' }, 0],
    ['none without a watchdog', 20, { WATCHDOG_USEC: undefined }, 0],
    ['none without a number', 20, { WATCHDOG_USEC: 'soon' }, 0],
    ['none where it is off', 20, { WATCHDOG_USEC: '0' }, 0],
    ['none for what says no', 60, {}, 0, () => Promise.resolve(false)],
    ['none for what rejects', 60, {}, 0, () => Promise.reject(new Error('gone'))],
    ['none for what throws', 60, {}, 0, throws],
    ['none for what does not answer', 60, {}, 0, never],
  ];
  for (const [what, seconds, changes, count, isAlive] of cases) {
    test(`sends signs of life: ${what}`, async () => {
      assert.equal(await signsOfLife(seconds, { ...WATCHED, ...changes }, isAlive), count);
    });
  }

  test('asks again when an answer never came', async () => {
    let asked = 0;
    const signs = await signsOfLife(40, WATCHED, () => (++asked === 1 ? never() : Promise.resolve(true)));
    assert.deepEqual([signs, asked], [3, 4]);
  });

  test('ends with stop()', async () => {
    const clock = new FakeClock();
    const { notifier, sent } = recorded(WATCHED, { clock });
    notifier.watch(() => Promise.resolve(true));
    await clock.advanceAsync(10_000, 1000);
    notifier.stop();
    await clock.advanceAsync(60_000, 1000);
    assert.equal(sent.length, 1);
    assert.equal(clock.pendingTimers, 0);
  });
});

describe('systemdNotifyProgram()', () => {
  test('rejects when there is no such program', async () => {
    const runner = systemdNotifyProgram({ ...LISTENED, PATH: '/nowhere' });
    await assert.rejects(runner(['READY=1']), /ENOENT/);
  });

  for (const program of ['systemd-notify', 'a stand-in']) {
    test(`reaches a notify socket through ${program}`, async (t) => {
      for (const tool of ['python3', ...(program === 'systemd-notify' ? [program] : [])]) {
        if (await hasCommand(tool)) continue;
        t.skip(`${tool} is not installed`);
        return;
      }
      const socket = await NotifySocket.open();
      try {
        const path = process.env['PATH'] ?? '';
        const environment = {
          ...process.env,
          PATH: program === 'systemd-notify' ? path : `${await socket.standInFolder()}${delimiter}${path}`,
          NOTIFY_SOCKET: socket.path,
          WATCHDOG_USEC: '200000',
        };
        const failures: string[] = [];
        const onFailure = (message: string): unknown => failures.push(message);
        const runner = systemdNotifyProgram(environment);
        const options = { monotonicMicros: () => 5n, onFailure };
        const notifier = new SystemdNotifier(environment, runner, options);
        await notifier.ready('Serving "200" listeners, $HOME; ok');
        await notifier.reloading();
        await notifier.mainPid(process.pid);
        notifier.watch(() => Promise.resolve(true));
        await socket.message('WATCHDOG=1');
        notifier.stop();
        await notifier.stopping('Stopping', 1000);
        await socket.message('STOPPING=1');
        assert.deepEqual(failures, []);
        assert.deepEqual(
          socket.messages.filter((message) => !message.includes('WATCHDOG=1')),
          [
            ['READY=1', 'STATUS=Serving "200" listeners, $HOME; ok'],
            ['RELOADING=1', 'MONOTONIC_USEC=5'],
            [`MAINPID=${process.pid}`],
            ['STOPPING=1', 'EXTEND_TIMEOUT_USEC=11000000', 'STATUS=Stopping'],
          ],
        );
      } finally {
        await socket.close();
      }
    });
  }
});
