import { ruleSuccessors } from '../../../flows/judge.js';
import { ipAddress, type FiveTuple, type IpAddress, type Protocol } from '../../../model/address.js';
import type { Rule } from '../../../model/configuration.js';
import type { FlowEndReason, FlowRecord } from '../../../model/flow.js';
import type { ForwardingState } from '../../../model/forwarding.js';
import { NONE_EXCLUDED, ruleAndView, tableInUse, type Picker } from '../../../selection/picker.js';
import { NO_RULE } from '../../../selection/rule-ports.js';
import type { KernelBackend, KernelProgram } from '../program.js';

/** Why the kernel has placed a flow where it is. */
export type PlacementRecord = Pick<FlowRecord, 'reason' | 'epoch' | 'excluded'>;

/** Flows that the plane is about to end, so that their ends are reported with the reason. */
export interface EndingFlows {
  /** Of the backend. */
  readonly mark: number;
  /** Absent: of all protocols. `udp` stands for all but TCP. */
  readonly protocol?: Protocol;
  /** Only of that rule. @default all rules */
  readonly rule?: string;
}

/** What flows have in common that are counted together. */
export interface FlowKind {
  readonly rule: string;
  readonly backendId: string;
  readonly protocol: Protocol;
}

/** An epoch: a forwarding state and, by rule index, the backends in the table that new flows are placed with. */
interface Epoch {
  readonly state: ForwardingState;
  readonly placed: Map<number, ReadonlySet<string>>;
}

/** A flow is reported within a second of its first packet; states follow one another quickly while backends flap. */
const MOST_EPOCHS = 16;

/** Counts flows whose rule is gone, or never was. */
const NO_RULE_FOUND: Pick<Rule, 'name' | 'portOffset'> = { name: 'none', portOffset: 0 };

/** Frontends are few; where they are wildcards, destinations are not. */
const MOST_ADDRESSES = 1024;

/** The last forwarding states, and what they say about the flows that the kernel reports. */
export class Placements {
  readonly #picker: Picker;
  /** Newest first. */
  #epochs: readonly Epoch[] = [];
  /** Backends that are gone keep their marks: they have flows for a while. */
  readonly #backends = new Map<number, KernelBackend>();
  readonly #addresses = new Map<string, IpAddress>();
  #endings: { readonly flows: EndingFlows; readonly reason: FlowEndReason }[] = [];

  constructor(picker: Picker) {
    this.#picker = picker;
  }

  /** @returns new rule names by old ones, where another configuration has taken over. */
  adopt(state: ForwardingState, program: KernelProgram): ReadonlyMap<string, string> {
    const before = this.#epochs[0]?.state.configuration;
    for (const backend of program.backends) this.#backends.set(backend.mark, backend);
    this.#endings = [];
    this.#epochs = [{ state, placed: new Map() }, ...this.#epochs.slice(0, MOST_EPOCHS - 1)];
    const { configuration } = state;
    return before === undefined || before === configuration
      ? new Map()
      : ruleSuccessors(before, configuration);
  }

  /** Revision of the newest state. */
  get epoch(): number {
    return this.#newest().state.revision;
  }

  backend(mark: number): KernelBackend | undefined {
    return this.#backends.get(mark);
  }

  /** Flows that match and are deleted from now on ended for that reason, until the next state. */
  ending(flows: EndingFlows, reason: FlowEndReason): void {
    this.#endings.push({ flows, reason });
  }

