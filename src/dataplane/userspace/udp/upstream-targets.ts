import type { ForwardingState } from '../../../model/forwarding-state.js';
import { backendEndpoint } from '../../../selection/backend-endpoint.js';
import type { Picked } from '../../../selection/pick-result.js';
import type { UpstreamTarget } from './upstream-dialer.js';

/** Rules times backends times ports may be millions; forgetting them costs little. */
const MOST_TARGETS = 4096;

/** What to dial for picks of one state. Flows to the same port of the same backend share one target. */
export class UpstreamTargets {
  readonly #targets = new Map<number, UpstreamTarget>();
  #state: ForwardingState | undefined;

  /** Throws RangeError where the state contradicts itself: a bug. */
  of(state: ForwardingState, pick: Picked, destinationPort: number): UpstreamTarget {
    if (state !== this.#state) {
      this.#targets.clear();
      this.#state = state;
    }
    // Exact: backends number at most 65,535, rules far less than 2^21.
    const key = (pick.ruleIndex * 65_536 + pick.backendIndex) * 65_536 + destinationPort;
    let target = this.#targets.get(key);
    if (target === undefined) {
      target = targetOf(state, pick, destinationPort);
      if (this.#targets.size >= MOST_TARGETS) this.#targets.clear();
      this.#targets.set(key, target);
    }
    return target;
  }
}

function targetOf(state: ForwardingState, pick: Picked, destinationPort: number): UpstreamTarget {
  const { rules, backendPools } = state.configuration;
  const rule = rules[pick.ruleIndex];
  const view = state.views[pick.viewIndex];
  const backend = view?.backends[pick.backendIndex]?.backend;
  const pool = backendPools.find(({ name }) => name === view?.pool);
  if (rule === undefined || backend === undefined || pool === undefined) {
    throw new RangeError(`No backend, rule or pool for "${pick.backendId}" in state ${state.revision}`);
  }
  const endpoint = backendEndpoint(rule, backend, rule.frontend, destinationPort);
  return { backendId: pick.backendId, endpoint, pool };
}
