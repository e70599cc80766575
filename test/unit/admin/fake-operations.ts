import type { Operations } from '../../../src/admin/operations.js';
import type { DrainStatus } from '../../../src/model/forwarding.js';
import type { FeedEvent } from '../../../src/model/events.js';
import type { ListedFlow } from '../../../src/api/views.js';
import type { ReloadReport } from '../../../src/model/plan-report.js';
import { ipAddress } from '../../../src/model/address.js';

/** Events that tests make. */
export class FakeFeed {
  readonly events: FeedEvent[] = [];
  readonly listeners = new Set<(event: FeedEvent) => void>();

  since(id: number): readonly FeedEvent[] {
    return this.events.filter((event) => event.id > id);
  }

  subscribe(listener: (event: FeedEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  tell(message: string): FeedEvent {
    const id = this.events.length + 1;
    const event: FeedEvent = { id, atMs: 1000 + id, level: 'info', type: 'told', message, fields: {} };
    this.events.push(event);
    for (const listener of [...this.listeners]) listener(event);
    return event;
  }
}

export const FLOW: ListedFlow = {
  id: 7,
  tuple: {
    protocol: 'tcp',
    source: ipAddress('2001:db8::7'),
    sourcePort: 40_000,
    destination: ipAddress('fd00::1'),
    destinationPort: 443,
  },
  rule: 'web',
  backendId: 'nvas/fd00::b',
  backendEndpoint: '[fd00::b]:443',
  reason: 'hash',
  state: 'established',
  epoch: 3,
  excluded: [],
  openedAtMs: 1000,
  idleMs: 5,
  bytesToBackend: 1,
  packetsToBackend: 1,
  bytesToClient: 2,
  packetsToClient: 1,
};

export const DRAIN: DrainStatus = {
  pool: 'nvas',
  backendId: 'nvas/fd00::b',
  backendName: 'nva-1',
  phase: 'draining',
  deadlineMs: 600_000,
  then: 'reset',
  spreadMs: 10_000,
  startedAtMs: 1000,
  deadlineAtMs: 601_000,
  flowsAtStart: 1,
  flows: { tcp: 1, udp: 0 },
  longest: [FLOW],
};

/** Each call is kept as `[name, ...arguments]`; what is answered can be replaced. */
export class FakeOperations {
  readonly calls: unknown[][] = [];
  readonly events = new FakeFeed();

  with(answers: Partial<Operations> = {}): Operations {
    const call = <T>(name: string, answer: T, args: readonly unknown[]): Promise<T> => {
      this.calls.push([name, ...args]);
      return Promise.resolve(answer);
    };
    const traffic = {
      flowsActive: 1,
      flowsOpened: 1,
      newFlowsPerSecond: 0,
      bytesToBackend: 1,
      bytesToClient: 2,
      bitsToBackendPerSecond: 0,
      bitsToClientPerSecond: 0,
      connectFailures: 0,
      resets: 0,
    };
    const pool = { name: 'nvas', minimumHealthy: 1, serving: 1, rules: ['web'], backends: [] };
    const use = { used: 0, limit: 1 };
    const operations: Operations = {
      status: () =>
        call(
          'status',
          {
            version: '0',
            pid: 1,
            startedAtMs: 0,
            workers: 1,
            workersLost: 0,
            configuration: { source: 'config.json', digest: 'd', loadedAtMs: 0 },
            revision: 1,
            problems: [],
            listeners: { tcp: 1, udp: 0 },
            table: { tcp: use, udp: use, embryonic: use },
            traffic,
            backends: { total: 1, serving: 1 },
            drains: [DRAIN],
          },
          [],
        ),
      frontends: () => call('frontends', [], []),
      rules: () => call('rules', [], []),
      pools: () => call('pools', [pool], []),
      flows: (...args) => call('flows', { flows: [FLOW], matched: 1 }, args),
      explain: (...args) => call('explain', { revision: 1, flow: FLOW }, args),
      setAdminState: (...args) => call('setAdminState', undefined, args),
      setWeight: (...args) => call('setWeight', undefined, args),
      drain: (...args) => call('drain', DRAIN, args),
      cancelDrain: (...args) => call('cancelDrain', undefined, args),
      drains: () => call('drains', [DRAIN], []),
      plan: (...args) => call('plan', { findings: [], report: PLAN }, args),
      reload: (...args) => call('reload', { findings: [], report: RELOAD }, args),
      upgrade: (...args) => call('upgrade', UPGRADE, args),
      simulate: (...args) => call('simulate', { revision: 1, configDigest: 'd', rules: [] }, args),
      events: this.events,
    };
    return { ...operations, ...answers };
  }
}

const UPGRADE = { pid: 2, version: '1', sockets: 4, udpFlows: 1, durationMs: 900.5, udpPauseMs: 20.5 };
const FATES = { stay: 1, move: 0, reset: 0, drop: 0 };
const PLAN = {
  fromDigest: 'a',
  toDigest: 'b',
  revision: 1,
  rules: [],
  movedShare: 0,
  flows: FATES,
  backends: { added: [], removed: [], changed: [] },
  probeStateLost: [],
  listeners: { kept: 1, opened: 0, closed: 0 },
  restartNeeded: [],
  steps: [],
};
const RELOAD: ReloadReport = {
  revision: 2,
  digest: 'b',
  plan: PLAN,
  kept: { flows: 1, probeTargets: 1, adminStates: 0, drains: 0, listeners: 1 },
  lost: { flows: 0, probeTargets: 0, overrides: [], listeners: 0 },
  durationMs: 3,
};
