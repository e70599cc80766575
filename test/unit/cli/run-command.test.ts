import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { StartedBalancer } from '../../../src/cli/deps.js';
import { BalancerError } from '../../../src/model/errors.js';
import { FakeClock } from '../../support/fake-clock.js';
import { example, haExample } from '../../support/example.js';
import { FakeDeps } from './fake-deps.js';

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function withConfig(raw: object = example({ shutdown: { deadline: '7s' } })): FakeDeps {
  return FakeDeps.with(raw);
}

/** `haports run`, past its start. */
async function running(deps = withConfig()): Promise<{ deps: FakeDeps; exit: Promise<number> }> {
  const exit = deps.run('run');
  await turn();
  assert.equal(deps.started.length, 1);
  return { deps, exit };
}

/** Holds the start of the balancer until the returned function is called. */
function holdStart(deps: FakeDeps): () => void {
  let go: (balancer: StartedBalancer) => void = () => undefined;
  deps.onStart = () => new Promise((resolve) => (go = resolve));
  return () => go(deps.balancer);
}

async function stop(deps: FakeDeps, exit: Promise<number>): Promise<void> {
  deps.signal('SIGTERM');
  await turn();
  deps.balancer.stopped();
  assert.equal(await exit, 0);
}

/** The exit code, or undefined while the command runs. */
async function exitCode(exit: Promise<number>): Promise<number | undefined> {
  await turn();
  return Promise.race([exit, Promise.resolve(undefined)]);
}

