import type { BackendHealth } from '../model/backend-health.js';
import type { ProbeView } from '../model/operator-views.js';
import type { ProbedMember } from './probe-health.js';

/** A member of a pool as one probe sees it; `health` is undefined before its first result. */
export type ProbedStatus = ProbedMember & { readonly health: BackendHealth | undefined };

/** Every probe of one backend, once: of two definitions under one name, which a reload may bring, the newer. Pure. */
export function probeViews(
  statuses: readonly ProbedStatus[],
  backendId: string,
  monotonicMs: number,
): readonly ProbeView[] {
  const views = new Map<string, ProbeView>();
  for (const { backend, probe, health } of statuses) {
    if (backend.id === backendId) views.set(probe.name, probeView(probe.name, health, monotonicMs));
  }
  return [...views.values()];
}

function probeView(probe: string, health: BackendHealth | undefined, monotonicMs: number): ProbeView {
  if (health === undefined) {
    const nothing = { consecutiveSuccesses: 0, consecutiveFailures: 0, transitions: 0, history: [] };
    return { probe, state: 'unknown', ...nothing };
  }
  const { state, consecutiveSuccesses, consecutiveFailures, transitions, heldUntilMs, last, history } =
    health;
  const heldForMs = heldUntilMs === undefined ? 0 : heldUntilMs - monotonicMs;
  return {
    probe,
    state,
    consecutiveSuccesses,
    consecutiveFailures,
    transitions,
    ...(heldForMs > 0 ? { heldForMs } : {}),
    ...(last === undefined
      ? {}
      : {
          last: {
            verdict: last.inconclusive === true ? 'inconclusive' : last.verdict,
            evidence: last.evidence,
            durationMs: last.durationMs,
          },
        }),
    history,
  };
}
