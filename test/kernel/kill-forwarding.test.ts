import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import type { CapturedHaports } from '../support/capture-lab.js';
import { within } from '../support/deadline.js';
import { startInLab } from '../support/lab-haports.js';
import { whyNoNamespaces, type NamespaceLab } from '../support/namespaces.js';
import { BACKEND_NAMES, LAB_BACKENDS, LAB_FRONTENDS, openRouterLab } from '../support/router-lab.js';

/*
 * Forwarding is the kernel's: a process that crashes or stops in the middle of a transfer, and one that comes after it,
 * are not noticed by those who transfer.
 */

const HOST = LAB_FRONTENDS[4][0];
const PORT = 5201;
const SECONDS = 10;
const [END_AT_MS, START_AT_MS] = [3000, 6000];
/** Enough that each tenth of a second has bytes, and that a busy machine can carry it. */
const BITS_PER_SECOND = '200M';

/** What each mode has in the configuration, and which tables in the kernel. */
const MODES = {
  nat: { kernel: {}, tables: ['inet haports'] },
  'floating-l2': { kernel: { interface: 'router' }, tables: ['netdev haports'] },
} as const;
type Mode = keyof typeof MODES;

const ENDS = {
  SIGKILL: (process: CapturedHaports): Promise<unknown> => process.kill(),
  'SIGTERM, with onStop keep': (process: CapturedHaports): Promise<unknown> => process.stop(),
} as const;
type End = keyof typeof ENDS;

function configOf(mode: Mode): object {
  return {
    dataPlane: {
      kind: 'kernel',
      kernel: { mode, manageSysctls: true, onStop: 'keep', ...MODES[mode].kernel },
    },
    frontends: [{ name: 'hub', address: HOST }],
    backendPools: [
      {
        name: 'nvas',
        backends: LAB_BACKENDS[4].map((address, index) => ({ name: `b${index + 1}`, address })),
      },
    ],
    rules: [
      {
        ...{ name: 'all', frontend: 'hub', backendPool: 'nvas', haPorts: true },
        ...{ distribution: 'source-ip', floatingIp: mode !== 'nat' },
      },
    ],
    logging: { format: 'json' },
  };
}

interface Interval {
  readonly sum: { readonly start: number; readonly seconds: number; readonly bytes: number };
}

for (const [mode, ends] of [
  ['nat', ['SIGKILL', 'SIGTERM, with onStop keep']],
  ['floating-l2', ['SIGKILL']],
] as const satisfies readonly (readonly [Mode, readonly End[]])[]) {
  describe(`a transfer through the kernel, ${mode}`, { skip: whyNoNamespaces('iperf3') }, () => {
    let lab: NamespaceLab;

    before(async () => {
      lab = await openRouterLab({ answers: mode === 'nat' ? 'through-balancer' : 'direct' });
      for (const name of BACKEND_NAMES) {
        const server = lab.spawn(name, 'iperf3', ['-s', '-p', String(PORT), '--forceflush'], {
          stdio: ['ignore', 'pipe', 'inherit'],
        });
        assert.ok(server.stdout);
        await within(once(server.stdout, 'data'), 10_000, `iperf3 in ${name}`);
      }
    });
    after(() => lab.close());

    for (const how of ends) {
      test(`has no gap when the process ends by ${how} and comes back`, async (t) => {
        const first = await startInLab(lab, configOf(mode));
        const transfer = runIperf(lab);
        // It is awaited last, and what fails before that says more.
        transfer.catch(() => undefined);
        await pause(END_AT_MS);
        const before = await rulesOf(lab, mode);
        await ENDS[how](first);
        assert.equal(await rulesOf(lab, mode), before, 'the rules stay while nobody is there');
        await pause(START_AT_MS - END_AT_MS);
        const second = await startInLab(lab, configOf(mode));
        try {
          assert.equal(await rulesOf(lab, mode), before, 'the next process goes on with the rules it finds');
          t.diagnostic(withoutGaps(await transfer));
          assert.deepEqual(errorLines(second), []);
        } finally {
          await second.kill();
        }
      });
    }
  });
}

/** Gives the figures. */
function withoutGaps(intervals: readonly Interval[]): string {
  const gaps = intervals.filter(({ sum }) => sum.bytes === 0).map(({ sum }) => sum.start);
  const least = Math.min(...intervals.map(({ sum }) => sum.bytes));
  const longest = Math.max(...intervals.map(({ sum }) => sum.seconds));
  // iperf3 itself comes late on a busy machine: then there are some less.
  assert.ok(intervals.length >= SECONDS * 8, `${intervals.length} intervals`);
  assert.deepEqual(gaps, []);
  return `${intervals.length} intervals, the longest ${longest.toFixed(2)} s, ${least} bytes in the least of them`;
}

/** Structure with its handles: one that was made anew has others. */
async function rulesOf(lab: NamespaceLab, mode: Mode): Promise<string> {
  const tables = await lab.must('lb', 'nft', ['list', 'tables']);
  assert.deepEqual([...tables.matchAll(/^table (.*)$/gm)].map(([, name]) => name).sort(), [
    ...MODES[mode].tables,
  ]);
  const text = await lab.must('lb', 'nft', ['-a', 'list', 'ruleset']);
  return text.replaceAll(/ (packets|bytes|expires) \S+/g, '').replaceAll(/^.*elements = \{[^}]*\}/gms, '');
}

async function runIperf(lab: NamespaceLab): Promise<readonly Interval[]> {
  const args = [
    '-J',
    '-c',
    HOST,
    '-p',
    String(PORT),
    '-t',
    String(SECONDS),
    '-i',
    '0.1',
    '-b',
    BITS_PER_SECOND,
  ];
  const output = await lab.must('client', 'iperf3', args, { timeoutMs: 30_000 });
  const report = JSON.parse(output) as { readonly error?: string; readonly intervals: readonly Interval[] };
  assert.equal(report.error, undefined);
  return report.intervals;
}

function errorLines(process: CapturedHaports): readonly string[] {
  return process
    .log()
    .split('\n')
    .filter((line) => line.startsWith('{"level":"error"'));
}

async function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
