import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { eventually, within } from '../../support/deadline.js';
import { anEvent, aStatus } from '../../support/api-answers.js';
import { cliLab } from './cli-lab.js';
import type { FakeDeps } from './fake-deps.js';

const lab = cliLab({ haste: 1 });
const { admin } = lab;
let deps: FakeDeps;

beforeEach(async () => {
  await eventually(() => admin.streams === 0, 5000, 'the connections of the test before to be closed');
  lab.answer('GET /v1/status', aStatus());
  admin.events = [anEvent(1), anEvent(2), anEvent(3)];
  deps = lab.deps;
});

function ids(): readonly number[] {
  const lines = deps.stdout.split('\n').filter((line) => line !== '');
  return lines.map((line) => (JSON.parse(line) as { id: number }).id);
}

/** `events --follow --json` until `ready`, then what the test does; ends it by a signal. */
async function following(args: readonly string[], story: () => Promise<void>): Promise<void> {
  const exit = deps.run('events', '--follow', '--json', ...args);
  try {
    await eventually(() => admin.streams === 1, 5000, 'the first connection');
    await story();
  } finally {
    deps.signal('SIGINT');
  }
  assert.equal(await within(exit, 5000, 'the end of events'), 0);
  assert.deepEqual([deps.signalListeners, deps.outputListeners], [0, 0]);
  await eventually(() => admin.streams === 0, 5000, 'the connection to be closed');
}

describe('haports events', () => {
  test('events shows what is remembered, and ends', async () => {
    assert.equal(await within(deps.run('events'), 5000, 'the end of events'), 0);
    assert.equal(
      deps.stdout.split('\n')[0],
      '2023-11-14T22:13:20.001Z  1 warn  health-changed  nva-1 is down: HTTP 503',
    );
    assert.equal(deps.stdout.split('\n').length, 4);
    assert.equal(deps.stderr, '');
  });

  test('events --since shows later ones only, as JSON one a line', async () => {
    assert.equal(await within(deps.run('events', '--since', '1', '--json'), 5000, 'the end of events'), 0);
    assert.deepEqual(ids(), [2, 3]);
  });

  test('events ends where events never cease', async () => {
    const exit = deps.run('events', '--json');
    const timer = setInterval(() => admin.send(anEvent(4)), 50);
    try {
      assert.equal(await within(exit, 8000, 'the end of events'), 0);
    } finally {
      clearInterval(timer);
    }
    assert.ok(ids().length > 10);
  });

  test('events --follow shows new ones only, as they happen', async () => {
    await following([], async () => {
      admin.send(anEvent(4));
      await eventually(() => ids().length === 1, 5000, 'the event');
      admin.send(anEvent(5));
      await eventually(() => ids().length === 2, 5000, 'the next event');
    });
    assert.deepEqual(ids(), [4, 5]);
  });

  test('events --follow --since shows remembered ones first', async () => {
    await following(['--since', '2'], async () => {
      await eventually(() => ids().length === 1, 5000, 'what is remembered');
    });
    assert.deepEqual(ids(), [3]);
  });

  test('events --follow connects again after the last event, and loses none', async () => {
    await following(['--since', '0'], async () => {
      await eventually(() => ids().length === 3, 5000, 'what is remembered');
      admin.events = [...admin.events, anEvent(4)];
      admin.cut();
      await eventually(() => ids().length === 4, 5000, 'what happened in between');
    });
    assert.deepEqual(ids(), [1, 2, 3, 4]);
    assert.equal(admin.seen.at(-1)?.headers['last-event-id'], '3');
    assert.match(deps.stderr, /Connection lost, reconnecting\nhaports: Reconnected/);
  });

  test('events --follow starts over with a process that was started anew', async () => {
    await following(['--since', '0'], async () => {
      await eventually(() => ids().length === 3, 5000, 'what is remembered');
      admin.answers.set('GET /v1/status', { json: aStatus({ pid: 4712 }) });
      admin.events = [anEvent(1)];
      admin.cut();
      await eventually(() => ids().length === 4, 5000, 'the first event of the new process');
    });
    assert.deepEqual(ids(), [1, 2, 3, 1]);
    assert.match(deps.stderr, /Another haports process answers now/);
  });

  test('events --follow ends when its reader leaves', async () => {
    const exit = deps.run('events', '--follow');
    await eventually(() => admin.streams === 1, 5000, 'the connection');
    deps.closeOutput();
    assert.equal(await within(exit, 5000, 'the end of events'), 0);
  });

  test('events without a process is exit code 1', async () => {
    deps.env['HAPORTS_SOCKET'] = './nobody-there.sock';
    for (const args of [['events'], ['events', '--follow']]) assert.equal(await deps.run(...args), 1);
    assert.match(deps.stderr, /LB_NOT_RUNNING/);
  });
});
