import type { Flow } from '../../flow/flow.js';
import { policyVerdict } from '../../flow/flow-policy.js';
import type { BackendState, ForwardingState, PoolView } from '../../model/forwarding-state.js';
import type { FlowAction, FlowTrigger, Rule } from '../../model/rule.js';
import type { FlowKeeper } from './flow-keeper.js';

/**
 * Holds flows against a newly adopted state: flows whose rule is gone end, flows whose backend is no longer valid
 * meet their rule's flow policy. Doing it again changes nothing. Costs O(backends), and O(flows) only for flows of
 * invalid backends, or for all if the configuration changed.
 */
export function enforceFlowPolicies(keeper: FlowKeeper, previousDigest: string): void {
  const { state } = keeper;
  const members = state.views.map(
    (view) => new Map(view.backends.map((member) => [member.backend.id, member])),
  );
  const situation = new Situation(state, members);
  const flows =
    state.configuration.digest === previousDigest
      ? keeper.table
          .backendIds()
          .filter((id) => isSuspect(id, members))
          .flatMap((id) => keeper.table.flowsOn(id))
      : [...keeper.table.all()];
  for (const flow of flows) situation.judge(keeper, flow);
}

/** Whether flows on this backend need a look: some view holds it invalid, or none knows it. */
function isSuspect(backendId: string, members: readonly ReadonlyMap<string, BackendState>[]): boolean {
  let known = false;
  for (const view of members) {
    const member = view.get(backendId);
    if (member === undefined) continue;
    known = true;
    if (!member.valid) return true;
  }
  return !known;
}

class Situation {
  readonly #state: ForwardingState;
  readonly #members: readonly ReadonlyMap<string, BackendState>[];
  readonly #ruleIndexByName: ReadonlyMap<string, number>;

  constructor(state: ForwardingState, members: readonly ReadonlyMap<string, BackendState>[]) {
    this.#state = state;
    this.#members = members;
    this.#ruleIndexByName = new Map(state.configuration.rules.map((rule, index) => [rule.name, index]));
  }

  judge(keeper: FlowKeeper, flow: Flow): void {
    const ruleIndex = this.#ruleIndexByName.get(flow.rule.name) ?? -1;
    const viewIndex = this.#state.viewOfRule[ruleIndex] ?? -1;
    const rule: Rule | undefined = this.#state.configuration.rules[ruleIndex];
    const view: PoolView | undefined = this.#state.views[viewIndex];
    if (rule === undefined || view === undefined) {
      keeper.end(flow, 'rule-removed', 'reset');
      return;
    }
    keeper.adoptRule(flow, rule);
    if (flow.placement === undefined || flow.state === 'blackholed') return;
    const member = this.#members[viewIndex]?.get(flow.placement.backendId);
    const trigger = member === undefined ? 'removed' : member.valid ? undefined : member.invalidBecause;
    if (trigger === undefined) return;
    act(keeper, flow, trigger, policyVerdict(rule, flow.tuple.protocol, trigger, view));
  }
}

function act(keeper: FlowKeeper, flow: Flow, trigger: FlowTrigger, action: FlowAction): void {
  switch (action) {
    case 'persist':
      if (flow.placement !== undefined && flow.placement.reason !== 'pinned') {
        flow.placement = { ...flow.placement, reason: 'pinned' };
      }
      return;
    case 'rebalance':
      flow.transport.unpin();
      return;
    case 'reset':
      // Every trigger is also the name of the end it leads to.
      keeper.end(flow, trigger, 'reset');
      return;
    case 'drop':
      keeper.blackhole(flow);
      return;
  }
}
