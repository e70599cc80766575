import type { Protocol } from '../model/address.js';
import type { Configuration, FlowAction, FlowTrigger, KernelOptions, Rule } from '../model/configuration.js';
import type { FlowState } from '../model/flow.js';
import type { BackendState, ForwardingState, PoolView } from '../model/forwarding.js';
import { formatPortSet } from '../model/ports.js';

/** What becomes of a flow that may not stay as it is, and why. Every trigger is also a FlowEndReason. */
export interface Verdict {
  readonly trigger: FlowTrigger | 'rule-removed';
  readonly action: FlowAction;
}

/** The facts about a flow that its fate depends on. */
export interface JudgedFlow {
  readonly protocol: Protocol;
  /** Undefined or empty: it has no backend yet. */
  readonly backendId: string | undefined;
  readonly state: FlowState;
}

const RULE_REMOVED: Verdict = { trigger: 'rule-removed', action: 'reset' };

/** Says what a forwarding state means for existing flows. Immutable; make one per state. */
export class FlowJudge {
  readonly #state: ForwardingState;
  /** By view, then backend id. */
  readonly #members: readonly ReadonlyMap<string, BackendState>[];

  constructor(state: ForwardingState) {
    this.#state = state;
    this.#members = state.views.map(
      ({ backends }) => new Map(backends.map((member) => [member.backend.id, member])),
    );
  }

  /** `ruleIndex`: of the flow's rule in this state, -1 if it is gone. Undefined: the flow stays as it is. */
  judge(ruleIndex: number, { protocol, backendId, state }: JudgedFlow): Verdict | undefined {
    const { configuration, viewOfRule, views } = this.#state;
    const viewIndex = viewOfRule[ruleIndex] ?? -1;
    const rule = configuration.rules[ruleIndex];
    const view = views[viewIndex];
    if (rule === undefined || view === undefined) return RULE_REMOVED;
    if (backendId === undefined || backendId === '' || state === 'blackholed') return undefined;
    const member = this.#members[viewIndex]?.get(backendId);
    const verdict = memberVerdict(rule, protocol, { view, member, kernel: configuration.kernel });
    // A connection that is still being made has carried nothing: another backend can take it.
    const canStillMove = protocol === 'tcp' && state === 'embryonic' && configuration.kernel === undefined;
    if (verdict?.action !== 'reset' || !canStillMove || view.table.length === 0) return verdict;
    return { ...verdict, action: 'rebalance' };
  }

  /** Whether flows on this backend need to be judged: some view holds it invalid, or none knows it. */
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

  /** Drained backends past their deadline: by id, over how many milliseconds their flows end; 0: at once. */
  drained(): ReadonlyMap<string, number> {
    const drained = new Map<string, number>();
    for (const view of this.#members) {
      for (const [backendId, { invalidBecause, endSpreadMs }] of view) {
        if (invalidBecause === 'drain-deadline') drained.set(backendId, endSpreadMs ?? 0);
      }
    }
    return drained;
  }
}

/** What flow policy says of a rule's flows on a member of its pool; `member` undefined: it was removed. */
export function memberVerdict(
  rule: Rule,
  protocol: Protocol,
  seen: {
    readonly view: PoolView;
    readonly member: BackendState | undefined;
    readonly kernel: Pick<KernelOptions, 'mode'> | undefined;
  },
): Verdict | undefined {
  const { view, member, kernel } = seen;
  const trigger = member === undefined ? 'removed' : member.valid ? undefined : member.invalidBecause;
  return trigger && { trigger, action: policyAction(rule, protocol, trigger, view, kernel) };
}

/**
 * What happens to a flow whose backend met the trigger. A TCP stream that its backend ends cannot be moved, so
 * `rebalance` resets it; only kernel modes that forward packets unchanged move TCP. Under `allDown: fail-open` a UDP
 * flow that would move stays while no backend is better.
 */
export function policyAction(
  rule: Rule,
  protocol: Protocol,
  trigger: FlowTrigger,
  view: PoolView,
  kernel: Pick<KernelOptions, 'mode'> | undefined,
): FlowAction {
  const configured = rule.flowPolicy[trigger][protocol];
  if (configured !== 'rebalance') return configured;
  const movesTcp = kernel !== undefined && kernel.mode !== 'nat';
  if (protocol === 'tcp' && !movesTcp) return 'reset';
  const nowhereBetter = view.table.length === 0 && rule.allDown === 'fail-open' && trigger === 'probe-down';
  return nowhereBetter ? 'persist' : 'rebalance';
}

/**
 * The rule of another configuration that takes over a rule's flows: the one of its name, and else, if the name is gone,
 * one whose name is new and that is the same otherwise (frontend address, pool, ports, HA ports, a protocol in common;
 * of several the one with most protocols in common, then the first). Old name to new name; rules that end are missing.
 * Flows of a protocol that the new rule no longer has end all the same where the name has changed.
 */
export function ruleSuccessors(before: Configuration, after: Configuration): ReadonlyMap<string, string> {
  const namesBefore = new Set(before.rules.map(({ name }) => name));
  const namesAfter = new Set(after.rules.map(({ name }) => name));
  const heirs = new Map<string, Rule[]>();
  for (const rule of after.rules) {
    if (namesBefore.has(rule.name)) continue;
    const key = identityOf(rule);
    heirs.set(key, [...(heirs.get(key) ?? []), rule]);
  }
  const successors = new Map<string, string>();
  for (const rule of before.rules) {
    const heir = namesAfter.has(rule.name) ? rule : nearest(rule, heirs.get(identityOf(rule)) ?? []);
    if (heir !== undefined) successors.set(rule.name, heir.name);
  }
  return successors;
}

function nearest({ protocols }: Rule, heirs: readonly Rule[]): Rule | undefined {
  const common = (heir: Rule): number =>
    heir.protocols.filter((protocol) => protocols.includes(protocol)).length;
  return heirs.filter((heir) => common(heir) > 0).sort((a, b) => common(b) - common(a))[0];
}

/** All that makes a rule what it is but for its name and protocols, as one word. */
function identityOf({ frontend, pool, haPorts, ports }: Rule): string {
  return [frontend.address.text, pool.name, haPorts, formatPortSet(ports)].join(' ');
}
