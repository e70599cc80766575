import { ruleSuccessors } from '../../../flows/judge.js';
import { ipAddress, type FiveTuple, type Protocol } from '../../../model/address.js';
import type { Rule } from '../../../model/configuration.js';
import type { FlowEndReason, PlacementReason } from '../../../model/flow.js';
import type { ForwardingState } from '../../../model/forwarding.js';
import { NONE_EXCLUDED, ruleAndView, tableInUse, type Picker } from '../../../selection/picker.js';
import { NO_RULE } from '../../../selection/rule-ports.js';
import type { ConntrackEntry } from '../../netfilter/conntrack.js';
import type { KernelBackend, KernelInput } from '../program.js';
import type { EndingFlows } from '../stop.js';

/** Why a flow is where the kernel has put it. */
export interface Placement {
  readonly rule: Pick<Rule, 'name' | 'portOffset'>;
  readonly backend: KernelBackend;
  readonly reason: PlacementReason;
  readonly epoch: number;
  readonly excluded: readonly string[];
}

/** What flows have in common that are counted together. */
export interface FlowKind {
  readonly rule: string;
  readonly backendId: string;
  readonly protocol: Protocol;
}

interface Epoch {
  readonly state: ForwardingState;
  /** By rule index: ids that newer states have taken out of the table that new flows are placed with. */
  readonly out: Map<number, ReadonlySet<string>>;
}

/** A flow is told of within a second of its first packet; states follow one another quickly while backends flap. */
const EPOCHS = 16;

/** Of a rule that is gone, or that never was: its flows have to be counted somewhere. */
const NO_RULE_NAME = 'none';

/** The last forwarding states, and what they say of the flows that the kernel tells of. */
export class StateHistory {
  readonly #picker: Picker;
  /** Newest first. */
  #epochs: readonly Epoch[] = [];
  /** Those that are gone have flows for a while. */
  readonly #backends = new Map<number, KernelBackend>();
  readonly #endings: { readonly flows: EndingFlows; readonly reason: FlowEndReason }[] = [];

  constructor(picker: Picker) {
    this.#picker = picker;
  }

  /** @returns new rule names by old ones, where another configuration has taken over. */
  take(state: ForwardingState, input: KernelInput): ReadonlyMap<string, string> {
    const before = this.#epochs[0]?.state.configuration;
    for (const backend of input.backends) this.#backends.set(backend.mark, backend);
    this.#endings.length = 0;
    const older = this.#epochs.slice(0, EPOCHS - 1).map(({ state: one }) => ({ state: one, out: new Map() }));
    this.#epochs = [{ state, out: new Map() }, ...older];
    const { configuration } = state;
    return before === undefined || before === configuration
      ? new Map()
      : ruleSuccessors(before, configuration);
  }

  backend(mark: number): KernelBackend | undefined {
    return this.#backends.get(mark);
  }

  /** Explains a flow that has just begun. Undefined: no backend of ours has its mark. */
  place(entry: ConntrackEntry, protocol: Protocol): Placement | undefined {
    const backend = this.#backends.get(entry.mark);
    if (backend === undefined) return undefined;
    const tuple = tupleOf(entry, protocol);
    for (const { state } of this.#epochs) {
      const placed = this.#placedBy(state, tuple, backend, NONE_EXCLUDED);
      if (placed !== undefined) return placed;
    }
    // Before a table changes, who leaves it is out already: the kernel then hashes once more.
    for (const epoch of this.#epochs) {
      const ruleIndex = this.#picker.matchRule(epoch.state, tuple);
      if (ruleIndex === NO_RULE) continue;
      const placed = this.#placedBy(epoch.state, tuple, backend, this.#outOf(epoch, ruleIndex));
      if (placed !== undefined) return placed;
    }
    return this.#pinned(tuple, backend);
  }

  /** Explains a flow that was there already: it may have been placed long ago. */
  adopt(entry: ConntrackEntry, protocol: Protocol): Placement | undefined {
    const backend = this.#backends.get(entry.mark);
    const [newest] = this.#epochs;
    if (backend === undefined || newest === undefined) return undefined;
    const tuple = tupleOf(entry, protocol);
    return this.#placedBy(newest.state, tuple, backend, NONE_EXCLUDED) ?? this.#pinned(tuple, backend);
  }

