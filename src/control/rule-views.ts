import type { ArrivalCounters } from '../dataplane/data-plane.js';
import type { ForwardingState, PoolView } from '../model/forwarding-state.js';
import type { RuleView } from '../model/operator-views.js';
import { formatPortSet } from '../model/port-set.js';
import type { Rule } from '../model/rule.js';
import { estimateSources, mergeSketches } from '../model/source-sketch.js';
import { tableInUse } from '../selection/picker.js';
import { NO_TRAFFIC, trafficBy, type ViewSamples } from './traffic-view.js';

/** In the order of the configuration. Pure. */
export function ruleViews(state: ForwardingState, samples: ViewSamples): readonly RuleView[] {
  const traffic = trafficBy(samples, ({ rule }) => rule);
  const arrivals = samples.latest?.counters.arrivals ?? [];
  return state.configuration.rules.map((rule, index): RuleView => {
    const view = state.views[state.viewOfRule[index] ?? -1];
    return {
      name: rule.name,
      frontend: rule.frontend,
      backendPool: rule.backendPool,
      ...(rule.probe === undefined ? {} : { probe: rule.probe }),
      protocols: rule.protocols,
      haPorts: rule.haPorts,
      ports: formatPortSet(rule.ports),
      distribution: rule.distribution,
      symmetric: rule.symmetric,
      floatingIp: rule.floatingIp,
      allDown: rule.allDown,
      serving: view === undefined ? 0 : takersOf(rule, view),
      ...arrived(arrivals.filter((row) => row.rule === rule.name)),
      traffic: traffic.get(rule.name) ?? NO_TRAFFIC,
    };
  });
}

/** Backends that new flows of the rule go to: under fail-open, those that the table for it was built with. */
function takersOf(rule: Rule, view: PoolView): number {
  const inUse = tableInUse(rule, view);
  const { backends } = view;
  if (inUse === undefined) return 0;
  if (!inUse.failOpen) return backends.filter(({ serving }) => serving).length;
  return backends.filter(({ adminState, effectiveWeight }) => adminState !== 'down' && effectiveWeight > 0)
    .length;
}

/** Both protocols in one: a client that uses both is one source. */
function arrived(rows: readonly ArrivalCounters[]): Pick<RuleView, 'arrivals' | 'drops' | 'distinctSources'> {
  const drops: Partial<Record<string, number>> = {};
  let sketch: Uint8Array | undefined;
  for (const row of rows) {
    for (const [reason, count] of Object.entries(row.drops)) drops[reason] = (drops[reason] ?? 0) + count;
    const { sourceSketch } = row;
    if (sourceSketch === undefined) continue;
    sketch = sketch === undefined ? sourceSketch : mergeSketches(sketch, sourceSketch);
  }
  return {
    arrivals: rows.reduce((sum, row) => sum + row.arrivals, 0),
    drops,
    distinctSources: sketch === undefined ? 0 : Math.round(estimateSources(sketch)),
  };
}
