import assert from 'node:assert/strict';
import { once } from 'node:events';
import { before, describe, test } from 'node:test';
import { campaign } from '../support/campaign.js';
import { eventually, within } from '../support/deadline.js';
import type { HaportsProcess } from '../support/haports-process.js';
import { splitLog } from '../support/log-lines.js';
import { useLab, whyNoNamespaces, type Host } from '../support/lab.js';
import { ARM, BACKENDS, configurationFor, FRONTEND, HUB, hub } from '../support/topologies.js';

/*
 * Forwarding is the kernel's: a process that crashes or stops in the middle of a transfer, and one that comes after it,
 * are not noticed by those who transfer.
 */

const PORT = 5201;
/** Enough that each tenth of a second has bytes, and that a busy machine can carry it. */
const BITS_PER_SECOND = '200M';
/** Before and after each change: some tenths of a second, or as many seconds. */
const MORE_BYTES = campaign({ share: 10_000_000, whole: 100_000_000 });

/** What each mode has in the configuration, which table in the kernel, and how its process ends. */
const MODES = {
  nat: {
    answers: 'through',
    kernel: {},
    table: 'inet haports',
    ends: ['SIGKILL', 'SIGTERM, with onStop keep'],
  },
  'floating-l2': {
    answers: 'direct',
    kernel: { interface: ARM },
    table: 'netdev haports',
    ends: ['SIGKILL'],
  },
} as const;

interface Interval {
  readonly sum: { readonly start: number; readonly seconds: number; readonly bytes: number };
}

for (const [mode, { answers, kernel, table, ends }] of Object.entries(MODES)) {
  describe(`a transfer through the kernel, ${mode}`, { skip: whyNoNamespaces('iperf3') }, () => {
    const lab = useLab(hub(answers));
    const { client, lb } = lab.hosts;
    before(() =>
      Promise.all(BACKENDS.map((name) => lab.host(name).start(`iperf3 -s -p ${PORT} --forceflush`))),
    );

    const start = (): Promise<HaportsProcess> =>
      lb.haports(
        configurationFor(HUB, {
          dataPlane: { kind: 'kernel', kernel: { mode, manageSysctls: true, onStop: 'keep', ...kernel } },
          rule: { distribution: 'source-ip', floatingIp: mode !== 'nat' },
          top: { logging: { format: 'json' } },
        }),
      );

    /** Structure with its handles: one that was made anew has others. */
    async function rules(): Promise<string> {
      assert.equal(await lb.must('nft list tables'), `table ${table}\n`);
      const text = await lb.must('nft -a list ruleset');
      return text
        .replaceAll(/ (packets|bytes|expires) \S+/g, '')
        .replaceAll(/^.*elements = \{[^}]*\}/gms, '');
    }

    /** The process of the test before. */
    let running: HaportsProcess | undefined;
    for (const how of ends) {
      test(`has no gap when the process ends by ${how} and comes back`, async (t) => {
        const first = running ?? (await start());
        const transfer = startTransfer(client);
        await bytesFlow();
        const before = await rules();
        await (how === 'SIGKILL' ? first.kill() : first.stop());
        assert.equal(await rules(), before, 'the rules stay while there is no process');
        await bytesFlow();
        const second = (running = await start());
        assert.equal(await rules(), before, 'the next process goes on with the rules it finds');
        await bytesFlow();
        t.diagnostic(withoutGaps(await transfer.end()));
        const errors = splitLog(second.log()).lines.filter(({ level }) => level === 'error');
        assert.deepEqual(errors, []);
      });
    }

    /** Returns when the client has sent some more. */
    async function bytesFlow(): Promise<void> {
      const { bytes } = await client.sent('router');
      const isSent = async (): Promise<boolean> => (await client.sent('router')).bytes > bytes + MORE_BYTES;
      await eventually(isSent, 60_000, `${MORE_BYTES} bytes to be sent`);
    }
  });
}

function startTransfer(client: Host): { end(): Promise<readonly Interval[]> } {
  const child = client.spawn(`iperf3 -J -c ${FRONTEND[4]} -p ${PORT} -t 120 -i 0.1 -b ${BITS_PER_SECOND}`);
  let output = '';
  child.stdout?.on('data', (text: Buffer) => (output += text.toString()));
  const closed = once(child, 'close');
  const end = async (): Promise<readonly Interval[]> => {
    assert.equal(child.exitCode, null, 'the transfer has gone on all the while');
    child.kill('SIGINT');
    await within(closed, 10_000, 'iperf3 to end');
    const report = JSON.parse(output) as { readonly error?: string; readonly intervals: readonly Interval[] };
    assert.match(report.error ?? '', /^interrupt/);
    return report.intervals;
  };
  return { end };
}

/** Gives the figures. */
function withoutGaps(intervals: readonly Interval[]): string {
  // The last one is not a whole one.
  const whole = intervals.slice(0, -1).map(({ sum }) => sum);
  const seconds = whole.reduce((total, one) => total + one.seconds, 0);
  const longest = Math.max(...whole.map((one) => one.seconds));
  const least = Math.min(...whole.map(({ bytes }) => bytes));
  // iperf3 itself comes late on a busy machine: then there are some less.
  assert.ok(whole.length >= seconds * 8, `${whole.length} intervals in ${seconds} s`);
  assert.deepEqual(
    whole.filter(({ bytes }) => bytes === 0),
    [],
  );
  return `${whole.length} intervals, the longest ${longest.toFixed(2)} s, ${least} bytes in the least of them`;
}
