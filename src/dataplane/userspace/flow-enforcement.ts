import type { Flow } from '../../flow/flow.js';
import { policyVerdict } from '../../flow/flow-policy.js';
import { ruleSuccessors } from '../../flow/rule-succession.js';
import type { Configuration } from '../../model/configuration.js';
import type { BackendState, ForwardingState, PoolView } from '../../model/forwarding-state.js';
import type { FlowAction, FlowTrigger, Rule } from '../../model/rule.js';
import { DrainEndings, type Drained } from './drain-endings.js';
import type { FlowKeeper } from './flow-keeper.js';

/** What flow policy wants of a flow. */
interface Verdict {
  readonly trigger: FlowTrigger;
  readonly action: FlowAction;
}

/**
 * Holds flows against newly adopted states. Flows whose rule goes on under another name go with it; flows whose rule is
 * gone end; flows whose backend is no longer valid meet their rule's flow policy: at once, or, after a drain, one
 * after another.
 */
export class FlowEnforcement {
  readonly #keeper: FlowKeeper;
  readonly #endings: DrainEndings;
  #situation: Situation;

  constructor(keeper: FlowKeeper) {
    this.#keeper = keeper;
    this.#situation = new Situation(keeper.state);
    this.#endings = new DrainEndings(keeper.clock, (flow) => this.#endDrained(flow));
  }

  /**
   * To be called whenever the keeper has adopted a state, with the configuration before it. Doing it again changes
   * nothing. Costs O(backends), and O(flows) only for flows of invalid backends, or for all if the configuration changed.
   */
  enforce(previous: Configuration): void {
    const { state, table } = this.#keeper;
    const situation = new Situation(state);
    this.#situation = situation;
    const changed = state.configuration.digest !== previous.digest;
    const successors = changed ? ruleSuccessors(previous, state.configuration) : undefined;
    const flows = changed
      ? [...table.all()]
      : table
          .backendIds()
          .filter((id) => situation.isSuspect(id))
          .flatMap((id) => table.flowsOn(id));
    const drained = situation.drained();
    for (const flow of flows) {
      if (successors !== undefined && !this.#succeed(flow, successors)) continue;
      const verdict = situation.judge(flow);
      const group =
        verdict?.trigger === 'drain-deadline' ? drained.get(flow.placement?.backendId ?? '') : undefined;
      if (group !== undefined && verdict?.action !== 'persist') group.flows.push(flow);
      else if (verdict !== undefined) act(this.#keeper, flow, verdict);
    }
    this.#endings.replace(drained);
  }

  /** Ends nothing any more that is not ended yet. */
  stop(): void {
    this.#endings.stop();
  }

  /** Hands the flow its rule as it is now. False: there is none, and the flow has ended. */
  #succeed(flow: Flow, successors: ReadonlyMap<string, string>): boolean {
    const name = successors.get(flow.rule.name);
    const rule = name === undefined ? undefined : this.#situation.rule(name);
    const renamed = name !== flow.rule.name;
    if (rule === undefined || (renamed && !rule.protocols.includes(flow.tuple.protocol))) {
      this.#keeper.end(flow, 'rule-removed', 'reset');
      return false;
    }
    this.#keeper.adoptRule(flow, rule);
    return true;
  }

  /** Its turn has come; by now it may have finished, or moved. */
  #endDrained(flow: Flow): void {
    if (flow.slot < 0) return;
    const verdict = this.#situation.judge(flow);
    if (verdict?.trigger === 'drain-deadline') act(this.#keeper, flow, verdict);
  }
}

/** A state, with what is looked up in it flow by flow. */
class Situation {
  readonly #state: ForwardingState;
  /** By view, then backend id. */
  readonly #members: readonly ReadonlyMap<string, BackendState>[];
  readonly #ruleIndexByName: ReadonlyMap<string, number>;

  constructor(state: ForwardingState) {
    this.#state = state;
    this.#members = state.views.map(
      (view) => new Map(view.backends.map((member) => [member.backend.id, member])),
    );
    this.#ruleIndexByName = new Map(state.configuration.rules.map((rule, index) => [rule.name, index]));
  }

  rule(name: string): Rule | undefined {
    return this.#state.configuration.rules[this.#ruleIndexByName.get(name) ?? -1];
  }

  /** Whether flows on this backend need a look: some view holds it invalid, or none knows it. */
  isSuspect(backendId: string): boolean {
    let known = false;
    for (const view of this.#members) {
      const member = view.get(backendId);
      if (member === undefined) continue;
      known = true;
      if (!member.valid) return true;
    }
    return !known;
  }

  /** Backends whose flows are to be ended since they were drained; which flows is not said yet. */
  drained(): Map<string, Drained> {
    const drained = new Map<string, Drained>();
    for (const view of this.#members) {
      for (const [backendId, { invalidBecause, endSpreadMs }] of view) {
        if (invalidBecause !== 'drain-deadline') continue;
        drained.set(backendId, { spreadMs: endSpreadMs ?? 0, flows: [] });
      }
    }
    return drained;
  }

  /** Undefined: the flow may stay as it is. */
  judge(flow: Flow): Verdict | undefined {
    const ruleIndex = this.#ruleIndexByName.get(flow.rule.name) ?? -1;
    const viewIndex = this.#state.viewOfRule[ruleIndex] ?? -1;
    const view: PoolView | undefined = this.#state.views[viewIndex];
    if (view === undefined || flow.placement === undefined || flow.state === 'blackholed') return undefined;
    const member = this.#members[viewIndex]?.get(flow.placement.backendId);
    const trigger = member === undefined ? 'removed' : member.valid ? undefined : member.invalidBecause;
    if (trigger === undefined) return undefined;
    return { trigger, action: policyVerdict(flow.rule, flow.tuple.protocol, trigger, view) };
  }
}

function act(keeper: FlowKeeper, flow: Flow, { trigger, action }: Verdict): void {
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
