import type { ArrivalCounters } from '../../dataplane/data-plane.js';
import type { ForwardingState, PoolView } from '../../model/forwarding-state.js';
import type { HealthEventName } from '../../model/health-event.js';
import type { Rule } from '../../model/rule.js';
import { estimateSources, mergeSketches } from '../../model/source-sketch.js';
import type { Finding } from './alarm-book.js';
import type { Monitor, MonitorSample } from './monitor.js';
import { assessSkew, type SkewInputs } from './skew-verdict.js';
import { TrafficWindow } from './traffic-window.js';

/** Affinity moves slowly: what was seen in the last ten minutes counts. */
const WINDOW_MS = 600_000;

/** Tells of rules whose affinity by source has too few sources to spread (Azure: distribution mode, SourceIP). */
export class SkewAdvisor implements Monitor {
  readonly names: readonly HealthEventName[] = ['SourceAffinitySkew'];
  readonly #window = new TrafficWindow({ windowMs: WINDOW_MS });
  /** By rule: who serves with what weight, and since when. Spreads of different tables cannot be added up. */
  #spreads: ReadonlyMap<string, { readonly members: string; readonly sinceMs: number }> = new Map();

  observe({ atMs, counters }: MonitorSample, state: ForwardingState): readonly Finding[] | undefined {
    if (counters === undefined) return undefined;
    const changed = this.#updateSpreads(state, atMs);
    this.#window.add(atMs, counters.traffic, { isMark: changed });
    return state.configuration.rules.flatMap((rule, index) => {
      const view = viewOf(state, index);
      const sources = distinctSources(counters.arrivals, rule.name);
      if (view === undefined || sources === undefined) return [];
      const verdict = assessSkew(this.#inputs(rule, view, sources, atMs));
      return verdict === undefined ? [] : [{ name: 'SourceAffinitySkew', subject: rule.name, ...verdict }];
    });
  }

  #inputs(rule: Rule, view: PoolView, sources: number, atMs: number): SkewInputs {
    const sinceMs = this.#spreads.get(rule.name)?.sinceMs ?? atMs;
    const serving = view.backends.filter((member) => member.serving);
    return {
      distribution: rule.distribution,
      sources,
      backends: serving.map(({ backend, effectiveWeight }) => ({
        name: backend.name,
        weight: effectiveWeight,
        flowsOpened: rule.protocols.reduce((total, protocol) => {
          const row = { rule: rule.name, backendId: backend.id, protocol };
          return total + this.#window.since(sinceMs, row).flowsOpened;
        }, 0),
      })),
    };
  }

  #updateSpreads(state: ForwardingState, atMs: number): boolean {
    let changed = false;
    const spreads = new Map<string, { readonly members: string; readonly sinceMs: number }>();
    state.configuration.rules.forEach((rule, index) => {
      const serving = viewOf(state, index)?.backends.filter((member) => member.serving) ?? [];
      const members = [
        rule.distribution,
        ...serving.map(({ backend, effectiveWeight }) => `${backend.id}*${effectiveWeight}`),
      ].join(' ');
      const before = this.#spreads.get(rule.name);
      const isSame = before?.members === members;
      spreads.set(rule.name, isSame ? before : { members, sinceMs: atMs });
      changed ||= !isSame;
    });
    this.#spreads = spreads;
    return changed;
  }
}

/** Estimate over all protocols of the rule since the start; undefined where nobody counts. */
function distinctSources(arrivals: readonly ArrivalCounters[], rule: string): number | undefined {
  const sketches = arrivals.flatMap((row) =>
    row.rule === rule && row.sourceSketch !== undefined ? [row.sourceSketch] : [],
  );
  const [first, ...others] = sketches;
  return first === undefined ? undefined : estimateSources(others.reduce(mergeSketches, first));
}

function viewOf(state: ForwardingState, ruleIndex: number): PoolView | undefined {
  const view = state.viewOfRule[ruleIndex];
  return view === undefined ? undefined : state.views[view];
}
