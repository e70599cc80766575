import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { BalancerError } from '../../../src/model/errors.js';
import {
  EVENTS,
  type AppliedReport,
  type BalancerEvent,
  type EventType,
  type HealthEvent,
  type IngressMode,
} from '../../../src/model/events.js';
import type { KernelReport } from '../../../src/model/kernel-report.js';
import { flowView, type DrainStatus, type ReloadReport } from '../../../src/api/views.js';
import { EventSummaries } from '../../../src/observe/bus.js';
import { FakeClock } from '../../support/fake-clock.js';
import { LineRecorder } from './line-recorder.js';
import { sampleConfiguration, sampleFlow } from './sample-state.js';

const member = { pool: 'nvas', backendId: 'nvas/127.0.0.11', backendName: 'nva-1' };

const drain: DrainStatus = {
  ...member,
  phase: 'draining',
  deadlineMs: 600_000,
  then: 'reset',
  spreadMs: 10_000,
  startedAtMs: 1,
  deadlineAtMs: 600_001,
  flowsAtStart: 7,
  flows: { tcp: 4, udp: 1 },
  longest: [flowView(sampleFlow(1))],
};

const report: ReloadReport = {
  revision: 9,
  digest: '0123456789abcdef',
  plan: {
    fromDigest: 'a',
    toDigest: 'b',
    revision: 8,
    rules: [],
    movedShare: 0.25,
    flows: { stay: 0, move: 0, reset: 0, drop: 0 },
    backends: {
      added: [{ pool: 'nvas', backendId: 'nvas/127.0.0.13', name: 'nva-3' }],
      removed: [],
      changed: [],
    },
    probeStateLost: [],
    listeners: { kept: 0, opened: 0, closed: 0 },
    restartNeeded: [],
    steps: [],
  },
  kept: { flows: 500, probeTargets: 3, adminStates: 1, drains: 0, listeners: 200 },
  lost: { flows: 2, probeTargets: 0, overrides: [], listeners: 1 },
  durationMs: 12,
};

const kernel: KernelReport = {
  ...{ table: 'inet haports', mode: 'capture, udp redirect', why: 'Chosen because of this' },
  ...{ state: 'in-place', sinceMs: 0, repairs: 3, failures: 2, tool: 'nftables v1.0.6' },
};

const health: HealthEvent = {
  type: 'health-event',
  name: 'NoHealthyBackends',
  severity: 'critical',
  phase: 'raised',
  subject: 'nvas',
  evidence: '0 of 3',
  atMs: 5,
};

const transition = { atMs: 1, from: 'up', to: 'down', evidence: 'HTTP 503' } as const;
const serving = { pool: 'nvas', probe: 'alive', servingPriority: 0, eligible: 3, total: 3 };
const applied: AppliedReport = { revision: 1, listeners: { tcp: 1, udp: 2 }, failures: [] };
const listening = {
  listeners: { tcp: 10, udp: 9 },
  durationMs: 1234,
  workers: 8,
  tcpPorts: 'owned',
} as const;
const memory = { processes: 9, bytes: 100 * 1024 * 1024 };
const ports = { atMs: 4, backendId: 'nvas/a', sourceAddress: '127.0.0.2', used: 3, available: 4 };
const outcome = { pid: 7, version: '0.2.0', sockets: 5, udpFlows: 3, durationMs: 411.6, udpPauseMs: 2 };
const gate = new BalancerError('Too much would move', { code: 'LB_GATE_EXCEEDED', source: 'usage' });
const full = Object.assign(new Error('ENOSPC: no space'), { code: 'ENOSPC' });

