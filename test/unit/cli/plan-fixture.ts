import type { PlanOutcome, PlanReport } from '../../../src/api/views.js';

const NONE = { stay: 0, move: 0, reset: 0, drop: 0 };

/** A plan in which a quarter of one rule moves. */
export function outcome(overrides: Partial<PlanReport> = {}): PlanOutcome {
  const report: PlanReport = {
    fromDigest: '1'.repeat(64),
    toDigest: '2'.repeat(64),
    revision: 12,
    rules: [
      {
        name: 'ha-ports',
        change: 'changed',
        changes: ['idleTimeout', 'probe.interval'],
        movedShare: 0.25,
        flows: { tcp: { stay: 12_000, move: 0, reset: 3, drop: 0 }, udp: { ...NONE, move: 40 } },
      },
      {
        name: 'web',
        renamedFrom: 'www',
        change: 'changed',
        changes: ['name'],
        movedShare: 0,
        flows: { tcp: NONE, udp: NONE },
      },
    ],
    movedShare: 0.25,
    flows: { stay: 12_000, move: 40, reset: 3, drop: 0 },
    backends: {
      added: [{ pool: 'nvas', backendId: 'nvas/10.0.0.4', name: 'nva-4' }],
      removed: [{ pool: 'nvas', backendId: 'nvas/10.0.0.9', name: '10.0.0.9' }],
      changed: [{ pool: 'nvas', backendId: 'nvas/10.0.0.1', name: 'nva-1', changes: ['weight'] }],
    },
    probeStateLost: [{ backendId: 'nvas/10.0.0.1', probe: 'alive' }],
    listeners: { kept: 65_534, opened: 1, closed: 0 },
    restartNeeded: ['metrics'],
    steps: ['Open 1 listener', 'Reset 3 flows'],
    ...overrides,
  };
  return { findings: [], report };
}
