import type { ForwardingState } from '../../model/forwarding-state.js';

/**
 * Drained backends whose flows are to end over a time, which it is, by id. `over`: those whose time has passed; ids that
 * are drained no more are taken out of it.
 */
export function spreadingOf({ views }: ForwardingState, over: Set<string>): ReadonlyMap<string, number> {
  const drained = new Map<string, number>();
  for (const { backends } of views) {
    for (const { backend, invalidBecause, endSpreadMs } of backends) {
      if (invalidBecause === 'drain-deadline') drained.set(backend.id, endSpreadMs ?? 0);
    }
  }
  for (const id of over) if (!drained.has(id)) over.delete(id);
  return new Map([...drained].filter(([id, spreadMs]) => spreadMs > 0 && !over.has(id)));
}
