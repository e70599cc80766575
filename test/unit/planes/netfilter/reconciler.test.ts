import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import type { KernelSetup } from '../../../../src/planes/netfilter/setup.js';
import { Reconciler } from '../../../../src/planes/netfilter/reconciler.js';
import { anyIpRoute, instanceTag } from '../../../../src/planes/netfilter/routing.js';
import { FakeClock } from '../../../support/fake-clock.js';
import { FakeKernel } from './fake-kernel.js';

const TAG = instanceTag('haports');
const DENIED = { exitCode: 1, stderr: 'Operation not permitted (you must be root)\n' };

function setup(ports: readonly number[], prefix = '240.7.0.0/16'): KernelSetup {
  return {
    table: 'haports',
    tag: TAG,
    structure: 'table inet haports {\n}',
    sets: new Map([['m', new Map(ports.map((port) => [String(port), 'x']))]]),
    routing: [anyIpRoute(4, prefix, TAG)],
  };
}

describe('Reconciler', () => {
  let kernel: FakeKernel;
  let clock: FakeClock;
  let changes: string[];
  let reconciler: Reconciler;

  beforeEach(() => {
    kernel = new FakeKernel();
    clock = new FakeClock();
    changes = [];
    reconciler = new Reconciler(
      {
        clock,
        tools: kernel,
        onChange: (change, evidence = '') => changes.push(`${change} ${evidence}`.trim()),
      },
      { instance: 'haports' },
    );
  });

  /** Lets what has been started finish: every step of the fake is a microtask. */
  async function settle(): Promise<void> {
    for (let round = 0; round < 10; round++) await new Promise((resolve) => setImmediate(resolve));
  }

  async function pass(ms: number): Promise<void> {
    clock.advance(ms);
    await settle();
  }

  test('puts routes in place before the table, and takes old ones away after it', async () => {
    await reconciler.want([{ setup: setup([1]) }]);
    await reconciler.want([
      { setup: { ...setup([1], '240.8.0.0/16'), structure: 'table inet haports { }' } },
    ]);
    assert.deepEqual(
      kernel.written.map((text) => text.split('\n')[0]?.replace(/ dev.*/, '')),
      [
        '-4 route replace local 240.7.0.0/16',
        'table inet haports',
        '-4 route replace local 240.8.0.0/16',
        'table inet haports',
        '-4 route del local 240.7.0.0/16',
      ],
    );
  });

  test('takes back its routes where the table is refused, but not those that were needed before', async () => {
    await reconciler.want([{ setup: setup([1]) }]);
    kernel.intercept = (tool, line) => (tool === 'nft' && line === '-f -' ? DENIED : undefined);
    const both = {
      ...setup([1]),
      structure: 'other',
      routing: [...setup([]).routing, anyIpRoute(4, '240.8.0.0/16', TAG)],
    };
    await assert.rejects(reconciler.want([{ setup: both }]), { code: 'LB_KERNEL_DENIED' });
    assert.deepEqual(
      Array.from(kernel.routes, (route) => route.split(' ')[1]),
      ['240.7.0.0/16'],
    );
    assert.equal(reconciler.report().state, 'in-place');
    kernel.intercept = undefined;
    kernel.table = undefined;
    await pass(2000);
    assert.match(
      kernel.written.at(-1) ?? '',
      /add element inet haports m \{ 1 : x \}/,
      'what was there before',
    );
  });

  test('replaces the whole table where a delta fails', async () => {
    await reconciler.want([{ setup: setup([1]) }]);
    kernel.intercept = (_tool, line, input) =>
      line === '-f -' && input.startsWith('delete element')
        ? { exitCode: 1, stderr: 'No such file' }
        : undefined;
    await reconciler.want([{ setup: setup([2]) }]);
    assert.match(kernel.written.at(-1) ?? '', /^table inet haports\ndelete table/);
    assert.equal(reconciler.report().failures, 1);
  });

  test('retries what it cannot put right at growing intervals, tells it once, and goes on when it can', async () => {
    await reconciler.want([{ setup: setup([1]) }]);
    kernel.table = undefined;
    let tries = 0;
    kernel.intercept = (_tool, line) => {
      if (line !== '-f -') return undefined;
      tries += 1;
      return { exitCode: 1, stderr: 'Error: no memory' };
    };
    const startMs = clock.wallMs();
    await pass(2000);
    assert.deepEqual(changes, ['installed', 'failed nft failed: Error: no memory']);
    assert.equal(reconciler.report().state, 'failing');
    assert.equal(reconciler.report().sinceMs, startMs + 2000);
    for (const [delayMs, expected] of [
      [19, 1],
      [1, 2],
      [39, 2],
      [1, 3],
      [80, 4],
    ] as const) {
      await pass(delayMs);
      assert.equal(tries, expected);
    }
    assert.equal(changes.length, 2, 'the same failure is no news');
    assert.equal(reconciler.report().failures, 4);
    kernel.intercept = undefined;
    await pass(30_000);
    assert.deepEqual(changes.slice(2), ['repaired Table inet haports was gone']);
    const { state, repairs, lastFailure } = reconciler.report();
    assert.deepEqual([state, repairs, lastFailure?.text], ['in-place', 1, 'nft failed: Error: no memory']);
  });

  const NO_MEMORY = { exitCode: 1, stderr: 'Error: no memory' };

  /** Fails so many transactions. */
  function failing(times: number): void {
    let left = times;
    kernel.intercept = (_tool, line) => (line === '-f -' && left-- > 0 ? NO_MEMORY : undefined);
  }

  test('want() tries again at once what fails, and rejects after three attempts', async () => {
    failing(2);
    const first = reconciler.want([{ setup: setup([1]) }]);
    await pass(0);
    await pass(20);
    await pass(40);
    await first;
    assert.deepEqual([reconciler.report().state, reconciler.report().failures], ['in-place', 2]);
    failing(6);
    const second = assert.rejects(reconciler.want([{ setup: setup([2]) }]), { code: 'LB_KERNEL_FAILED' });
    await pass(0);
    await pass(20);
    await pass(40);
    await second;
    kernel.intercept = undefined;
    await pass(10_000);
    assert.match(kernel.table ?? '', /haports/);
    assert.deepEqual([...(reconciler.present?.sets.get('m')?.keys() ?? [])], ['1'], 'as before');
    assert.equal(reconciler.report().state, 'in-place');
  });

  test('want() that persists tries until it is granted, or something else is wanted', async () => {
    await reconciler.want([{ setup: setup([1]) }]);
    const persist = { start: 'trust', onRefusal: 'persist' } as const;
    kernel.intercept = (_tool, line) => (line === '-f -' ? DENIED : undefined);
    await assert.rejects(reconciler.want([{ setup: setup([2]) }], persist), { code: 'LB_KERNEL_DENIED' });
    assert.equal(reconciler.report().state, 'failing');
    await assert.rejects(reconciler.want([{ setup: setup([3]) }], persist), { code: 'LB_KERNEL_DENIED' });
    kernel.intercept = undefined;
    await pass(20);
    assert.deepEqual([...(reconciler.present?.sets.get('m')?.keys() ?? [])], ['3']);
    assert.deepEqual(
      changes.map((change) => change.split(' ')[0]),
      ['installed', 'failed', 'repaired'],
    );
    await pass(10_000);
    assert.equal(changes.length, 3);
  });

  test('want() takes its stages in order, each before the flows that it has forgotten', async () => {
    await reconciler.want([{ setup: setup([1]) }]);
    kernel.written.length = 0;
    kernel.intercept = (tool, line) => {
      if (tool === 'conntrack') kernel.written.push(`conntrack ${line}`);
      return undefined;
    };
    const forget = (name: string) => () => Promise.resolve([['--mark', name]]);
    await reconciler.want(
      [
        { setup: setup([1, 2]), forget: forget('first') },
        { setup: setup([3]), forget: forget('second') },
      ],
      { start: 'trust' },
    );
    assert.deepEqual(kernel.written, [
      'add element inet haports m { 2 : x }\n',
      'conntrack -D --mark first',
      'delete element inet haports m { 1, 2 }\nadd element inet haports m { 3 : x }\n',
      'conntrack -D --mark second',
    ]);
    assert.deepEqual(changes, ['installed'], 'changes of elements are no news');
  });

  test('forget() tries three times to find and to forget, and lets it be', async () => {
    let asked = 0;
    kernel.intercept = (tool) => (tool === 'conntrack' ? DENIED : undefined);
    await reconciler.forget(() => {
      asked += 1;
      return asked === 1 ? Promise.reject(new Error('cannot list')) : Promise.resolve([['--mark', '1']]);
    });
    assert.equal(asked, 3);
    assert.equal(reconciler.report().failures, 3);
    assert.match(reconciler.report().lastFailure?.text ?? '', /conntrack was denied/);
  });

  test('counts as failing only when it could not look three times', async () => {
    await reconciler.want([{ setup: setup([1]) }]);
    kernel.intercept = (tool) => (tool === 'nft' ? { failure: 'timeout', exitCode: undefined } : undefined);
    await pass(2000);
    await pass(2000);
    assert.equal(reconciler.report().state, 'in-place');
    await pass(2000);
    assert.equal(reconciler.report().state, 'failing');
    kernel.intercept = undefined;
    await pass(2000);
    assert.deepEqual([reconciler.report().state, reconciler.report().repairs], ['in-place', 0]);
    assert.deepEqual(
      changes.map((change) => change.split(' ')[0]),
      ['installed', 'failed', 'repaired'],
    );
  });

  test('refuses an nft that is too old, before anything is written', async () => {
    kernel.intercept = (_tool, line) =>
      line === '--version' ? { stdout: 'nftables v0.9.8 (E.D.S.)\n' } : undefined;
    await assert.rejects(reconciler.check(setup([1])), { code: 'LB_KERNEL_UNSUPPORTED' });
    await assert.rejects(reconciler.want([{ setup: setup([1]) }]), { code: 'LB_KERNEL_UNSUPPORTED' });
    assert.deepEqual(kernel.written, []);
    assert.equal(reconciler.report().state, 'absent');
    assert.equal(clock.pendingTimers, 0, 'there is nothing to look after');
  });

  test('does one thing at a time', async () => {
    await Promise.all([
      reconciler.want([{ setup: setup([1]) }]),
      reconciler.want([{ setup: setup([2]) }]),
      reconciler.remove(),
    ]);
    assert.equal(kernel.table, undefined);
    assert.equal(reconciler.report().state, 'absent');
    assert.deepEqual(changes, ['installed', 'installed', 'removed']);
    await pass(10_000);
    assert.equal(kernel.table, undefined, 'what was removed is not put back');
  });

  test('forgets flows that began without the table each time that it has written it', async () => {
    const forgotten: string[] = [];
    kernel.intercept = (tool, line) => {
      if (tool !== 'conntrack') return undefined;
      forgotten.push(line);
      return {
        exitCode: 1,
        stderr: 'conntrack v1.4.7 (conntrack-tools): 0 flow entries have been deleted.\n',
      };
    };
    const staleFlows = [['-f', 'ipv4', '-p', 'udp']];
    await reconciler.want([{ setup: { ...setup([1]), staleFlows } }]);
    assert.deepEqual(forgotten, ['-D -f ipv4 -p udp']);
    await reconciler.want([{ setup: { ...setup([1]), staleFlows } }]);
    assert.equal(forgotten.length, 1, 'nothing was written');
    await reconciler.want([{ setup: { ...setup([1, 2]), staleFlows } }]);
    kernel.table = undefined;
    await pass(2000);
    assert.equal(forgotten.length, 3);
    assert.equal(reconciler.report().failures, 0);
    kernel.intercept = (tool) => (tool === 'conntrack' ? DENIED : undefined);
    await reconciler.want([{ setup: { ...setup([3]), staleFlows } }]);
    assert.match(reconciler.report().lastFailure?.text ?? '', /conntrack was denied/);
    assert.equal(reconciler.report().state, 'in-place', 'new flows are treated as they should be');
  });

  test('remove() tells when it cannot', async () => {
    await reconciler.want([{ setup: setup([1]) }]);
    kernel.intercept = (_tool, line) => (line === '-f -' ? DENIED : undefined);
    await assert.rejects(reconciler.remove(), { code: 'LB_KERNEL_DENIED' });
  });
});
