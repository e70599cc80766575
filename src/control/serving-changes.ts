import type { PoolServingChanged } from '../model/control-events.js';
import type { ForwardingState, PoolView } from '../model/forwarding-state.js';

/** Which pool views serve with other members than before; at the first state, all of them. */
export function servingChanges(
  before: ForwardingState | undefined,
  after: ForwardingState,
): readonly PoolServingChanged[] {
  const previous = new Map(before?.views.map((view) => [view.key, servingIds(view)]));
  return after.views
    .filter((view) => previous.get(view.key) !== servingIds(view))
    .map((view) => ({
      type: 'pool-serving-changed',
      pool: view.pool,
      ...(view.probe === undefined ? {} : { probe: view.probe }),
      ...(view.servingPriority === undefined ? {} : { servingPriority: view.servingPriority }),
      eligible: view.backends.filter(({ eligible }) => eligible).length,
      total: view.backends.length,
    }));
}

function servingIds(view: PoolView): string {
  return view.backends
    .filter(({ serving }) => serving)
    .map(({ backend }) => backend.id)
    .sort()
    .join(' ');
}
