import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { BalancerError } from '../../../src/model/errors.js';
import type {
  AppliedReport,
  BalancerEvent,
  EventOf,
  EventType,
  IngressMode,
  KernelReport,
} from '../../../src/model/events.js';
import { EventSummaries } from '../../../src/observe/bus.js';
import type { FlowEvent } from '../../../src/observe/flow-log.js';
import { aDrain, aReload, anUpgrade } from '../../support/api-answers.js';
import { FakeClock } from '../../support/fake-clock.js';
import { GoldenFolder } from '../../support/golden.js';
import { LineRecorder } from './line-recorder.js';
import { sampleConfiguration, sampleFlow } from './sample-state.js';

const member = { pool: 'nvas', backendId: 'nvas/127.0.0.11', backendName: 'nva-1' };

const drain = aDrain();
const { report } = aReload();
const PRESSURES = ['high', 'exhausted', 'normal'] as const;

const kernel: KernelReport = {
  ...{ table: 'inet haports', mode: 'capture, udp redirect', why: 'Chosen because of this' },
  ...{ state: 'in-place', sinceMs: 0, repairs: 3, failures: 2, tool: 'nftables v1.0.6' },
};

const health = {
  name: 'NoHealthyBackends',
  severity: 'critical',
  phase: 'raised',
  subject: 'nvas',
  evidence: '0 of 3',
  atMs: 5,
} as const;

const serving = { pool: 'nvas', probe: 'alive', servingPriority: 0, eligible: 3, total: 3 };
const applied: AppliedReport = { revision: 1, listeners: { tcp: 1, udp: 2 }, failures: [] };
const listening = {
  listeners: { tcp: 10, udp: 9 },
  durationMs: 1234,
  workers: 8,
  tcpPorts: 'owned',
} as const;
const memory = { processes: 9, bytes: 100 * 1024 * 1024 };
const gate = new BalancerError('Too much would move', { code: 'LB_GATE_EXCEEDED', source: 'usage' });
const full = Object.assign(new Error('ENOSPC: no space'), { code: 'ENOSPC' });

type Member<T extends EventType> =
  EventOf<T> extends infer E ? (E extends unknown ? Omit<E, 'type'> : never) : never;