/** Every event that has a line, in the order of the table, and the line: level, name, fields, text. */
const GOLDEN: readonly (readonly [BalancerEvent, string])[] = [
  [
    { type: 'passive-failure', atMs: 1, backendId: 'nvas/a', evidence: 'ECONNREFUSED' },
    'debug passive-failure {"backendId":"nvas/a","evidence":"ECONNREFUSED"} Traffic could not reach a backend',
  ],
  [
    { type: 'overload', atMs: 1, phase: 'started', reason: 'table-full' },
    'warn overload-started {"reason":"table-full"} Overload started: new flows are refused (table-full)',
  ],
  [
    { type: 'overload', atMs: 2, phase: 'ended', reason: 'table-full' },
    'info overload-ended {"reason":"table-full"} Overload ended (table-full)',
  ],
  [
    { type: 'source-port-pressure', level: 'high', ...ports },
    'warn source-port-pressure {"backendId":"nvas/a","sourceAddress":"127.0.0.2","level":"high","used":3,"available":4} Source ports from 127.0.0.2 to backend "nvas/a" are running out: 3 in use of 4',
  ],
  [
    { type: 'source-port-pressure', level: 'exhausted', ...ports },
    'error source-port-pressure {"backendId":"nvas/a","sourceAddress":"127.0.0.2","level":"exhausted","used":3,"available":4} No source port is left from 127.0.0.2 to backend "nvas/a": 3 in use of 4',
  ],
  [
    { type: 'source-port-pressure', level: 'normal', ...ports },
    'info source-port-pressure {"backendId":"nvas/a","sourceAddress":"127.0.0.2","level":"normal","used":3,"available":4} Source port usage from 127.0.0.2 to backend "nvas/a" is back to normal: 3 in use of 4',
  ],
  [
    { type: 'table-pressure', atMs: 0, level: 'high', used: 8, limit: 10 },
    'warn table-pressure {"level":"high","used":8,"limit":10} Connection tracking is filling up: 8 of 10 entries are in use. Raise net.netfilter.nf_conntrack_max',
  ],
  [
    { type: 'table-pressure', atMs: 0, level: 'exhausted', used: 10, limit: 10 },
    'error table-pressure {"level":"exhausted","used":10,"limit":10} Connection tracking is full, new flows fail: 10 of 10 entries are in use. Raise net.netfilter.nf_conntrack_max',
  ],
  [
    { type: 'table-pressure', atMs: 0, level: 'normal', used: 6, limit: 10 },
    'info table-pressure {"level":"normal","used":6,"limit":10} Connection tracking has room again: 6 of 10 entries are in use',
  ],
  [
    { type: 'listening-changed', atMs: 1, worker: 0, listeners: { tcp: 100, udp: 99 }, failures: 1 },
    'info listening-changed {"worker":0,"listeners":{"tcp":100,"udp":99},"failures":1} Now listening on 100 TCP and 99 UDP ports, 1 still cannot be bound',
  ],
  [
    { type: 'listening-changed', atMs: 2, worker: 0, listeners: { tcp: 100, udp: 100 }, failures: 0 },
    'info listening-changed {"worker":0,"listeners":{"tcp":100,"udp":100},"failures":0} Now listening on 100 TCP and 100 UDP ports, none is missing',
  ],
  [
    { type: 'kernel-changed', atMs: 0, change: 'installed', report: kernel },
    'info kernel-installed {"table":"inet haports","mode":"capture, udp redirect","why":"Chosen because of this"} Installed table inet haports in the kernel: capture, udp redirect. Chosen because of this',
  ],
  [
    {
      type: 'kernel-changed',
      atMs: 0,
      change: 'repaired',
      evidence: 'Table inet haports was gone',
      report: kernel,
    },
    'warn kernel-repaired {"table":"inet haports","mode":"capture, udp redirect","evidence":"Table inet haports was gone"} Repaired table inet haports in the kernel: Table inet haports was gone',
  ],
  [
    { type: 'kernel-changed', atMs: 0, change: 'failed', evidence: 'nft failed: no', report: kernel },
    'error kernel-failed {"table":"inet haports","mode":"capture, udp redirect","evidence":"nft failed: no"} Cannot install table inet haports in the kernel: nft failed: no',
  ],
  [
    { type: 'kernel-changed', atMs: 0, change: 'removed', report: kernel },
    'info kernel-removed {"table":"inet haports","mode":"capture, udp redirect"} Removed table inet haports from the kernel',
  ],
  [
    { type: 'worker-lost', atMs: 3, worker: 0, evidence: 'SIGKILL', flowsLost: 12 },
    'error worker-lost {"worker":0,"evidence":"SIGKILL","flowsLost":12} Data worker 0 died (SIGKILL) with 12 flows and is being replaced',
  ],
  [
    { type: 'starting', version: '0.1.0', workers: 1 },
    'info starting {"version":"0.1.0","workers":1} haports 0.1.0 is starting',
  ],
  [
    {
      type: 'config-loaded',
      configuration: sampleConfiguration('0123456789abcdef'),
      source: 'c.json',
      findings: 2,
    },
    'info config-loaded {"source":"c.json","digest":"0123456789abcdef","findings":2,"frontends":2,"rules":2,"pools":1,"backends":2} Loaded configuration "c.json", digest 0123456789ab',
  ],
  [
    { type: 'descriptors-short', limit: 20_000, needed: 145_634, workers: 8, advice: 'do this' },
    'error descriptors-short {"limit":20000,"needed":145634,"workers":8} Cannot listen on all ports: do this',
  ],
  [
    { type: 'listening', ...listening, memory },
    'info listening {"listeners":{"tcp":10,"udp":9},"seconds":1.23,"tcpPorts":"owned","processes":9,"residentBytes":104857600} Listening on 10 TCP and 9 UDP ports after 1.23 s, 100 MiB resident in 9 processes, each TCP port belongs to one worker',
  ],
  [
    // One worker has no choice, and what is not known is left out.
    { type: 'listening', ...listening, workers: 1, tcpPorts: 'shared' },
    'info listening {"listeners":{"tcp":10,"udp":9},"seconds":1.23} Listening on 10 TCP and 9 UDP ports after 1.23 s',
  ],
  [
    { type: 'capture-impossible', error: Object.assign(new Error('no nft'), { code: 'LB_KERNEL_DENIED' }) },
    'warn capture-impossible {"code":"LB_KERNEL_DENIED"} Cannot capture, so each port is bound: no nft',
  ],
  [{ type: 'kernel-machine', warning: 'Set rp_filter' }, 'warn kernel-machine {} Set rp_filter'],
  [
    { type: 'health-changed', ...member, probe: 'alive', transition },
    'warn health-changed {"pool":"nvas","backendId":"nvas/127.0.0.11","backendName":"nva-1","probe":"alive","from":"up","to":"down","evidence":"HTTP 503","atMs":1} Probe "alive" finds backend "nva-1" in pool "nvas" down: HTTP 503',
  ],
  [
    {
      type: 'health-changed',
      ...{ ...member, probe: 'alive', transition: { atMs: 2, from: 'down', to: 'up', evidence: 'HTTP 200' } },
    },
    'info health-changed {"pool":"nvas","backendId":"nvas/127.0.0.11","backendName":"nva-1","probe":"alive","from":"down","to":"up","evidence":"HTTP 200","atMs":2} Probe "alive" finds backend "nva-1" in pool "nvas" up: HTTP 200',
  ],
  [
    { type: 'admin-changed', ...member, from: 'none', to: 'down' },
    'info admin-changed {"pool":"nvas","backendId":"nvas/127.0.0.11","backendName":"nva-1","from":"none","to":"down"} Admin state of backend "nva-1" in pool "nvas" changed from none to down',
  ],
  [
    { type: 'weight-changed', ...member, from: 'configured', to: 5 },
    'info weight-changed {"pool":"nvas","backendId":"nvas/127.0.0.11","backendName":"nva-1","from":"configured","to":5} Weight of backend "nva-1" in pool "nvas" changed from configured to 5',
  ],
  // Whole flows have no place in a line.
  [
    { type: 'drain-changed', phase: 'started', drain },
    'info drain-changed {"phase":"started","pool":"nvas","backendId":"nvas/127.0.0.11","backendName":"nva-1","deadlineMs":600000,"then":"reset","spreadMs":10000,"flowsAtStart":7,"flows":{"tcp":4,"udp":1}} Draining backend "nva-1" in pool "nvas": 5 flows have 600000 ms to finish',
  ],
  [
    { type: 'drain-changed', phase: 'deadline', drain },
    'warn drain-changed {"phase":"deadline","pool":"nvas","backendId":"nvas/127.0.0.11","backendName":"nva-1","deadlineMs":600000,"then":"reset","spreadMs":10000,"flowsAtStart":7,"flows":{"tcp":4,"udp":1}} The drain deadline of backend "nva-1" in pool "nvas" has passed: 5 flows are ended over 10000 ms',
  ],
  [
    { type: 'drain-changed', phase: 'deadline', drain: { ...drain, then: 'leave' } },
    'warn drain-changed {"phase":"deadline","pool":"nvas","backendId":"nvas/127.0.0.11","backendName":"nva-1","deadlineMs":600000,"then":"leave","spreadMs":10000,"flowsAtStart":7,"flows":{"tcp":4,"udp":1}} The drain deadline of backend "nva-1" in pool "nvas" has passed: 5 flows are left alone',
  ],
  [
    { type: 'drain-changed', phase: 'finished', drain },
    'info drain-changed {"phase":"finished","pool":"nvas","backendId":"nvas/127.0.0.11","backendName":"nva-1","deadlineMs":600000,"then":"reset","spreadMs":10000,"flowsAtStart":7,"flows":{"tcp":4,"udp":1}} Drained backend "nva-1" in pool "nvas": none of its 7 flows is left',
  ],
  [
    { type: 'drain-changed', phase: 'cancelled', drain },
    'info drain-changed {"phase":"cancelled","pool":"nvas","backendId":"nvas/127.0.0.11","backendName":"nva-1","deadlineMs":600000,"then":"reset","spreadMs":10000,"flowsAtStart":7,"flows":{"tcp":4,"udp":1}} The drain of backend "nva-1" in pool "nvas" was cancelled with 5 flows left',
  ],
  [
    { type: 'pool-serving-changed', ...serving },
    'info pool-serving {"pool":"nvas","probe":"alive","servingPriority":0,"eligible":3,"total":3} Pool "nvas": 3 of 3 backends are eligible, priority 0 serves',
  ],
  [
    { type: 'pool-serving-changed', pool: 'nvas', eligible: 0, total: 3, wasDown: true },
    'error pool-down {"pool":"nvas","eligible":0,"total":3} No backend of pool "nvas" is eligible (0 of 3)',
  ],
  [
    { type: 'pool-serving-changed', ...serving, eligible: 1, wasDown: true },
    'info pool-recovered {"pool":"nvas","probe":"alive","servingPriority":0,"eligible":1,"total":3} Pool "nvas" has recovered: 1 of 3 backends are eligible, priority 0 serves',
  ],
  [
    { type: 'applied', digest: 'd1', report: applied },
    'info applied {"revision":1,"digest":"d1","listeners":{"tcp":1,"udp":2},"failures":0} Applied revision 1: listening on 1 TCP and 2 UDP ports',
  ],
  [
    { type: 'listen-failed', report: applied, failures: [] },
    'warn listen-failed {"revision":1,"failures":[]} Cannot listen on 0 of 3 ports',
  ],
  [
    { type: 'apply-failed', revision: 4, error: new Error('no socket') },
    'error apply-failed {"revision":4,"error":"no socket"} Cannot apply revision 4: no socket',
  ],
  [
    { type: 'reloaded', cause: 'SIGHUP', report },
    'info reloaded {"cause":"SIGHUP","revision":9,"digest":"0123456789abcdef","durationMs":12,"kept":{"flows":500,"probeTargets":3,"adminStates":1,"drains":0,"listeners":200},"lost":{"flows":2,"probeTargets":0,"overrides":[],"listeners":1},"movedShare":0.25,"backends":{"added":1,"removed":0,"changed":0}} Reloaded by SIGHUP, digest 0123456789ab: kept 500 flows and 200 listeners, lost 2 flows and 1 listeners',
  ],
  [
    { type: 'reload-failed', cause: 'admin API', error: gate },
    'error reload-failed {"cause":"admin API","code":"LB_GATE_EXCEEDED","error":"Too much would move"} Cannot reload by admin API; the previous configuration stays active: Too much would move',
  ],
  [
    health,
    'warn health-event {"name":"NoHealthyBackends","severity":"critical","phase":"raised","subject":"nvas","evidence":"0 of 3","atMs":5} NoHealthyBackends of "nvas": 0 of 3',
  ],
  [
    { ...health, phase: 'again' },
    'warn health-event {"name":"NoHealthyBackends","severity":"critical","phase":"again","subject":"nvas","evidence":"0 of 3","atMs":5} NoHealthyBackends of "nvas" still: 0 of 3',
  ],
  [
    { ...health, severity: 'warning' },
    'warn health-event {"name":"NoHealthyBackends","severity":"warning","phase":"raised","subject":"nvas","evidence":"0 of 3","atMs":5} NoHealthyBackends of "nvas": 0 of 3',
  ],
  [
    { ...health, phase: 'resolved', evidence: '2 of 3' },
    'info health-event {"name":"NoHealthyBackends","severity":"critical","phase":"resolved","subject":"nvas","evidence":"2 of 3","atMs":5} NoHealthyBackends of "nvas" is over: 2 of 3',
  ],
  [
    { type: 'passive-failures', backendId: 'nvas/a', evidence: 'ECONNREFUSED', count: 1 },
    'info passive-failures {"backendId":"nvas/a","evidence":"ECONNREFUSED","count":1} Traffic could not reach backend "nvas/a": ECONNREFUSED',
  ],
  [
    {
      type: 'passive-failures',
      backendId: 'nvas/a',
      evidence: 'ECONNREFUSED',
      count: 999,
      intervalMs: 10_000,
    },
    'info passive-failures {"backendId":"nvas/a","evidence":"ECONNREFUSED","count":999,"intervalMs":10000} Traffic could not reach backend "nvas/a" 999 more times, last: ECONNREFUSED',
  ],
  [{ type: 'upgrade-started', pid: 7 }, 'info upgrade-started {"pid":7} Upgrading: started process 7'],
  [
    { type: 'upgrade-ready', outcome },
    'info upgrade-ready {"pid":7,"version":"0.2.0","sockets":5,"udpFlows":3,"durationMs":411.6,"udpPauseMs":2} Upgraded to haports 0.2.0: pid 7 took over 5 sockets and 3 UDP flows after 412 ms',
  ],
  [
    { type: 'upgrade-failed', error: gate },
    'error upgrade-failed {"code":"LB_GATE_EXCEEDED","error":"Too much would move"} Cannot upgrade: Too much would move; this process keeps serving',
  ],
  [
    { type: 'upgrade-refused', error: gate },
    'warn upgrade-refused {"code":"LB_GATE_EXCEEDED"} Too much would move',
  ],
  [
    { type: 'stopping', cause: 'SIGTERM', deadlineMs: 30_000 },
    'info stopping {"cause":"SIGTERM","deadlineMs":30000} Stopping on SIGTERM: flows may finish for 30000 ms',
  ],
  [
    { type: 'stopping', cause: 'SIGTERM', deadlineMs: 30_000, keptInKernel: true },
    'info stopping {"cause":"SIGTERM","deadlineMs":30000} Stopping on SIGTERM: the kernel keeps forwarding with the rules it has',
  ],
  [
    { type: 'stopped', report: { finished: 5, reset: 1 } },
    'info stopped {"finished":5,"reset":1} Stopped: 5 flows finished, 1 were ended',
  ],
  [
    { type: 'stopped', report: { finished: 0, reset: 0 }, keptInKernel: true },
    'info stopped {"finished":0,"reset":0} Stopped: the kernel keeps forwarding with the rules it has',
  ],
  [
    { type: 'server-failed', error: new Error('Cannot listen on 127.0.0.1:9902') },
    'error server-failed {} Cannot listen on 127.0.0.1:9902',
  ],
  [
    { type: 'request-failed', request: 'GET /v1/x', error: Object.assign(new Error(), { stack: 'at x' }) },
    'error request-failed {"error":"at x"} Admin API: GET /v1/x failed',
  ],
  [
    { type: 'systemd-notify-failed', message: 'systemd-notify ended with 1' },
    'warn systemd-notify-failed {} systemd-notify ended with 1',
  ],
  [
    { type: 'flow-log-failed', action: 'write', file: 'f', error: full },
    'error flow-log-failed {"file":"f","code":"ENOSPC"} Cannot write "f": ENOSPC: no space',
  ],
  [
    { type: 'flow-log-failed', action: 'reopen', file: 'f', error: full },
    'error flow-log-failed {"file":"f","code":"ENOSPC"} Cannot reopen "f": ENOSPC: no space',
  ],
  [
    { type: 'flow-log-recovered', file: 'f', linesLost: 3 },
    'info flow-log-recovered {"file":"f","linesLost":3} Writing "f" again, 3 lines lost so far',
  ],
  [
    { type: 'flow-log-lost', file: 'f', lines: 3 },
    'warn flow-log-lost {"file":"f","lines":3} Lost 3 lines of "f"',
  ],
  [
    { type: 'webhook-dropped', url: 'https://a', limit: 100 },
    'warn webhook-dropped {"url":"https://a"} More than 100 health events wait for the webhook: the oldest are dropped',
  ],
  [
    {
      ...{ type: 'webhook-failed', url: 'https://a', name: 'NoHealthyBackends', phase: 'raised' },
      ...{ subject: 'nvas', evidence: 'HTTP 500' },
    },
    'warn webhook-failed {"url":"https://a","name":"NoHealthyBackends","phase":"raised","subject":"nvas","evidence":"HTTP 500"} Cannot post health event NoHealthyBackends of "nvas" to the webhook: HTTP 500',
  ],
  [
    { type: 'webhook-failed', url: 'https://a', count: 2 },
    'warn webhook-failed {"url":"https://a","count":2} Cannot post 2 more health events to the webhook: no time was left',
  ],
];

