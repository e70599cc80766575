import { policyVerdict, tcpRebalance } from '../flow/flow-policy.js';
import type { Protocol } from '../model/five-tuple.js';
import type { FlowState } from '../model/flow.js';
import type { BackendState, ForwardingState } from '../model/forwarding-state.js';
import type { FlowFates } from '../model/plan-report.js';
import type { FlowAction } from '../model/rule.js';

export type Fate = keyof FlowFates;

/** What of a flow decides on its fate. */
export interface FlowAtStake {
  readonly protocol: Protocol;
  /** Empty: it has none yet. */
  readonly backendId: string;
  readonly state: FlowState;
}

const FATE_OF: Readonly<Record<FlowAction, Fate>> = {
  persist: 'stay',
  rebalance: 'move',
  reset: 'reset',
  drop: 'drop',
};

/**
 * What a data plane will do to flows when it gets a state: the same questions in the same order as it asks when it
 * holds its flows against one (dataplane/userspace/flow-enforcement.ts).
 */
export class FlowFateJudge {
  readonly #state: ForwardingState;
  readonly #members: readonly ReadonlyMap<string, BackendState>[];

  constructor(state: ForwardingState) {
    this.#state = state;
    this.#members = state.views.map(
      ({ backends }) => new Map(backends.map((member) => [member.backend.id, member])),
    );
  }

  /** `ruleIndex`: of the flow's rule in this state; undefined: it is gone. */
  fateOf(ruleIndex: number | undefined, { protocol, backendId, state }: FlowAtStake): Fate {
    if (ruleIndex === undefined) return 'reset';
    const { configuration, viewOfRule, views } = this.#state;
    const viewIndex = viewOfRule[ruleIndex] ?? -1;
    const rule = configuration.rules[ruleIndex];
    const view = views[viewIndex];
    if (rule === undefined || view === undefined) return 'reset';
    if (backendId === '' || state === 'blackholed') return 'stay';
    const member = this.#members[viewIndex]?.get(backendId);
    const trigger = member === undefined ? 'removed' : member.valid ? undefined : member.invalidBecause;
    if (trigger === undefined) return 'stay';
    return FATE_OF[policyVerdict(rule, protocol, trigger, view, tcpRebalance(configuration.kernel))];
  }
}

/** Counts fates of flows by protocol. */
export class FateTally {
  readonly #counts: Readonly<Record<Protocol, Record<Fate, number>>> = { tcp: noFates(), udp: noFates() };

  count(protocol: Protocol, fate: Fate): void {
    this.#counts[protocol][fate]++;
  }

  /** A copy. */
  get byProtocol(): Readonly<Record<Protocol, FlowFates>> {
    return { tcp: { ...this.#counts.tcp }, udp: { ...this.#counts.udp } };
  }
}

export function sumFates(fates: Iterable<FlowFates>): FlowFates {
  const sum = noFates();
  for (const { stay, move, reset, drop } of fates) {
    sum.stay += stay;
    sum.move += move;
    sum.reset += reset;
    sum.drop += drop;
  }
  return sum;
}

function noFates(): Record<Fate, number> {
  return { stay: 0, move: 0, reset: 0, drop: 0 };
}
