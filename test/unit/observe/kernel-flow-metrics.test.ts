import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { KERNEL_FLOW_METRICS } from '../../../src/observe/traffic-metrics.js';
import type { MetricsSnapshot } from '../../../src/observe/metric-family.js';
import { logTablePressure } from '../../../src/observe/event-text.js';
import { RecordingLogger } from './recording-logger.js';

function collect(kernelFlows: object | undefined): Record<string, unknown> {
  const counters = kernelFlows === undefined ? undefined : { kernelFlows };
  const backendLabels = (id: string) => ({ pool: 'nvas', backend: id });
  const snapshot = { counters, backendLabels } as unknown as MetricsSnapshot;
  return Object.fromEntries(KERNEL_FLOW_METRICS.map((family) => [family.name, family.collect(snapshot)]));
}

describe('KERNEL_FLOW_METRICS', () => {
  test('say how full conntrack is, and what is not in the list of flows', () => {
    const otherFlows = [
      { backendId: 'b1', protocol: 1, opened: 5, active: 2 },
      { backendId: 'b2', protocol: 253, opened: 3, active: 0 },
    ];
    const found = collect({ conntrack: { used: 7, limit: 10 }, otherFlows, unlisted: 4, gaps: 1 });
    const plain = (value: number) => [{ labels: {}, value }];
    const other = (one: number, two: number) => [
      { labels: { pool: 'nvas', backend: 'b1', protocol: 'icmp' }, value: one },
      { labels: { pool: 'nvas', backend: 'b2', protocol: '253' }, value: two },
    ];
    assert.deepEqual(found, {
      haports_conntrack_entries: plain(7),
      haports_conntrack_limit: plain(10),
      haports_unlisted_flows: plain(4),
      haports_flow_event_gaps_total: plain(1),
      haports_other_flows_active: other(2, 0),
      haports_other_flows_opened_total: other(5, 3),
    });
  });

  test("are absent where the flows are not the kernel's, and without conntrack", () => {
    assert.deepEqual(Object.values(collect(undefined)).flat(), []);
    const { haports_conntrack_entries: entries } = collect({ otherFlows: [], unlisted: 0, gaps: 0 });
    assert.deepEqual(entries, []);
  });
});

describe('logTablePressure()', () => {
  test('warns, alarms and calms', () => {
    const logger = new RecordingLogger();
    for (const level of ['high', 'exhausted', 'normal'] as const) {
      logTablePressure(logger, { type: 'table-pressure', atMs: 0, level, used: 8, limit: 10 });
    }
    assert.deepEqual(
      logger.lines.map(({ level, message }) => `${level} ${message.split(':')[0]}`),
      [
        'warn The table of conntrack is filling up',
        'error The table of conntrack is full, new flows fail',
        'info The table of conntrack has room again',
      ],
    );
  });
});
