import type { ForwardingState } from '../model/forwarding-state.js';
import type { Labels } from './metric-family.js';

/**
 * Gives the `pool` and `backend` (name) labels of a backend id. One that is no longer configured, but still has
 * flows, is named by its address, which its id (`pool/address`) holds.
 */
export function backendLabeller(state: ForwardingState | undefined): (backendId: string) => Labels {
  const labels = new Map<string, Labels>();
  for (const pool of state?.configuration.backendPools ?? []) {
    for (const backend of pool.backends) labels.set(backend.id, { pool: pool.name, backend: backend.name });
  }
  return (backendId) => {
    const known = labels.get(backendId);
    if (known !== undefined) return known;
    const slash = backendId.indexOf('/');
    return { pool: backendId.slice(0, Math.max(0, slash)), backend: backendId.slice(slash + 1) };
  };
}
