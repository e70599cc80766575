import { readFlowLog, type LoggedLine, type LoggedPlacement } from '../api/flow-log.js';
import { formatFiveTuple, type FiveTuple } from '../model/address.js';
import type { Rule } from '../model/configuration.js';
import { errorMessage } from '../model/errors.js';
import { portSetContains } from '../model/ports.js';
import type { Hash32 } from '../selection/flow-hash.js';
import type { Picker } from '../selection/picker.js';
import { frontendCovers } from '../selection/rule-ports.js';
import { RecordedStates } from './recorded-states.js';

/** Why a decision could not be made again. */
export const NOT_CHECKED_REASONS = [
  /** Its epoch is not in the file: rotated away, or among lines that are missing. */
  'unknown-epoch',
  'unknown-configuration',
  /** The epoch of this number is another run's. */
  'digest-mismatch',
  /** The configuration of its epoch has no such rule: it was renamed meanwhile. */
  'unknown-rule',
  /** Where it is was decided before, and kept on purpose. */
  'pinned',
  /** Each datagram goes its own way, and which one moved the flow is not recorded. */
  'per-packet',
] as const;

export type NotCheckedReason = (typeof NOT_CHECKED_REASONS)[number];

/** A decision that does not come out as it was recorded. */
export interface ReplayDifference {
  readonly line: number;
  readonly flowId: number;
  readonly tuple: string;
  readonly rule: string;
  readonly epoch: number;
  /** Backend ids. */
  readonly recorded: string;
  /** Or why there is none, in words. */
  readonly recomputed: string;
}

export interface DamagedLine {
  readonly line: number;
  readonly evidence: string;
}

/** What became of a flow log when every decision in it was made again. Plain data. */
export interface ReplayReport {
  /** Blank ones left out. */
  readonly lines: number;
  readonly configurations: number;
  readonly epochs: number;
  /** Flows placed and flows moved: what is to be checked. */
  readonly decisions: number;
  readonly checked: number;
  readonly agree: number;
  readonly differ: number;
  /** The first 20. */
  readonly differences: readonly ReplayDifference[];
  readonly notChecked: Readonly<Record<NotCheckedReason, number>>;
  /** Lines that the log says are missing from it. */
  readonly lost: number;
  readonly damaged: number;
  /** The first 20. */
  readonly damagedLines: readonly DamagedLine[];
}

const SHOWN = 20;

/**
 * Makes every decision of a flow log again, from nothing but the log: which backend each flow got, and got moved to.
 * Reads it once, in bounded memory. Damaged lines are counted and told, never thrown; rejects only if `chunks` does.
 */
export async function replay(
  chunks: AsyncIterable<Uint8Array>,
  deps: { readonly hash: Hash32; readonly picker: Picker },
): Promise<ReplayReport> {
  const replayer = new Replayer(deps.hash, deps.picker);
  for await (const lines of readFlowLog(chunks)) {
    for (const { number, line } of lines) replayer.take(number, line);
  }
  return replayer.report();
}

/** The backend of a decision made again, or in words why there is none. */
type Outcome = { readonly recomputed: string } | { readonly notChecked: NotCheckedReason };

class Replayer {
  readonly #picker: Picker;
  readonly #states: RecordedStates;
  readonly #counts = {
    lines: 0,
    configurations: 0,
    epochs: 0,
    decisions: 0,
    agree: 0,
    differ: 0,
    lost: 0,
    damaged: 0,
  };
  readonly #notChecked = Object.fromEntries(NOT_CHECKED_REASONS.map((reason) => [reason, 0])) as Record<
    NotCheckedReason,
    number
  >;
  readonly #differences: ReplayDifference[] = [];
  readonly #damagedLines: DamagedLine[] = [];

  constructor(hash: Hash32, picker: Picker) {
    this.#picker = picker;
    this.#states = new RecordedStates(hash);
  }

  take(number: number, line: LoggedLine): void {
    this.#counts.lines++;
    try {
      this.#take(number, line);
    } catch (error) {
      // A record that contradicts itself: what can be read need not make sense.
      this.#damaged(number, errorMessage(error));
    }
  }

  report(): ReplayReport {
    const checked = this.#counts.agree + this.#counts.differ;
    const [differences, notChecked, damagedLines] = [this.#differences, this.#notChecked, this.#damagedLines];
    return { ...this.#counts, checked, differences, notChecked, damagedLines };
  }

  #take(number: number, line: LoggedLine): void {
    switch (line.type) {
      case 'config':
        this.#counts.configurations++;
        this.#states.addConfiguration(line.configuration);
        return;
      case 'epoch':
        this.#counts.epochs++;
        this.#states.addEpoch(line);
        return;
      case 'start':
      case 'move':
        this.#decision(number, line);
        return;
      case 'lost':
        this.#counts.lost += line.lines;
        return;
      case 'damaged':
        this.#damaged(number, line.evidence);
        return;
      case 'other':
        return;
    }
  }

  #decision(line: number, decision: LoggedPlacement): void {
    const outcome = this.#outcomeOf(decision);
    this.#counts.decisions++;
    if ('notChecked' in outcome) {
      this.#notChecked[outcome.notChecked]++;
      return;
    }
    const { id: flowId, tuple, rule, epoch, backend: recorded } = decision;
    const { recomputed } = outcome;
    if (recomputed === recorded) {
      this.#counts.agree++;
      return;
    }
    this.#counts.differ++;
    if (this.#differences.length >= SHOWN) return;
    const flow = { line, flowId, tuple: formatFiveTuple(tuple), rule, epoch };
    this.#differences.push({ ...flow, recorded, recomputed });
  }

  #outcomeOf(decision: LoggedPlacement): Outcome {
    const { type, tuple, reason } = decision;
    if (reason === 'pinned') return { notChecked: 'pinned' };
    const state = this.#states.state(decision.epoch);
    if (typeof state === 'string') return { notChecked: state };
    const { digest, rules } = state.configuration;
    if (digest !== decision.digest) return { notChecked: 'digest-mismatch' };
    const ruleIndex = rules.findIndex(({ name }) => name === decision.rule);
    const rule = rules[ruleIndex];
    if (rule === undefined) return { notChecked: 'unknown-rule' };
    // The first datagram of such a flow is placed as any other flow is.
    if (rule.udp.perPacket && tuple.protocol === 'udp' && type === 'move') {
      return { notChecked: 'per-packet' };
    }
    // A flow that is placed anew may have outlived its listener.
    if (type === 'start' && reason === 'hash' && !covers(rule, tuple)) {
      return { recomputed: `rule "${rule.name}" does not cover it` };
    }
    const pick = this.#picker.pickForRule(state, ruleIndex, tuple, new Set(decision.excluded));
    return { recomputed: pick.kind === 'picked' ? pick.backendId : `no backend (${pick.cause})` };
  }

  #damaged(line: number, evidence: string): void {
    this.#counts.damaged++;
    if (this.#damagedLines.length < SHOWN) this.#damagedLines.push({ line, evidence });
  }
}

/** Whether a rule's listeners could have got the flow. With PROXY protocol the tuple says what a proxy saw. */
function covers({ frontend, protocols, ports }: Rule, tuple: FiveTuple): boolean {
  if (frontend.proxyProtocol !== undefined) return true;
  return (
    protocols.includes(tuple.protocol) &&
    frontendCovers(frontend.address, tuple.destination) &&
    portSetContains(ports, tuple.destinationPort)
  );
}
