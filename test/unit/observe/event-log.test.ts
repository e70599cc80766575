import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { ControlEvent, PlaneEvent } from '../../../src/model/events.js';
import { EventLog } from '../../../src/observe/event-text.js';
import { FakeClock } from '../../support/fake-clock.js';
import { RecordingLogger } from './recording-logger.js';
import { sampleConfiguration, sampleFlow } from './sample-state.js';

function eventLog() {
  const logger = new RecordingLogger();
  const clock = new FakeClock();
  return { logger, clock, log: new EventLog({ logger, clock }) };
}

function logged(...events: readonly ControlEvent[]): readonly string[] {
  const { logger, log } = eventLog();
  for (const event of events) log.control(event);
  return logger.texts;
}

function serving(eligible: number): ControlEvent {
  const base = { type: 'pool-serving-changed', pool: 'nvas', probe: 'alive', eligible, total: 3 } as const;
  return eligible === 0 ? base : { ...base, servingPriority: 0 };
}

const member = { pool: 'nvas', backendId: 'nvas/127.0.0.11', backendName: 'nva-1' };

describe('EventLog.control()', () => {
  test('control() logs each fact in one line', () => {
    const transition = { atMs: 1, from: 'up', to: 'down', evidence: 'HTTP 503' } as const;
    const lines = logged(
      { type: 'starting', version: '0.1.0', workers: 1 },
      {
        type: 'config-loaded',
        configuration: sampleConfiguration('0123456789abcdef'),
        source: 'c.json',
        findings: 2,
      },
      { type: 'health-changed', ...member, probe: 'alive', transition },
      {
        type: 'health-changed',
        ...member,
        probe: 'alive',
        transition: { ...transition, from: 'down', to: 'up', evidence: 'HTTP 200' },
      },
      { type: 'admin-changed', ...member, from: 'none', to: 'down' },
      { type: 'apply-failed', revision: 4, error: new Error('no socket') },
      { type: 'stopping', cause: 'SIGTERM', deadlineMs: 30_000 },
      { type: 'stopped', report: { finished: 5, reset: 1 } },
      { type: 'stopping', cause: 'SIGTERM', deadlineMs: 30_000, keptInKernel: true },
      { type: 'stopped', report: { finished: 0, reset: 0 }, keptInKernel: true },
    );
    assert.deepEqual(lines, [
      'info haports 0.1.0 is starting',
      'info Loaded configuration "c.json", digest 0123456789ab',
      'warn Probe "alive" finds backend "nva-1" in pool "nvas" down: HTTP 503',
      'info Probe "alive" finds backend "nva-1" in pool "nvas" up: HTTP 200',
      'info Admin state of backend "nva-1" in pool "nvas" changed from none to down',
      'error Cannot apply revision 4: no socket',
      'info Stopping on SIGTERM: flows may finish for 30000 ms',
      'info Stopped: 5 flows finished, 1 were ended',
      'info Stopping on SIGTERM: the kernel goes on forwarding by what it has',
      'info Stopped: the kernel goes on forwarding by what it has',
    ]);
  });

  test('control() tells a recovery from a change', () => {
    assert.deepEqual(logged(serving(3), serving(0), serving(1), serving(2)), [
      'info Pool "nvas": 3 of 3 backends are eligible, priority 0 serves',
      'error No backend of pool "nvas" is eligible (0 of 3)',
      'info Pool "nvas" has recovered: 1 of 3 backends are eligible, priority 0 serves',
      'info Pool "nvas": 2 of 3 backends are eligible, priority 0 serves',
    ]);
  });

  test('control() puts listener failures together', () => {
    const { logger, log } = eventLog();
    const failure = { rule: 'ha-ports', protocol: 'tcp', address: '127.0.0.1', errorCode: 'EACCES' } as const;
    const failures = [
      ...Array.from({ length: 1023 }, (_, index) => ({ ...failure, port: index + 1 })),
      { ...failure, port: 8080, errorCode: 'EADDRINUSE' },
    ];
    log.control({
      type: 'applied',
      digest: 'd1',
      report: { revision: 1, listeners: { tcp: 64_511, udp: 0 }, failures },
    });
    assert.deepEqual(logger.texts, [
      'info Applied revision 1: listening on 64511 TCP and 0 UDP ports',
      'warn Cannot listen on 1024 of 65535 ports, first tcp 1-1023 (EACCES)',
    ]);
    const base = { rule: 'ha-ports', protocol: 'tcp', address: '127.0.0.1' };
    assert.deepEqual(logger.lines[1]?.fields['failures'], [
      { ...base, errorCode: 'EACCES', count: 1023, ports: '1-1023' },
      { ...base, errorCode: 'EADDRINUSE', count: 1, ports: '8080' },
    ]);
  });

  test('control() tells listener failures once, and again when they change', () => {
    const failure = { rule: 'r', protocol: 'tcp', address: '::1', errorCode: 'EADDRINUSE' } as const;
    const applied = (revision: number, ...ports: readonly number[]): ControlEvent => ({
      type: 'applied',
      digest: 'd1',
      report: {
        revision,
        listeners: { tcp: 1, udp: 1 },
        failures: ports.map((port) => ({ ...failure, port })),
      },
    });
    const warnings = logged(applied(1, 80), applied(2, 80), applied(3, 81), applied(4), applied(5, 81));
    assert.deepEqual(
      warnings.filter((line) => line.startsWith('warn')),
      ['80', '81', '81'].map((port) => `warn Cannot listen on 1 of 3 ports, first tcp ${port} (EADDRINUSE)`),
    );
  });

  test('control() says what listeners are where the kernel takes all ports', () => {
    const failure = {
      rule: 'r',
      protocol: 'tcp',
      address: '::1',
      port: 80,
      errorCode: 'EADDRINUSE',
    } as const;
    const report = { revision: 1, listeners: { tcp: 1, udp: 2 }, failures: [] };
    const lines = (['captured', 'kernel'] as const).map((entry) => {
      const logger = new RecordingLogger();
      const log = new EventLog({ logger, clock: new FakeClock() }, { entry });
      log.control({
        type: 'applied',
        digest: 'd1',
        report: entry === 'kernel' ? report : { ...report, failures: [failure] },
      });
      return logger.texts;
    });
    assert.deepEqual(lines, [
      [
        'info Applied revision 1: listening on 1 TCP and 2 UDP sockets, which get all captured ports',
        'warn Cannot listen on 1 port, first tcp 80 (EADDRINUSE)',
      ],
      ['info Applied revision 1: the kernel forwards TCP of 1 frontend and UDP of 2 frontends'],
    ]);
  });

  test('plane() tells of ports that could be bound after all', () => {
    const { logger, log } = eventLog();
    const listeners = { tcp: 100, udp: 99 };
    log.plane([{ type: 'listening-changed', atMs: 1, worker: 0, listeners, failures: 1 }]);
    log.plane([
      { type: 'listening-changed', atMs: 2, worker: 0, listeners: { tcp: 100, udp: 100 }, failures: 0 },
    ]);
    assert.deepEqual(logger.texts, [
      'info Now listening on 100 TCP and 99 UDP ports, 1 still cannot be bound',
      'info Now listening on 100 TCP and 100 UDP ports, none is missing',
    ]);
  });

  test('control() cuts a list of scattered ports', () => {
    const { logger, log } = eventLog();
    const failures = Array.from({ length: 30_000 }, (_, index) => ({
      rule: 'r',
      protocol: 'udp' as const,
      address: '::1',
      errorCode: 'EADDRINUSE',
      port: 2 * index + 1,
    }));
    log.control({
      type: 'applied',
      digest: 'd1',
      report: { revision: 1, listeners: { tcp: 1, udp: 1 }, failures },
    });
    const groups = logger.lines[1]?.fields['failures'] as readonly { ports: string; count: number }[];
    assert.equal(groups.length, 1);
    assert.equal(groups[0]!.count, 30_000);
    assert.match(groups[0]!.ports, /^1,3,5,.*,39 and 29980 more ranges$/);
  });

  test('control() gives every line an event field', () => {
    const { logger, log } = eventLog();
    log.control(serving(0));
    log.control({ type: 'stopping', cause: 'SIGINT', deadlineMs: 0 });
    assert.deepEqual(
      logger.lines.map(({ fields }) => fields['event']),
      ['pool-down', 'stopping'],
    );
  });
});

