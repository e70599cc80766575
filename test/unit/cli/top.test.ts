import type { FlowView } from '../../../src/api/views.js';
import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import {
  TOP_START,
  decodeKeys,
  pressKey,
  renderTop,
  topFlows,
  topQuery,
  type TopEffect,
  type TopModel,
} from '../../../src/cli/top.js';
import { eventually, within } from '../../support/deadline.js';
import { aBackendView, aFlow, aFlowList, aPool, aStatus, NOW_MS } from '../../support/api-answers.js';
import { cliLab } from './cli-lab.js';
import { problem } from './fake-admin.js';
import type { FakeDeps } from './fake-deps.js';

function aModel(flows: readonly FlowView[], more: Partial<TopModel> = {}): TopModel {
  const data = { status: aStatus(), pools: [aPool()], flows: aFlowList(flows, 500), atMs: NOW_MS };
  return { ...TOP_START, data, ...more };
}

/** The model after keys, and what they asked for. */
function type(model: TopModel, input: string): { model: TopModel; effects: readonly TopEffect[] } {
  let now = model;
  const effects = decodeKeys(input).map((key) => {
    const step = pressKey(now, key);
    now = step.model;
    return step.effect;
  });
  return { model: now, effects };
}

function screen(model: TopModel, columns = 80, rows = 24): readonly string[] {
  return renderTop(model, { columns, rows }).map(({ text }) => text);
}

const MANY = Array.from({ length: 60 }, (_, index) => aFlow(index));

describe('decodeKeys()', () => {
  test('knows arrows, control keys and characters, and skips other sequences', () => {
    assert.deepEqual(
      decodeKeys('q\u001b[A\u001bOB\u001b[5~\u001b[6~\u001b[15~\u001b[1;5C\u0003\r\u007fü\u0001'),
      ['q', 'up', 'down', 'page-up', 'page-down', 'ctrl-c', 'enter', 'backspace', 'ü'],
    );
    assert.deepEqual(decodeKeys('\u001b'), ['escape']);
  });
});

describe('pressKey()', () => {
  test('s goes through the sorts and asks each time', () => {
    const { model, effects } = type(aModel([]), 'sss');
    assert.equal(model.sort, 'idle');
    assert.deepEqual(effects, ['ask', 'ask', 'ask']);
    assert.equal(type(model, 's').model.sort, 'age');
  });

  test('/ types a filter: Enter takes it, Esc leaves it, Esc again clears it', () => {
    const typing = type(aModel([]), '/nva-22\u007f').model;
    assert.equal(typing.typing, 'nva-2');
    assert.equal(typing.filter, '', 'not yet');
    const taken = type(typing, '\r');
    assert.deepEqual([taken.model.filter, taken.model.typing, taken.effects], ['nva-2', undefined, ['ask']]);
    assert.equal(type(taken.model, '/xyz\u001b').model.filter, 'nva-2');
    const cleared = type(taken.model, '\u001b');
    assert.deepEqual([cleared.model.filter, cleared.effects], ['', ['ask']]);
    assert.equal(type(aModel([]), '/q').model.typing, 'q', 'q is a letter there');
    assert.deepEqual(type(aModel([]), '/q\u0003').effects.at(-1), 'quit');
    assert.equal(type(aModel([]), `/${'x'.repeat(500)}`).model.typing?.length, 64);
  });

  test('b and f show one pane and both again, p pauses, ? helps, q and Ctrl-C quit', () => {
    const model = aModel([]);
    assert.deepEqual(
      ['b', 'bb', 'f', 'bf', 'ff'].map((keys) => type(model, keys).model.panes),
      ['backends', 'both', 'flows', 'flows', 'both'],
    );
    assert.equal(type(model, 'p').model.paused, true);
    assert.deepEqual(type(model, 'pp').effects, ['none', 'ask']);
    assert.equal(type(model, '?').model.help, true);
    assert.equal(type(model, '?x').model.help, false);
    for (const keys of ['q', '\u0003', '?q']) assert.equal(type(model, keys).effects.at(-1), 'quit', keys);
  });

  test('scrolling stops at both ends', () => {
    const model = aModel(MANY);
    assert.equal(type(model, 'k\u001b[A').model.scroll, 0);
    assert.equal(type(model, 'jj\u001b[B').model.scroll, 3);
    assert.equal(type(model, '\u001b[6~'.repeat(20)).model.scroll, 59);
    assert.equal(type(model, '\u001b[6~\u001b[5~').model.scroll, 0);
  });
});

