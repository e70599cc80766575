import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { KernelChanged } from '../../../src/model/events.js';
import type { KernelReport } from '../../../src/model/kernel-report.js';
import { EventLog } from '../../../src/observe/event-text.js';
import { KERNEL_METRICS } from '../../../src/observe/traffic-metrics.js';
import type { MetricsSnapshot } from '../../../src/observe/metric-family.js';
import { FakeClock } from '../../support/fake-clock.js';
import { RecordingLogger } from './recording-logger.js';

const REPORT: KernelReport = {
  ...{ table: 'inet haports', mode: 'capture dnat-map, udp redirect', why: 'Chosen because of this' },
  ...{ state: 'in-place', sinceMs: 0, repairs: 3, failures: 2, tool: 'nftables v1.0.6' },
};

describe('EventLog.plane()', () => {
  test('tells what became of what is in the kernel, and at first why it is there', () => {
    const logger = new RecordingLogger();
    const log = new EventLog({ logger, clock: new FakeClock() });
    const change = (what: KernelChanged['change'], evidence?: string): void =>
      log.plane([
        {
          ...{ type: 'kernel-changed', atMs: 0, change: what, report: REPORT },
          ...(evidence === undefined ? {} : { evidence }),
        },
      ]);
    change('installed');
    change('repaired', 'Table inet haports was gone');
    change('failed', 'nft failed: no');
    change('removed');
    assert.deepEqual(logger.texts, [
      'info Table inet haports is in the kernel: capture dnat-map, udp redirect. Chosen because of this',
      'warn Table inet haports was put right in the kernel: Table inet haports was gone',
      'error Table inet haports cannot be put in the kernel: nft failed: no',
      'info Table inet haports was taken out of the kernel',
    ]);
    assert.deepEqual(
      logger.lines.map(({ fields }) => fields['event']),
      ['kernel-installed', 'kernel-repaired', 'kernel-failed', 'kernel-removed'],
    );
  });
});

describe('KERNEL_METRICS', () => {
  const values = (kernel: KernelReport | undefined) =>
    KERNEL_METRICS.map((family) => [
      family.name,
      family.type === 'histogram' ? [] : family.collect({ kernel } as MetricsSnapshot),
    ]);

  test('count what a report has, and are absent without one', () => {
    const sample = (value: number) => [{ labels: {}, value }];
    assert.deepEqual(values(REPORT), [
      ['haports_kernel_in_place', sample(1)],
      ['haports_kernel_repairs_total', sample(3)],
      ['haports_kernel_failures_total', sample(2)],
    ]);
    assert.deepEqual(values({ ...REPORT, state: 'failing' })[0], ['haports_kernel_in_place', sample(0)]);
    assert.deepEqual(
      values(undefined).map(([, samples]) => samples),
      [[], [], []],
    );
  });
});