describe('EventLog.plane()', () => {
  test('plane() logs overload, lost workers and port pressure', () => {
    const { logger, log } = eventLog();
    const ports = { backendId: 'nvas/127.0.0.11', sourceAddress: '127.0.0.2', used: 3, available: 4 };
    log.plane([
      { type: 'overload', atMs: 1, phase: 'started', reason: 'table-full' },
      { type: 'overload', atMs: 2, phase: 'ended', reason: 'table-full' },
      { type: 'worker-lost', atMs: 3, worker: 0, evidence: 'SIGKILL', flowsLost: 12 },
      { type: 'source-port-pressure', atMs: 4, level: 'high', ...ports },
      { type: 'source-port-pressure', atMs: 5, level: 'exhausted', ...ports },
      { type: 'source-port-pressure', atMs: 6, level: 'normal', ...ports },
    ]);
    assert.deepEqual(logger.texts, [
      'warn Overload started: new flows are refused (table-full)',
      'info Overload ended (table-full)',
      'error Data worker 0 died (SIGKILL) with 12 flows and is being replaced',
      'warn Local ports from 127.0.0.2 to backend "nvas/127.0.0.11" are running out: 3 in use of 4',
      'error No local port is left from 127.0.0.2 to backend "nvas/127.0.0.11": 3 in use of 4',
      'info Local ports from 127.0.0.2 to backend "nvas/127.0.0.11" are plenty again: 3 in use of 4',
    ]);
  });

  test('plane() logs no flow', () => {
    const { logger, log } = eventLog();
    log.plane([{ type: 'flow-started', atMs: 1, flow: sampleFlow(1) }]);
    assert.deepEqual(logger.lines, []);
  });

  test('plane() sums passive failures up', () => {
    const { logger, clock, log } = eventLog();
    const failure = (backendId: string): PlaneEvent => ({
      type: 'passive-failure',
      atMs: 1,
      backendId,
      evidence: 'ECONNREFUSED',
    });
    for (let count = 0; count < 1000; count++) log.plane([failure('nvas/a')]);
    log.plane([failure('nvas/b')]);
    clock.advance(10_000);
    assert.equal(logger.lines.filter(({ level }) => level === 'debug').length, 1001);
    const first = (id: string) => `info Traffic could not reach backend "${id}": ECONNREFUSED`;
    assert.deepEqual(logger.texts, [
      first('nvas/a'),
      first('nvas/b'),
      'info Traffic could not reach backend "nvas/a" 999 more times, last: ECONNREFUSED',
    ]);
    // A quiet time ends the matter, and the timer.
    clock.advance(20_000);
    assert.equal(clock.pendingTimers, 0);
    assert.equal(logger.texts.length, 3);
    log.plane([failure('nvas/a'), failure('nvas/a')]);
    log.stop();
    assert.deepEqual(logger.texts.slice(3), [
      first('nvas/a'),
      'info Traffic could not reach backend "nvas/a" 1 more times, last: ECONNREFUSED',
    ]);
    assert.equal(clock.pendingTimers, 0);
  });
});