/** Every event that has a line, in the order of the table; event-lines.txt has the lines: level, name, fields, text. */
const EVENTS_TOLD: { readonly [T in Exclude<EventType, FlowEvent['type']>]: readonly Member<T>[] } = {
  'passive-failure': [{ atMs: 1, backendId: 'nvas/a', evidence: 'ECONNREFUSED' }],
  'port-refused': [{ atMs: 1, backendId: 'nvas/a' }],
  overload: (['started', 'ended'] as const).map((phase) => ({ atMs: 1, phase, reason: 'table-full' })),
  'source-port-pressure': PRESSURES.map((pressure) => ({
    ...{ atMs: 4, backendId: 'nvas/a', sourceAddress: '127.0.0.2', pressure, used: 3, available: 4 },
  })),
  'table-pressure': PRESSURES.map((pressure) => ({ atMs: 0, pressure, used: 8, limit: 10 })),
  'listening-changed': [
    { atMs: 1, worker: 0, listeners: { tcp: 100, udp: 99 }, failures: 1 },
    { atMs: 2, worker: 0, listeners: { tcp: 100, udp: 100 }, failures: 0 },
  ],
  'kernel-changed': [
    { atMs: 0, change: 'installed', report: kernel },
    { atMs: 0, change: 'repaired', evidence: 'Table inet haports was gone', report: kernel },
    { atMs: 0, change: 'failed', evidence: 'nft failed: no', report: kernel },
    { atMs: 0, change: 'removed', report: kernel },
  ],
  'worker-lost': [
    { atMs: 3, worker: 0, evidence: 'SIGKILL', flowsLost: 12 },
    { atMs: 3, worker: 1, evidence: 'exit code 1', flowsLost: 1 },
  ],
  starting: [{ version: '0.1.0', workers: 1 }],
  'config-loaded': [
    { configuration: sampleConfiguration('0123456789abcdef'), source: 'c.json', findings: 2 },
  ],
  'descriptors-short': [{ limit: 20_000, needed: 145_634, workers: 8, advice: 'do this' }],
  'flows-limited': [{ limit: 20_000, needed: 230_000, tcpFlows: 9800, udpFlows: 14_700, advice: 'do that' }],
  // One worker has no choice, and what is not known is left out.
  listening: [
    { ...listening, memory },
    { ...listening, workers: 1, tcpPorts: 'shared' },
  ],
  'capture-impossible': [{ error: Object.assign(new Error('no nft'), { code: 'LB_KERNEL_DENIED' }) }],
  'kernel-machine': [{ warning: 'Set rp_filter' }],
  'health-changed': [
    { ...member, probe: 'alive', transition: { atMs: 1, from: 'up', to: 'down', evidence: 'HTTP 503' } },
    { ...member, probe: 'alive', transition: { atMs: 2, from: 'down', to: 'up', evidence: 'HTTP 200' } },
  ],
  'probes-hindered': [
    { phase: 'started', cause: 'ports', evidence: 'EADDRNOTAVAIL (local problem: no free local port)' },
    { phase: 'ended', cause: 'ports', probes: 12 },
  ],
  'admin-changed': [{ ...member, from: 'none', to: 'down' }],
  'weight-changed': [{ ...member, from: 'configured', to: 5 }],
  // Whole flows have no place in a line.
  'drain-changed': [
    { phase: 'started', drain },
    { phase: 'deadline', drain },
    { phase: 'deadline', drain: { ...drain, then: 'leave' } },
    { phase: 'finished', drain },
    { phase: 'cancelled', drain },
  ],
  'pool-serving-changed': [
    serving,
    { pool: 'nvas', eligible: 0, total: 3, wasDown: true },
    { ...serving, eligible: 1, wasDown: true },
  ],
  applied: [{ digest: 'd1', report: applied }],
  'listen-failed': [{ report: applied, failures: [] }],
  'apply-failed': [{ revision: 4, error: new Error('no socket') }],
  reloaded: [{ cause: 'SIGHUP', report }],
  'reload-failed': [{ cause: 'admin API', error: gate }],
  'health-event': [
    health,
    { ...health, phase: 'again' },
    { ...health, severity: 'warning' },
    { ...health, phase: 'resolved', evidence: '2 of 3' },
  ],
  'passive-failures': [
    { backendId: 'nvas/a', evidence: 'ECONNREFUSED', count: 1 },
    { backendId: 'nvas/a', evidence: 'ECONNREFUSED', count: 999, intervalMs: 10_000 },
  ],
  'upgrade-started': [{ pid: 7 }],
  'upgrade-ready': [{ outcome: anUpgrade() }],
  'upgrade-failed': [{ error: gate }],
  'upgrade-refused': [{ error: gate }],
  stopping: [
    { cause: 'SIGTERM', deadlineMs: 30_000 },
    { cause: 'SIGTERM', deadlineMs: 30_000, keptInKernel: true },
  ],
  stopped: [{ report: { finished: 5, reset: 1 } }, { report: { finished: 0, reset: 0 }, keptInKernel: true }],
  'server-failed': [{ error: new Error('Cannot listen on 127.0.0.1:9902') }],
  'request-failed': [{ request: 'GET /v1/x', error: Object.assign(new Error(), { stack: 'at x' }) }],
  'systemd-notify-failed': [{ message: 'systemd-notify ended with 1' }],
  'flow-log-failed': [
    { action: 'write', file: 'f', error: full },
    { action: 'reopen', file: 'f', error: full },
  ],
  'flow-log-recovered': [{ file: 'f', linesLost: 3 }],
  'flow-log-lost': [{ file: 'f', lines: 3 }],
  'webhook-dropped': [{ url: 'https://a', limit: 100 }],
  'webhook-failed': [
    {
      ...{ url: 'https://a', name: 'NoHealthyBackends', phase: 'raised', subject: 'nvas' },
      evidence: 'HTTP 500',
    },
    { url: 'https://a', count: 2 },
  ],
};

/** What a line of the log has of its own (observe/log.ts): an event that has them too would write them twice. */
const KEYS_OF_THE_LOG = ['level', 'time', 'pid', 'event', 'msg'];

describe('EVENTS', () => {
  test('has a line for every event, but for those that only other parts act on', () => {
    const recorder = new LineRecorder();
    for (const [type, told] of Object.entries(EVENTS_TOLD)) {
      for (const members of told) recorder.bus.emit({ ...members, type } as BalancerEvent);
    }
    new GoldenFolder('test/unit/observe', 'txt').compare('event-lines', `${recorder.golden.join('\n')}\n`);
    for (const { type, fields } of recorder.lines) {
      const twice = Object.keys(fields).filter((key) => KEYS_OF_THE_LOG.includes(key));
      assert.deepEqual(twice, [], type);
    }
  });

  test('has no line for flows: they belong in the flow log', () => {
    const { bus, lines } = new LineRecorder();
    bus.emit({ type: 'flow-started', atMs: 1, flow: sampleFlow(1) });
    assert.deepEqual(lines, []);
  });

  test('says what listeners are where the kernel takes all ports', () => {
    const texts = (ingress: IngressMode): readonly string[] => {
      const recorder = new LineRecorder(ingress);
      const cost = { ...listening, workers: 1, listeners: { tcp: 1, udp: 2 } };
      recorder.bus.emit({ type: 'applied', digest: 'd1', report: applied });
      recorder.bus.emit({ type: 'listening', ...cost });
      recorder.bus.emit({ type: 'listening', ...cost, memory: { ...memory, processes: 1 } });
      return recorder.texts;
    };
    assert.deepEqual(texts('captured'), [
      'info Applied revision 1: listening on 1 TCP and 2 UDP sockets, which get all captured ports',
      'info Listening on 1 TCP and 2 UDP sockets, which get all captured ports, after 1.23 s',
      'info Listening on 1 TCP and 2 UDP sockets, which get all captured ports, after 1.23 s, 100 MiB resident in 1 process',
    ]);
    assert.deepEqual(texts('kernel'), [
      'info Applied revision 1: the kernel forwards TCP of 1 frontend and UDP of 2 frontends',
      'info The kernel forwards TCP of 1 frontend and UDP of 2 frontends after 1.23 s',
      'info The kernel forwards TCP of 1 frontend and UDP of 2 frontends after 1.23 s, 100 MiB resident in 1 process',
    ]);
  });

  test('shows what is wrong with a configuration, the first twenty of it', () => {
    const findings = Array.from({ length: 23 }, (_, index) => ({
      code: 'LB_UNKNOWN_KEY',
      path: `k${index}`,
    }));
    const error = Object.assign(new Error('It cannot be used'), { findings });
    const { bus, lines } = new LineRecorder();
    bus.emit({ type: 'reload-failed', cause: 'SIGHUP', error });
    assert.deepEqual(lines[0]?.fields['findings'], findings.slice(0, 20));
    assert.equal(lines[0].fields['moreFindings'], 3);
  });
});