  /** Flows of that kind that are deleted have ended for that reason, until the next state. */
  ending(flows: EndingFlows, reason: FlowEndReason): void {
    this.#endings.push({ flows, reason });
  }

  /** Why this process has deleted a flow; undefined: it had no cause to. */
  policyEnd({ rule: ruleName, backendId, protocol }: FlowKind): FlowEndReason | undefined {
    const told = this.#endings.findLast(
      ({ flows }) =>
        this.#backends.get(flows.mark)?.id === backendId &&
        (flows.rule ?? ruleName) === ruleName &&
        (flows.protocol ?? protocol) === protocol,
    );
    if (told !== undefined) return told.reason;
    // What made it do so may have passed since.
    for (const [age, { state }] of this.#epochs.entries()) {
      const ruleIndex = state.configuration.rules.findIndex(({ name }) => name === ruleName);
      const { backends } = ruleIndex < 0 ? { backends: [] } : ruleAndView(state, ruleIndex).view;
      const member = backends.find(({ backend }) => backend.id === backendId);
      if (member?.invalidBecause !== undefined) return member.invalidBecause;
      if (member === undefined && age === 0) return ruleIndex < 0 ? 'rule-removed' : 'removed';
    }
    return undefined;
  }

  /** How long flows of a rule stay without packets; undefined: there is no such rule any more. */
  idleTimeoutMs({
    rule,
    protocol,
  }: {
    readonly rule: string;
    readonly protocol: Protocol;
  }): number | undefined {
    const rules = this.#epochs[0]?.state.configuration.rules;
    return rules?.find(({ name }) => name === rule)?.idleTimeoutMs[protocol].value;
  }

  #placedBy(
    state: ForwardingState,
    tuple: FiveTuple,
    backend: KernelBackend,
    excluded: ReadonlySet<string>,
  ): Placement | undefined {
    const ruleIndex = this.#picker.matchRule(state, tuple);
    const rule = state.configuration.rules[ruleIndex];
    if (rule === undefined) return undefined;
    const pick = this.#picker.pickForRule(state, ruleIndex, tuple, excluded);
    if (pick.kind !== 'picked' || pick.backendId !== backend.id) return undefined;
    return { rule, backend, reason: pick.reason, epoch: state.revision, excluded: [...excluded] };
  }

  #pinned(tuple: FiveTuple, backend: KernelBackend): Placement {
    const { state } = this.#newest();
    const { rules } = state.configuration;
    const rule =
      rules[this.#picker.matchRule(state, tuple)] ??
      rules.find(({ pool }) => backend.id.startsWith(`${pool.name}/`));
    return {
      rule: rule ?? { name: NO_RULE_NAME, portOffset: 0 },
      ...{ backend, reason: 'pinned', epoch: state.revision, excluded: [] },
    };
  }

  #outOf(epoch: Epoch, ruleIndex: number): ReadonlySet<string> {
    let out = epoch.out.get(ruleIndex);
    if (out === undefined) epoch.out.set(ruleIndex, (out = this.#findOut(epoch.state, ruleIndex)));
    return out;
  }

  #findOut(state: ForwardingState, ruleIndex: number): ReadonlySet<string> {
    const newest = this.#newest().state;
    const { rule } = ruleAndView(state, ruleIndex);
    const newIndex = newest.configuration.rules.findIndex(({ name }) => name === rule.name);
    const now = newIndex < 0 ? new Set<string>() : placedIds(newest, newIndex);
    return new Set([...placedIds(state, ruleIndex)].filter((id) => !now.has(id)));
  }

  #newest(): Epoch {
    const [newest] = this.#epochs;
    if (newest === undefined) throw new TypeError('There is no forwarding state yet');
    return newest;
  }
}

/** Who is in the table that new flows are placed with. */
function placedIds(state: ForwardingState, ruleIndex: number): Set<string> {
  const { rule, view } = ruleAndView(state, ruleIndex);
  const indexes = new Set(tableInUse(rule, view)?.table);
  return new Set(view.backends.filter((_, index) => indexes.has(index)).map(({ backend }) => backend.id));
}

function tupleOf({ original }: ConntrackEntry, protocol: Protocol): FiveTuple {
  const { source, sourcePort, destination, destinationPort } = original;
  return {
    protocol,
    source: ipAddress(source),
    sourcePort,
    destination: ipAddress(destination),
    destinationPort,
  };
}