  /** The rule that a flow belongs to: of the newest state in which that rule has its backend. */
  ruleOf(tuple: FiveTuple, { id }: KernelBackend): Pick<Rule, 'name' | 'portOffset'> {
    const hasBackend = ({ pool }: Rule): boolean => id.startsWith(`${pool.name}/`);
    let matched: Rule | undefined;
    for (const { state } of this.#epochs) {
      const rule = state.configuration.rules[this.#picker.matchRule(state, tuple)];
      if (rule !== undefined && hasBackend(rule)) return rule;
      matched ??= rule;
    }
    return matched ?? this.#newest().state.configuration.rules.find(hasBackend) ?? NO_RULE_FOUND;
  }

  /** Explains a flow that began under the epoch `since`. */
  explain(tuple: FiveTuple, backendId: string, since: number): PlacementRecord {
    const known = this.#epochs.filter(({ state }) => state.revision <= since);
    const epochs = known.length > 0 ? known : this.#epochs.slice(-1);
    for (const { state } of epochs) {
      const placement = this.#placedBy(state, tuple, backendId, NONE_EXCLUDED);
      if (placement !== undefined) return placement;
    }
    // Before a table changes, backends that leave it are excluded already: the kernel then hashes once more.
    for (const epoch of epochs) {
      const ruleIndex = this.#picker.matchRule(epoch.state, tuple);
      if (ruleIndex === NO_RULE) continue;
      const left = this.#leftSince(epoch, ruleIndex, epochs[0] ?? epoch);
      const placement = this.#placedBy(epoch.state, tuple, backendId, left);
      if (placement !== undefined) return placement;
    }
    return { reason: 'pinned', epoch: since, excluded: [] };
  }

  /** Why this process has deleted a flow; undefined: it had no cause to. */
  policyEnd({ rule: ruleName, backendId, protocol }: FlowKind): FlowEndReason | undefined {
    const announced = this.#endings.findLast(
      ({ flows }) =>
        this.#backends.get(flows.mark)?.id === backendId &&
        (flows.rule ?? ruleName) === ruleName &&
        (flows.protocol ?? protocol) === protocol,
    );
    if (announced !== undefined) return announced.reason;
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
  idleTimeoutMs({ rule, protocol }: Pick<FlowKind, 'rule' | 'protocol'>): number | undefined {
    return this.rule(rule)?.idleTimeoutMs[protocol].value;
  }

  /** Undefined: no such rule now. */
  rule(name: string): Rule | undefined {
    return this.#newest().state.configuration.rules.find((rule) => rule.name === name);
  }

  /** A parsed address of a frontend or a destination, remembered by its text. */
  address(text: string): IpAddress {
    let address = this.#addresses.get(text);
    if (address === undefined) {
      if (this.#addresses.size >= MOST_ADDRESSES) this.#addresses.clear();
      this.#addresses.set(text, (address = ipAddress(text)));
    }
    return address;
  }

  #placedBy(
    state: ForwardingState,
    tuple: FiveTuple,
    backendId: string,
    excluded: ReadonlySet<string>,
  ): PlacementRecord | undefined {
    const ruleIndex = this.#picker.matchRule(state, tuple);
    if (ruleIndex === NO_RULE) return undefined;
    const pick = this.#picker.pickForRule(state, ruleIndex, tuple, excluded);
    if (pick.kind !== 'picked' || pick.backendId !== backendId) return undefined;
    return { reason: pick.reason, epoch: state.revision, excluded: [...excluded] };
  }

  /** Backends of a rule's table that a newer state has taken out of it. */
  #leftSince(epoch: Epoch, ruleIndex: number, newer: Epoch): ReadonlySet<string> {
    const { rule } = ruleAndView(epoch.state, ruleIndex);
    const newIndex = newer.state.configuration.rules.findIndex(({ name }) => name === rule.name);
    const now = newIndex < 0 ? new Set<string>() : placedIds(newer, newIndex);
    return new Set([...placedIds(epoch, ruleIndex)].filter((id) => !now.has(id)));
  }

  #newest(): Epoch {
    const [newest] = this.#epochs;
    if (newest === undefined) throw new TypeError('There is no forwarding state yet');
    return newest;
  }
}

/** Backends in the table that new flows of a rule are placed with. */
function placedIds({ state, placed }: Epoch, ruleIndex: number): ReadonlySet<string> {
  let ids = placed.get(ruleIndex);
  if (ids === undefined) {
    const { rule, view } = ruleAndView(state, ruleIndex);
    const indexes = new Set(tableInUse(rule, view)?.table);
    ids = new Set(view.backends.filter((_, index) => indexes.has(index)).map(({ backend }) => backend.id));
    placed.set(ruleIndex, ids);
  }
  return ids;
}