describe('haports run', () => {
  test('run starts the balancer with the configuration and where it came from, and runs on', async () => {
    const deps = withConfig(haExample({ pool: { backends: ['10.0.1.1'] } }));
    const { exit } = await running(deps);
    const [started] = deps.started;
    assert.equal(started?.configuration.rules[0]?.name, 'ha');
    assert.equal(started.source, 'config.json');
    assert.ok(started.findings > 0, 'a pool of one is worth a finding');
    assert.equal(await exitCode(exit), undefined);
    assert.deepEqual([deps.stdout, deps.stderr], ['', '']);
    await stop(deps, exit);
  });

  test('run with a configuration that cannot be used prints the errors, starts nothing and exits with 2', async () => {
    const deps = withConfig(example({ rule: { probe: 'nosuch' } }));
    assert.equal(await deps.run('run'), 2);
    assert.match(deps.stderr, /^config\.json:\d+:\d+: error LB_\w+ rules\[0\]\.probe: [^\n]+\n$/);
    assert.deepEqual([deps.stdout, deps.started], ['', []]);
    assert.equal(deps.signalListeners, 0);
  });

  test('SIGHUP while the file is still being read ends nothing, and is heeded after the start', async () => {
    const deps = withConfig();
    const exit = deps.run('run');
    assert.ok(deps.signalListeners > 0, 'signals are heard before the first file is read');
    deps.signal('SIGHUP');
    await turn();
    assert.equal(deps.balancer.reloads.length, 1);
    await stop(deps, exit);
  });

  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    test(`${signal} stops in order, within the shutdown deadline, and exits with 0`, async () => {
      const { deps, exit } = await running();
      deps.signal(signal);
      await turn();
      assert.deepEqual(deps.balancer.stops, [{ cause: signal, deadlineMs: 7000 }]);
      assert.equal(await exitCode(exit), undefined, 'flows are finishing');
      deps.balancer.stopped();
      assert.equal(await exit, 0);
      assert.equal(deps.signalListeners, 0);
    });
  }

  test('a second signal ends at once', async () => {
    const { deps, exit } = await running();
    deps.signal('SIGINT');
    await turn();
    deps.signal('SIGTERM');
    assert.deepEqual(deps.balancer.stops, [
      { cause: 'SIGINT', deadlineMs: 7000 },
      { cause: 'second SIGTERM', deadlineMs: 0 },
    ]);
    deps.balancer.stopped();
    assert.equal(await exit, 0);
  });

  test('SIGUSR2 upgrades and stops nothing; being superseded stops, within the deadline asked for', async () => {
    for (const [request, deadlineMs] of [
      [{}, 7000],
      [{ deadlineMs: 5 }, 5],
    ] as const) {
      const { deps, exit } = await running();
      deps.signal('SIGUSR2');
      assert.equal(deps.balancer.upgrades, 1);
      assert.equal(await exitCode(exit), undefined);
      deps.balancer.supersede(request);
      await turn();
      assert.deepEqual(deps.balancer.stops, [{ cause: 'upgrade', deadlineMs }]);
      deps.signal('SIGTERM');
      await turn();
      assert.deepEqual(deps.balancer.stops.at(-1), { cause: 'second SIGTERM', deadlineMs: 0 });
      deps.balancer.stopped();
      assert.equal(await exit, 0);
    }
  });

  test('SIGHUP re-opens the logs, each time, and stops nothing', async () => {
    const { deps, exit } = await running();
    deps.signal('SIGHUP');
    deps.signal('SIGHUP');
    await turn();
    assert.equal(deps.balancer.reopened, 2);
    assert.deepEqual(deps.balancer.stops, []);
    deps.signal('SIGTERM');
    await turn();
    deps.signal('SIGHUP');
    assert.equal(deps.balancer.reopened, 3, 'also while flows finish');
    deps.balancer.stopped();
    assert.equal(await exit, 0);
  });

  test('SIGHUP reloads the configuration file too', async () => {
    const { deps, exit } = await running();
    deps.files.set('config.json', '{ "new": true }');
    deps.signal('SIGHUP');
    await turn();
    assert.deepEqual(deps.balancer.reloads, [{ text: '{ "new": true }', cause: 'SIGHUP' }]);
    assert.equal(deps.balancer.reopened, 1);
    deps.signal('SIGTERM');
    await turn();
    deps.signal('SIGHUP');
    await turn();
    assert.equal(deps.balancer.reloads.length, 1, 'nothing new while it stops');
    deps.balancer.stopped();
    assert.equal(await exit, 0);
  });

  test('SIGHUP with a file that cannot be read, or that is refused, changes nothing, and the next one is tried', async () => {
    const { deps, exit } = await running();
    const content = deps.files.get('config.json') ?? '';
    deps.files.delete('config.json');
    deps.signal('SIGHUP');
    await turn();
    const [refusal] = deps.balancer.refused;
    assert.equal(refusal?.cause, 'SIGHUP');
    assert.ok(refusal.error instanceof BalancerError && refusal.error.code === 'LB_CONFIG_UNREADABLE');
    assert.match(refusal.error.message, /^Configuration file "config\.json" cannot be read: /);
    deps.files.set('config.json', content);
    deps.balancer.onReload = () =>
      Promise.reject(new BalancerError('No', { code: 'LB_CONFIG_INVALID', source: 'config' }));
    for (const count of [1, 2]) {
      deps.signal('SIGHUP');
      await turn();
      assert.equal(deps.balancer.reloads.length, count);
    }
    await stop(deps, exit);
  });

  test('reloads go one at a time, the newest wish last, and wait for one by the admin API', async () => {
    const clock = new FakeClock();
    const deps = withConfig();
    deps.clock = clock;
    const exit = deps.run('run', '--watch');
    await turn();
    const changed = deps.watched.get('config.json');
    assert.ok(changed !== undefined);
    let finish: () => void = () => undefined;
    deps.balancer.onReload = () => new Promise((resolve) => (finish = resolve));
    changed('one');
    await turn();
    for (const text of ['two', 'three']) changed(text);
    await turn();
    finish();
    await turn();
    deps.balancer.onReload = () => {
      deps.balancer.onReload = () => Promise.resolve();
      return Promise.reject(new BalancerError('Busy', { code: 'LB_CONFLICT', source: 'usage' }));
    };
    finish();
    await turn();
    changed('four');
    await turn();
    await clock.advanceAsync(1000);
    assert.deepEqual(
      deps.balancer.reloads.map(({ text, cause }) => `${text} by ${cause}`),
      ['one', 'three', 'four', 'four'].map((text) => `${text} by file watch`),
    );
    await stop(deps, exit);
    assert.equal(deps.watched.size, 0, 'and the file is watched no more');
    assert.equal(clock.pendingTimers, 0);
  });

  test('a change during the start is taken over after it; without --watch nothing is watched', async () => {
    const deps = withConfig();
    const started = holdStart(deps);
    const exit = deps.run('run', '--watch');
    await turn();
    deps.watched.get('config.json')?.('changed');
    await turn();
    assert.deepEqual(deps.balancer.reloads, []);
    started();
    await turn();
    assert.deepEqual(deps.balancer.reloads, [{ text: 'changed', cause: 'file watch' }]);
    await stop(deps, exit);
    const unwatched = await running();
    assert.equal(unwatched.deps.watched.size, 0);
    await stop(unwatched.deps, unwatched.exit);
  });

  test('run --watch of a configuration that cannot be used ends, and watches nothing', async () => {
    const deps = withConfig({ no: 'configuration' });
    assert.equal(await deps.run('run', '--watch'), 2);
    assert.equal(deps.watched.size, 0);
  });

  test('a signal during the start is obeyed after it; SIGHUP is not one to wait', async () => {
    for (const [signals, deadlineMs] of [
      [['SIGHUP', 'SIGTERM'], 7000],
      [['SIGTERM', 'SIGTERM'], 0],
    ] as const) {
      const deps = withConfig();
      const started = holdStart(deps);
      const exit = deps.run('run');
      await turn();
      for (const signal of signals) deps.signal(signal);
      await turn();
      assert.equal(await exitCode(exit), undefined);
      started();
      await turn();
      assert.deepEqual(deps.balancer.stops, [{ cause: 'SIGTERM', deadlineMs }]);
      deps.balancer.stopped();
      assert.equal(await exit, 0);
    }
  });

  test('a stop that fails is reported and exits with 1, also after a second signal', async () => {
    const { deps, exit } = await running();
    deps.signal('SIGTERM');
    await turn();
    deps.signal('SIGTERM');
    deps.balancer.failToStop(new Error('Stuck'));
    assert.equal(await exit, 1);
    assert.match(deps.stderr, /^haports: LB_INTERNAL: Error: Stuck\n/);
    // A rejection that nobody caught would fail this file.
    await turn();
    assert.equal(deps.signalListeners, 0);
  });
});