describe('topQuery() and topFlows()', () => {
  test('let the process filter by whole addresses and backends, and filter parts here', () => {
    const query = (filter: string) => topQuery(aModel([], { filter }));
    assert.deepEqual(query(''), { sort: 'age', limit: 200 });
    assert.deepEqual(query('192.0.2.7'), { sort: 'age', limit: 200, source: '192.0.2.7' });
    assert.deepEqual(query('nvas/nva-2'), { sort: 'age', limit: 200, backend: 'nvas/127.0.0.12' });
    assert.deepEqual(query('nva'), { sort: 'age', limit: 1000 });
    assert.deepEqual(query('127.0.0.11'), { sort: 'age', limit: 1000 }, 'a backend, not a client');
  });

  test('match clients and backends by name, id and address', () => {
    const other = aFlow(2, { backendId: 'nvas/127.0.0.12' });
    const ids = (filter: string) => topFlows(aModel([aFlow(1), other], { filter })).map(({ id }) => id);
    assert.deepEqual(ids('NVA-2'), [2]);
    assert.deepEqual(ids('127.0.0.11'), [1]);
    assert.deepEqual(ids(':40002'), [2]);
    assert.deepEqual(ids('elsewhere'), []);
  });

  test('sort by age, bytes, rate and idle, most first', () => {
    const flows = [
      aFlow(1, { openedAtMs: 30, bytesToClient: 1, bitsPerSecond: 5, idleMs: 2 }),
      aFlow(2, { openedAtMs: 10, bytesToClient: 9000, idleMs: 1 }),
      aFlow(3, { openedAtMs: 20, bytesToClient: 5000, bitsPerSecond: 9, idleMs: 3 }),
    ];
    const order = (sort: TopModel['sort']) => topFlows(aModel(flows, { sort })).map(({ id }) => id);
    assert.deepEqual(order('age'), [2, 3, 1]);
    assert.deepEqual(order('bytes'), [2, 3, 1]);
    assert.deepEqual(order('rate'), [3, 1, 2]);
    assert.deepEqual(order('idle'), [3, 1, 2]);
  });
});

describe('renderTop()', () => {
  test('fills any terminal exactly and never is wider', () => {
    const models = [
      aModel(MANY),
      aModel([]),
      aModel(MANY, { help: true, trouble: 'No answer' }),
      aModel(MANY, { panes: 'backends' }),
      aModel(MANY, { panes: 'flows', filter: 'nva', typing: 'x'.repeat(64), paused: true }),
    ];
    for (const model of models) {
      for (const [columns, rows] of [
        [80, 24],
        [200, 60],
        [40, 10],
        [20, 5],
        [10, 3],
        [1, 1],
      ] as const) {
        const lines = screen(model, columns, rows);
        assert.equal(lines.length, rows, `${columns}x${rows}`);
        for (const line of lines) assert.ok(line.length <= columns, `${columns}x${rows}: ${line}`);
      }
    }
  });

  test('shows totals, backends, and flows with their reasons at 80x24', () => {
    const lines = screen(aModel(MANY.map((flow) => ({ ...flow, reason: 'pinned' }))));
    assert.match(lines[0] ?? '', /^haports 0\.1\.0 {2}up 3h05m {2}revision 17 {2}2 of 3 backends serving$/);
    assert.match(lines[1] ?? '', /^42 flows {2}7\.3 new\/s {2}in 1\.20 Mbit\/s {2}out 346 Mbit\/s/);
    assert.match(lines[2] ?? '', /TCP 30\/65\.5k 0\.0 %/);
    assert.equal(lines[3], 'no problems');
    const text = lines.join('\n');
    assert.match(text, /^nva-3 +probe down/m);
    assert.match(text, /^Flows 1-12 of 500 by age$/m);
    assert.equal(
      lines.filter((line) => /^tcp +192\.0\.2\.7:400\d\d .*nvas\/nva-1 +pinned/.test(line)).length,
      12,
    );
    assert.match(lines[23] ?? '', /^q quit .*\? help/);
  });

  test('marks what is wrong', () => {
    const model = aModel([], { trouble: 'No answer from haports' });
    const status = aStatus({ problems: ['no listener is open', 'a worker is gone'] });
    const lines = renderTop({ ...model, data: { ...model.data, status } }, { columns: 100, rows: 30 });
    const alerts = lines.filter(({ style }) => style === 'alert').map(({ text }) => text);
    assert.equal(alerts[0], '2 problems: no listener is open; a worker is gone');
    assert.equal(alerts[1], 'No answer from haports');
    assert.match(alerts[2] ?? '', /^nva-3 +probe down/);
  });

  test('leaves half of the room to flows however many backends there are', () => {
    const backends = Array.from({ length: 40 }, (_, index) =>
      aBackendView(`nva-${index}`, `127.0.1.${index}`),
    );
    const model = aModel(MANY);
    const lines = screen({ ...model, data: { ...model.data, pools: [aPool({ backends })] } });
    assert.ok(lines.filter((line) => line.startsWith('tcp')).length >= 7, lines.join('\n'));
    assert.match(lines.join('\n'), /^\d+ more lines \(b\)$/m);
  });

  test('scrolls, never past the last flow, and shows what is typed', () => {
    const all = screen(aModel(MANY, { panes: 'flows', scroll: 59, typing: 'abc' }));
    assert.match(all.join('\n'), /^Flows 44-60 of 500/m);
    assert.match(all[23] ?? '', /^Client or backend: abc_/);
    assert.match(screen(aModel(MANY, { paused: true }))[23] ?? '', /^PAUSED/);
  });
});