function summaries(ingress?: IngressMode) {
  const recorder = new LineRecorder(ingress);
  const clock = new FakeClock();
  const { emit } = recorder.bus;
  const apply = (failures: AppliedReport['failures'], listeners = applied.listeners): void =>
    emit({ type: 'applied', digest: 'd1', report: { revision: 1, listeners, failures } });
  return { recorder, clock, emit, apply, summaries: new EventSummaries(recorder.bus, clock) };
}

describe('EventSummaries of listen failures', () => {
  const base = { rule: 'ha-ports', protocol: 'tcp', address: '127.0.0.1' } as const;
  const taken = (...ports: readonly number[]): AppliedReport['failures'] =>
    ports.map((port) => ({ ...base, errorCode: 'EADDRINUSE', port }));

  test('put failures that are alike together', () => {
    const { recorder, apply } = summaries();
    const denied = taken(...Array.from({ length: 1023 }, (_, index) => index + 1));
    const failures = [...denied.map((one) => ({ ...one, errorCode: 'EACCES' })), ...taken(8080)];
    apply(failures, { tcp: 64_511, udp: 0 });
    assert.deepEqual(recorder.texts, [
      'info Applied revision 1: listening on 64511 TCP and 0 UDP ports',
      'warn Cannot listen on 1024 of 65535 ports, first tcp 1-1023 (EACCES)',
    ]);
    assert.deepEqual(recorder.lines[1]?.fields['failures'], [
      { ...base, errorCode: 'EACCES', count: 1023, ports: '1-1023' },
      { ...base, errorCode: 'EADDRINUSE', count: 1, ports: '8080' },
    ]);
  });

  test('tell of them once, and again when they change', () => {
    const { recorder, apply } = summaries();
    for (const failures of [taken(80), taken(80), taken(81), [], taken(81)]) apply(failures);
    assert.deepEqual(
      recorder.texts.filter((line) => line.startsWith('warn')),
      ['80', '81', '81'].map((port) => `warn Cannot listen on 1 of 4 ports, first tcp ${port} (EADDRINUSE)`),
    );
  });

  test('count captured ports alone, for they have no sockets', () => {
    const { recorder, apply } = summaries('captured');
    apply(taken(80));
    assert.equal(recorder.texts[1], 'warn Cannot listen on 1 port, first tcp 80 (EADDRINUSE)');
  });

  test('cut a list of scattered ports', () => {
    const { recorder, apply } = summaries();
    apply(taken(...Array.from({ length: 30_000 }, (_, index) => 2 * index + 1)));
    const groups = recorder.lines[1]?.fields['failures'] as readonly { ports: string; count: number }[];
    assert.deepEqual([groups.length, groups[0]!.count], [1, 30_000]);
    assert.match(groups[0]!.ports, /^1,3,5,.*,39 and 29980 more ranges$/);
  });
});

describe('EventSummaries of passive failures', () => {
  test('tell of the first at once, and of the rest every ten seconds', () => {
    const { recorder, clock, emit, summaries: sums } = summaries();
    const fail = (backendId: string): void =>
      emit({ type: 'passive-failure', atMs: 1, backendId, evidence: 'ECONNREFUSED' });
    for (let count = 0; count < 1000; count++) fail('nvas/a');
    fail('nvas/b');
    clock.advance(10_000);
    assert.equal(recorder.lines.filter(({ level }) => level === 'debug').length, 1001);
    const first = (id: string) => `info Traffic could not reach backend "${id}": ECONNREFUSED`;
    assert.deepEqual(recorder.texts, [
      first('nvas/a'),
      first('nvas/b'),
      'info Traffic could not reach backend "nvas/a" 999 more times, last: ECONNREFUSED',
    ]);
    // A quiet time ends the matter, and the timer.
    clock.advance(20_000);
    assert.equal(clock.pendingTimers, 0);
    assert.equal(recorder.texts.length, 3);
    fail('nvas/a');
    fail('nvas/a');
    sums.stop();
    assert.deepEqual(recorder.texts.slice(3), [
      first('nvas/a'),
      'info Traffic could not reach backend "nvas/a" 1 more time, last: ECONNREFUSED',
    ]);
    assert.equal(clock.pendingTimers, 0);
  });
});
