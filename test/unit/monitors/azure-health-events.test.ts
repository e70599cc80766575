import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { AzureHealthEvents } from '../../../src/monitors/azure.js';
import type { PlaneCounters, SourcePortUse } from '../../../src/planes/contract.js';
import type { HealthEventName, SourcePortPressure } from '../../../src/model/events.js';
import { counters, probedState, sample, statusOf } from './monitor-fixtures.js';

const A = { address: '127.0.0.11' };
const B = { address: '127.0.0.12' };
const STATE = probedState([A, B]);

describe('AzureHealthEvents.observe() of listeners', () => {
  /** Availability over seconds, one sample each; statuses of warning and critical after the last. */
  function after(...phases: readonly (readonly [seconds: number, open: number | 'none' | 'silent'])[]) {
    const monitor = new AzureHealthEvents();
    let findings: ReturnType<AzureHealthEvents['observe']> = [];
    let atMs = 0;
    for (const [seconds, open] of phases) {
      for (let second = 0; second < seconds; second++, atMs += 1000) {
        const listeners: PlaneCounters['listeners'] =
          open === 'none' ? {} : { hub: { open: Number(open), wanted: 100 } };
        const given = open === 'silent' ? undefined : counters({ listeners });
        findings = monitor.observe({ atMs, counters: given }, STATE);
      }
    }
    return [
      statusOf(findings, 'DataPathAvailabilityWarning', 'hub'),
      statusOf(findings, 'DataPathAvailabilityCritical', 'hub'),
    ];
  }

  test('observe() raises below 90 % and below 25 %, on average over a whole minute', () => {
    assert.deepEqual(after([61, 90]), ['fine', 'fine']);
    assert.deepEqual(after([61, 89]), ['bad', 'fine']);
    assert.deepEqual(after([61, 25]), ['bad', 'fine']);
    assert.deepEqual(after([61, 24]), ['bad', 'bad']);
    assert.deepEqual(after([60, 0]), ['unclear', 'unclear'], 'not a whole minute yet');
  });

  test('observe() averages: six seconds of nothing are 10 % of a minute, seven are more', () => {
    assert.deepEqual(after([100, 100], [6, 0]), ['fine', 'fine']);
    assert.deepEqual(after([100, 100], [7, 0]), ['bad', 'fine']);
    assert.deepEqual(after([100, 100], [45, 0]), ['bad', 'fine']);
    assert.deepEqual(after([100, 100], [46, 0]), ['bad', 'bad']);
    assert.deepEqual(after([100, 0], [54, 100]), ['fine', 'fine']);
  });

  test('observe() takes a data plane that is silent, or has no listeners left, for 0 %', () => {
    assert.deepEqual(after([100, 100], [46, 'silent']), ['bad', 'bad']);
    assert.deepEqual(after([100, 100], [46, 'none']), ['bad', 'bad']);
    assert.deepEqual(after([100, 'none']), [undefined, undefined], 'there never were any');
  });

  test('observe() tells of a frontend that has a name of every object', () => {
    const state = probedState([A], { frontend: 'constructor' });
    const findings = new AzureHealthEvents().observe(sample(0), state);
    assert.equal(statusOf(findings, 'DataPathAvailabilityWarning', 'constructor'), undefined);
  });
});

describe('AzureHealthEvents.observe() of pools', () => {
  function status(...members: Parameters<typeof probedState>[0]) {
    return new AzureHealthEvents()
      .observe(sample(0), probedState(members))
      .find(({ subject }) => subject === 'nvas');
  }

  test('observe() finds a pool without a backend that may get new flows', () => {
    assert.equal(status(A, { ...B, health: 'down' })?.status, 'fine');
    const none = status({ ...A, health: 'down' }, { ...B, admin: 'down' });
    assert.equal(none?.name, 'NoHealthyBackends');
    assert.equal(none.status, 'bad');
    assert.equal(
      none.evidence,
      '0 of 2 backends may get new flows by probe "alive": 1 probe-down, 1 admin-down',
    );
    assert.equal(status({ ...A, health: 'down' }, { ...B, health: 'unknown' })?.status, 'unclear');
  });

  test('observe() judges a pool even while the data plane is silent', () => {
    const findings = new AzureHealthEvents().observe(
      { atMs: 0, counters: undefined },
      probedState([{ ...A, health: 'down' }]),
    );
    assert.equal(statusOf(findings, 'NoHealthyBackends', 'nvas'), 'bad');
  });
});

describe('AzureHealthEvents.observe() of source ports', () => {
  const ID = 'nvas/127.0.0.11';

  function use(used: number, available = 1000): SourcePortUse {
    return { backendId: ID, protocol: 'udp', sourceAddress: '127.0.0.2', used, available };
  }

  function pressure(pressure: SourcePortPressure['pressure']): SourcePortPressure {
    return {
      type: 'source-port-pressure',
      atMs: 0,
      backendId: ID,
      sourceAddress: '127.0.0.2',
      pressure,
      used: 0,
      available: 0,
    };
  }

  /** The worst of the findings, as the alarm book takes it. */
  function worst(
    monitor: AzureHealthEvents,
    atMs: number,
    uses: readonly SourcePortUse[],
    name: HealthEventName,
  ) {
    const found = monitor
      .observe(sample(atMs, { sourcePorts: uses }), STATE)
      .filter((finding) => finding.name === name);
    return ['bad', 'unclear', 'fine'].find((status) => found.some((finding) => finding.status === status));
  }

  test('observe() tells high usage above 75 %, until it is below 70 %', () => {
    const high = (used: number) => worst(new AzureHealthEvents(), 0, [use(used)], 'HighSnatPortUsage');
    assert.deepEqual([750, 751, 700, 699].map(high), ['unclear', 'bad', 'unclear', 'fine']);
    assert.equal(worst(new AzureHealthEvents(), 0, [use(10), use(800)], 'HighSnatPortUsage'), 'bad');
    assert.equal(worst(new AzureHealthEvents(), 0, [use(0, 0)], 'HighSnatPortUsage'), undefined);
  });

  test('observe() tells exhaustion by the numbers, and by events between samples for a minute', () => {
    const name = 'SnatPortExhaustion';
    assert.equal(worst(new AzureHealthEvents(), 0, [use(1000)], name), 'bad');
    assert.equal(worst(new AzureHealthEvents(), 0, [use(999)], name), 'fine');
    const monitor = new AzureHealthEvents();
    for (const level of ['high', 'normal'] as const) monitor.portPressure(pressure(level));
    assert.equal(worst(monitor, 0, [use(1)], name), 'fine');
    for (const level of ['exhausted', 'normal'] as const) monitor.portPressure(pressure(level));
    assert.equal(worst(monitor, 1000, [use(1)], name), 'bad');
    assert.equal(worst(monitor, 60_999, [], name), 'bad');
    assert.equal(worst(monitor, 61_000, [use(1)], name), 'fine');
  });
});