describe('haports top', () => {
  const lab = cliLab({ haste: 20 });
  let deps: FakeDeps;
  const asked = () => lab.asked('/v1/flows');
  beforeEach(() => {
    lab.answer('GET /v1/status', aStatus());
    lab.answer('GET /v1/pools', [aPool()]);
    lab.answer('GET /v1/flows', aFlowList([aFlow(1)]));
    deps = lab.deps;
  });

  /** `top` on a terminal, drawn once. */
  async function onTerminal(...args: readonly string[]): Promise<Promise<number>[]> {
    deps.terminal.isInteractive = true;
    const exit = deps.run('top', ...args);
    await eventually(() => deps.terminal.drawn.length > 0, 5000, 'the first screen');
    return [exit];
  }

  async function quit(exit: Promise<number>): Promise<void> {
    deps.terminal.type('q');
    assert.equal(await within(exit, 5000, 'the end of top'), 0);
  }

  test('--json prints one snapshot', async () => {
    assert.equal(await deps.run('top', '--json', '--sort', 'rate'), 0);
    assert.deepEqual(JSON.parse(deps.stdout), {
      status: aStatus(),
      pools: [aPool()],
      flows: aFlowList([aFlow(1)]),
    });
    assert.equal(asked()[0]?.query['sort'], 'rate');
  });

  for (const [what, end] of [
    ['q', () => deps.terminal.type('q')],
    ['Ctrl-C', () => deps.terminal.type('\u0003')],
    ['SIGTERM', () => deps.signal('SIGTERM')],
    ['SIGHUP', () => deps.signal('SIGHUP')],
    ['a terminal that is gone', () => deps.closeOutput()],
  ] as const) {
    test(`${what} ends it and gives the terminal back`, async () => {
      const [exit] = await onTerminal();
      assert.equal(deps.terminal.closed, 0);
      end();
      assert.equal(await within(exit!, 5000, 'the end of top'), 0);
      assert.deepEqual([deps.terminal.opened, deps.terminal.closed], [1, 1]);
      assert.deepEqual([deps.signalListeners, deps.outputListeners, deps.stdout], [0, 0, '']);
    });
  }

  test('asks again and again, at once for another sort or filter, and not while paused', async () => {
    const [exit] = await onTerminal();
    await eventually(() => asked().length >= 3, 5000, 'the third question');
    deps.terminal.type('s');
    await eventually(() => asked().at(-1)?.query['sort'] === 'bytes', 5000, 'the question for another sort');
    deps.terminal.type('/192.0.2.7\r');
    await eventually(() => asked().at(-1)?.query['source'] === '192.0.2.7', 5000, 'the filtered question');
    deps.terminal.type('p');
    assert.match(deps.terminal.screen, /PAUSED/);
    await new Promise((resolve) => setTimeout(resolve, 100));
    const before = asked().length;
    await new Promise((resolve) => setTimeout(resolve, 200));
    assert.equal(asked().length, before);
    deps.terminal.type('p');
    await eventually(() => asked().length > before, 5000, 'a question after the pause');
    await quit(exit!);
  });

  test('draws at once when the terminal gets another size', async () => {
    const [exit] = await onTerminal();
    deps.terminal.resize(40, 10);
    assert.equal(deps.terminal.screen.split('\n').length, 10);
    await quit(exit!);
  });

  test('continues while the process does not answer, and says so', async () => {
    const [exit] = await onTerminal();
    lab.answer('GET /v1/pools', problem(500, 'LB_WORKER_LOST', 'The worker is being replaced'));
    await eventually(
      () => deps.terminal.screen.includes('The worker is being replaced'),
      5000,
      'the trouble',
    );
    lab.answer('GET /v1/pools', [aPool()]);
    await eventually(() => !deps.terminal.screen.includes('being replaced'), 5000, 'the end of the trouble');
    await quit(exit!);
  });

  test('gives the terminal back when drawing fails', async () => {
    const [exit] = await onTerminal();
    deps.terminal.onDraw = () => {
      throw new RangeError('Cannot draw');
    };
    assert.equal(await within(exit!, 5000, 'the end of top'), 1);
    assert.match(deps.stderr, /RangeError: Cannot draw/);
    assert.equal(deps.terminal.closed, 1);
  });
});
