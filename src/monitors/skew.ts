import { estimateSources, mergeSketches } from '../flows/traffic.js';
import type { Distribution, Rule } from '../model/configuration.js';
import type { HealthEventName } from '../model/events.js';
import type { ForwardingState, PoolView } from '../model/forwarding.js';
import type { ArrivalCounters } from '../planes/contract.js';
import type { Finding, FindingStatus, Monitor, MonitorSample } from './alerts.js';
import { TrafficWindow } from './probe-truth.js';

/** Affinity moves slowly: what was seen in the last ten minutes counts. */
const WINDOW_MS = 600_000;

/** Tells of rules whose affinity by source has too few sources to spread (Azure: distribution mode, SourceIP). */
export class SkewAdvisor implements Monitor {
  readonly names: readonly HealthEventName[] = ['SourceAffinitySkew'];
  readonly #window = new TrafficWindow({ windowMs: WINDOW_MS });
  /** By rule: who serves with what weight, and since when. Spreads of different tables cannot be added up. */
  #spreads: ReadonlyMap<string, { readonly members: string; readonly sinceMs: number }> = new Map();

  observe({ atMs, counters }: MonitorSample, state: ForwardingState): readonly Finding[] | undefined {
    if (counters === undefined) return undefined;
    const changed = this.#updateSpreads(state, atMs);
    this.#window.add(atMs, counters.traffic, { isMark: changed });
    return state.configuration.rules.flatMap((rule, index) => {
      const view = viewOf(state, index);
      const sources = distinctSources(counters.arrivals, rule.name);
      if (view === undefined || sources === undefined) return [];
      const verdict = assessSkew(this.#inputs(rule, view, sources, atMs));
      return verdict === undefined ? [] : [{ name: 'SourceAffinitySkew', subject: rule.name, ...verdict }];
    });
  }

  #inputs(rule: Rule, view: PoolView, sources: number, atMs: number): SkewInputs {
    const sinceMs = this.#spreads.get(rule.name)?.sinceMs ?? atMs;
    const serving = view.backends.filter((member) => member.serving);
    return {
      distribution: rule.distribution,
      sources,
      backends: serving.map(({ backend, effectiveWeight }) => ({
        name: backend.name,
        weight: effectiveWeight,
        flowsOpened: rule.protocols.reduce((total, protocol) => {
          const row = { rule: rule.name, backendId: backend.id, protocol };
          return total + this.#window.since(sinceMs, row).flowsOpened;
        }, 0),
      })),
    };
  }

  #updateSpreads(state: ForwardingState, atMs: number): boolean {
    let changed = false;
    const spreads = new Map<string, { readonly members: string; readonly sinceMs: number }>();
    state.configuration.rules.forEach((rule, index) => {
      const serving = viewOf(state, index)?.backends.filter((member) => member.serving) ?? [];
      const members = [
        rule.distribution,
        ...serving.map(({ backend, effectiveWeight }) => `${backend.id}*${effectiveWeight}`),
      ].join(' ');
      const before = this.#spreads.get(rule.name);
      const isSame = before?.members === members;
      spreads.set(rule.name, isSame ? before : { members, sinceMs: atMs });
      changed ||= !isSame;
    });
    this.#spreads = spreads;
    return changed;
  }
}

/** Estimate over all protocols of the rule since the start; undefined where nobody counts. */
function distinctSources(arrivals: readonly ArrivalCounters[], rule: string): number | undefined {
  const sketches = arrivals.flatMap((row) =>
    row.rule === rule && row.sourceSketch !== undefined ? [row.sourceSketch] : [],
  );
  const [first, ...others] = sketches;
  return first === undefined ? undefined : estimateSources(others.reduce(mergeSketches, first));
}

function viewOf(state: ForwardingState, ruleIndex: number): PoolView | undefined {
  const view = state.viewOfRule[ruleIndex];
  return view === undefined ? undefined : state.views[view];
}

/** Fewer sources than so many per backend cannot be relied on to spread. */
const SOURCES_PER_BACKEND = 4;

/** Below this, a spread is chance. */
const MINIMUM_FLOWS = 100;

/** Times its fair share: from here on it is skew, and below that no longer. */
const SKEWED = 2;
const EVEN = 1.5;

/** How one rule's flows were spread. */
export interface SkewInputs {
  readonly distribution: Distribution;
  /** Estimate of distinct client addresses. */
  readonly sources: number;
  /** Those that serve. */
  readonly backends: readonly {
    readonly name: string;
    readonly weight: number;
    readonly flowsOpened: number;
  }[];
}

export interface SkewVerdict {
  readonly status: FindingStatus;
  readonly evidence: string;
}

/**
 * Whether affinity by source gives one backend at least twice its fair share because there are too few sources to
 * spread. Undefined where that cannot be: every flow is hashed by itself, or there is nothing to choose from. Pure.
 */
export function assessSkew({ distribution, sources, backends }: SkewInputs): SkewVerdict | undefined {
  const weights = sum(backends.map(({ weight }) => weight));
  if (distribution === 'five-tuple' || backends.length < 2 || weights === 0) return undefined;
  const flows = sum(backends.map(({ flowsOpened }) => flowsOpened));
  const evidence = describe(Math.round(sources), backends);
  if (flows < MINIMUM_FLOWS) return { status: 'unclear', evidence };
  if (sources >= SOURCES_PER_BACKEND * backends.length) return { status: 'fine', evidence };
  const worst = Math.max(
    ...backends.map(({ weight, flowsOpened }) => {
      // One without weight that serves all the same has no share to exceed.
      return weight === 0 ? 0 : flowsOpened / flows / (weight / weights);
    }),
  );
  if (worst >= SKEWED) return { status: 'bad', evidence };
  return { status: worst < EVEN ? 'fine' : 'unclear', evidence };
}

/**
 * The most even shares that so many equal sources can have over so many backends, each source on one backend: best
 * first, adding up to 1.
 */
export function bestSpread(sources: number, backends: number): readonly number[] {
  const base = Math.floor(sources / backends);
  const extra = sources % backends;
  return Array.from({ length: backends }, (_, index) => (base + (index < extra ? 1 : 0)) / sources);
}

function describe(sources: number, backends: SkewInputs['backends']): string {
  const total = sum(backends.map(({ flowsOpened }) => flowsOpened));
  const sorted = [...backends].sort((a, b) => b.flowsOpened - a.flowsOpened);
  const shares = sorted.map(({ flowsOpened }) => (total === 0 ? 0 : flowsOpened / total));
  const spread = `Affinity by source on ${sources} sources spread ${total} flows over ${backends.length} backends as ${percents(shares)}, most on "${sorted[0]?.name ?? ''}"`;
  if (sources === 0) return spread;
  return `${spread}; with equal sources the best possible spread is ${percents(bestSpread(sources, backends.length))}`;
}

/** `60/40/0 %`, rounded so that it adds up to 100: the largest remainders get what rounding down leaves. */
function percents(shares: readonly number[]): string {
  const exact = shares.map((share) => share * 100);
  const rounded = exact.map(Math.floor);
  const left = Math.round(sum(exact)) - sum(rounded);
  const byRemainder = exact
    .map((value, index) => ({ index, remainder: value - Math.floor(value) }))
    .sort((a, b) => b.remainder - a.remainder || a.index - b.index)
    .slice(0, Math.max(0, left))
    .map(({ index }) => index);
  return `${rounded.map((value, index) => value + (byRemainder.includes(index) ? 1 : 0)).join('/')} %`;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, value) => total + value, 0);
}