describe('EVENTS', () => {
  test('has a line for every event, but for those that only other parts act on', () => {
    const recorder = new LineRecorder();
    for (const [event] of GOLDEN) recorder.bus.emit(event);
    assert.deepEqual(
      recorder.golden,
      GOLDEN.map(([, line]) => line),
    );
    const shown = new Set<EventType>(GOLDEN.map(([event]) => event.type));
    assert.deepEqual(
      (Object.keys(EVENTS) as EventType[]).filter((type) => !shown.has(type)),
      ['flow-started', 'flow-ended', 'flow-moved'],
    );
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
  return { recorder, clock, emit, summaries: new EventSummaries(recorder.bus, clock) };
}

describe('EventSummaries of listen failures', () => {
  const base = { rule: 'ha-ports', protocol: 'tcp', address: '127.0.0.1' } as const;

  test('put failures that are alike together', () => {
    const { recorder, emit } = summaries();
    const failures = [
      ...Array.from({ length: 1023 }, (_, index) => ({ ...base, errorCode: 'EACCES', port: index + 1 })),
      { ...base, errorCode: 'EADDRINUSE', port: 8080 },
    ];
    emit({
      type: 'applied',
      digest: 'd1',
      report: { revision: 1, listeners: { tcp: 64_511, udp: 0 }, failures },
    });
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
    const { recorder, emit } = summaries();
    const apply = (revision: number, ...taken: readonly number[]): void => {
      const failures = taken.map((port) => ({ ...base, errorCode: 'EADDRINUSE', port }));
      emit({ type: 'applied', digest: 'd1', report: { revision, listeners: { tcp: 1, udp: 1 }, failures } });
    };
    apply(1, 80);
    apply(2, 80);
    apply(3, 81);
    apply(4);
    apply(5, 81);
    assert.deepEqual(
      recorder.texts.filter((line) => line.startsWith('warn')),
      ['80', '81', '81'].map((port) => `warn Cannot listen on 1 of 3 ports, first tcp ${port} (EADDRINUSE)`),
    );
  });

  test('count captured ports alone, for they have no sockets', () => {
    const { recorder, emit } = summaries('captured');
    const failures = [{ ...base, errorCode: 'EADDRINUSE', port: 80 }];
    emit({ type: 'applied', digest: 'd1', report: { ...applied, failures } });
    assert.equal(recorder.texts[1], 'warn Cannot listen on 1 port, first tcp 80 (EADDRINUSE)');
  });

  test('cut a list of scattered ports', () => {
    const { recorder, emit } = summaries();
    const failures = Array.from({ length: 30_000 }, (_, index) => ({
      ...{ ...base, errorCode: 'EADDRINUSE', port: 2 * index + 1 },
    }));
    emit({ type: 'applied', digest: 'd1', report: { ...applied, failures } });
    const groups = recorder.lines[1]?.fields['failures'] as readonly { ports: string; count: number }[];
    assert.equal(groups.length, 1);
    assert.equal(groups[0]!.count, 30_000);
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
      'info Traffic could not reach backend "nvas/a" 1 more times, last: ECONNREFUSED',
    ]);
    assert.equal(clock.pendingTimers, 0);
  });
});
