import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { aDrain } from '../../support/api-answers.js';
import { within } from '../../support/deadline.js';
import { cliLab } from './cli-lab.js';

const DRAIN = '/v1/backends/nvas/nva-1/drain';

describe('haports drain --watch', () => {
  const lab = cliLab();

  /** Each status that the process answers with is the next of the drain's; what is printed until the watching ends. */
  async function watch(
    { json = false, exit = 0 },
    ...phases: readonly Parameters<typeof aDrain>[0][]
  ): Promise<string> {
    const [first, ...later] = phases.map((phase) => aDrain(phase));
    lab.answer(`POST ${DRAIN}`, aDrain());
    if (first !== undefined) lab.answer(`GET ${DRAIN}`, first, ...later);
    const code = lab.deps.run('drain', 'nvas/nva-1', '--watch', ...(json ? ['--json'] : []));
    assert.equal(await within(code, 5000, 'the end of watching'), exit);
    return lab.deps.stdout;
  }

  test('shows each phase until it is done, in lines where there is no terminal', async () => {
    const text = await watch({}, {}, { phase: 'ending' }, { phase: 'done', flows: { tcp: 0, udp: 0 } });
    assert.deepEqual(text.split('\n'), [
      'nvas/nva-1 draining: 12 flows left of 300, deadline in 9m00s',
      'nvas/nva-1 ending flows: 12 flows left of 300, deadline in 9m00s',
      'nvas/nva-1 drained: no flow is left, after 1m00s; nvas/nva-1 gets no new flows until --cancel',
      '',
    ]);
  });

  test('shows it in place on a terminal', async () => {
    lab.deps.terminal.isInteractive = true;
    const text = await watch({}, { flows: { tcp: 5, udp: 0 } }, { phase: 'done', flows: { tcp: 3, udp: 0 } });
    const [first = '', second = '', third = ''] = text.split('\r\u001b[J').slice(1);
    const height = first.split('\n').length - 1;
    assert.ok(height > 4);
    assert.ok(first.endsWith(`\u001b[${height}A`), 'goes back up as many lines as it has written');
    assert.match(second, /5 flows left of 300/);
    assert.match(third, /3 flows left alone/);
  });

  test('prints one status a line with --json', async () => {
    const text = await watch({ json: true }, { phase: 'done' });
    const lines = text.trimEnd().split('\n');
    assert.deepEqual(
      lines.map((line) => JSON.parse(line) as unknown),
      [aDrain(), aDrain({ phase: 'done' })],
    );
  });

  for (const [what, stop] of [
    ['Ctrl-C', () => lab.deps.signal('SIGINT')],
    ['a reader that leaves', () => lab.deps.closeOutput()],
  ] as const) {
    test(`${what} ends it and leaves the drain running`, async () => {
      lab.admin.answers.set(`GET ${DRAIN}`, () => {
        setImmediate(stop);
        return { json: aDrain() };
      });
      assert.match(await watch({}), /The drain continues; .*--show --watch.*--cancel/);
      assert.ok(!lab.admin.asked.includes(`DELETE ${DRAIN}`));
      assert.deepEqual([lab.deps.signalListeners, lab.deps.outputListeners], [0, 0]);
    });
  }

  test('ends with exit code 1 where another operator cancels the drain', async () => {
    assert.match(await watch({ exit: 1 }), /no longer being drained: the drain was cancelled/);
  });
});
