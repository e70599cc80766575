import type { Protocol } from '../../model/five-tuple.js';
import type { BackendState, ForwardingState, PoolView } from '../../model/forwarding-state.js';
import type { HealthEventName } from '../../model/health-event.js';
import type { HealthState, Probe } from '../../model/probe.js';
import type { Finding } from './alarm-book.js';
import type { Monitor, MonitorSample } from './monitor.js';
import { TrafficWindow, type TrafficFacts } from './traffic-window.js';
import {
  assess,
  PROBE_TRUTH_DEFAULTS,
  type ProbeTruthOptions,
  type TruthVerdict,
  type TruthWindow,
} from './truth-verdict.js';

interface Opinion {
  readonly health: HealthState;
  readonly sinceMs: number;
}

/**
 * Tells where a probe and the traffic contradict each other, per backend. It never takes a backend out. Backends that
 * are switched down are left alone, and rules without a probe: there is no verdict to doubt.
 */
export class ProbeTruthMonitor implements Monitor {
  readonly names: readonly HealthEventName[] = ['ProbeUpTrafficFailing', 'ProbeDownTrafficFine'];
  readonly #options: ProbeTruthOptions;
  readonly #window: TrafficWindow;
  /** By view key and backend id. */
  #opinions: ReadonlyMap<string, Opinion> = new Map();

  constructor(options: Partial<ProbeTruthOptions> = {}) {
    this.#options = { ...PROBE_TRUTH_DEFAULTS, ...options };
    this.#window = new TrafficWindow(this.#options);
  }

  observe({ atMs, counters }: MonitorSample, state: ForwardingState): readonly Finding[] | undefined {
    if (counters === undefined) return undefined;
    const changed = this.#updateOpinions(state, atMs);
    this.#window.add(atMs, counters.traffic, { isMark: changed });
    return state.views.flatMap((view, index) => this.#findings(view, index, state, atMs));
  }

  /** Whether any probe has another opinion than before. */
  #updateOpinions(state: ForwardingState, atMs: number): boolean {
    let changed = false;
    const opinions = new Map<string, Opinion>();
    for (const view of state.views) {
      for (const member of view.backends) {
        const key = opinionKey(view, member);
        const before = this.#opinions.get(key);
        const isSame = before?.health === member.health;
        opinions.set(key, isSame ? before : { health: member.health, sinceMs: atMs });
        changed ||= !isSame;
      }
    }
    this.#opinions = opinions;
    return changed;
  }

  #findings(view: PoolView, index: number, state: ForwardingState, atMs: number): readonly Finding[] {
    const probe = state.configuration.probes.find(({ name }) => name === view.probe);
    if (probe === undefined) return [];
    const rules = state.configuration.rules.filter((_, rule) => state.viewOfRule[rule] === index);
    // The facts of all members, so that one can be compared with the others.
    const groups = rules.flatMap(({ name, protocols }) =>
      protocols.map((protocol): Group => {
        const facts = view.backends.map((member): [BackendState, TrafficFacts] => {
          const row = { rule: name, backendId: member.backend.id, protocol };
          return [member, this.#window.since(this.#sinceMs(view, member, atMs), row)];
        });
        return { protocol, facts: new Map(facts) };
      }),
    );
    return view.backends
      .filter(({ adminState }) => adminState !== 'down')
      .flatMap((member) => {
        const { minimumVolume } = this.#options;
        const healthAgeMs = atMs - this.#sinceMs(view, member, atMs);
        const window = sumUp(
          { probe: probe.name, health: member.health, healthAgeMs },
          groups.map((group) => tally(member, group, minimumVolume)),
        );
        return toFindings(member.backend.id, probe, assess(window, this.#options));
      });
  }

  /** Since when the probe has been of its opinion. */
  #sinceMs(view: PoolView, member: BackendState, atMs: number): number {
    return this.#opinions.get(opinionKey(view, member))?.sinceMs ?? atMs;
  }
}

type Tally = Omit<TruthWindow, 'probe' | 'health' | 'healthAgeMs'>;

/** What one rule's flows of one protocol met, by backend. */
interface Group {
  readonly protocol: Protocol;
  readonly facts: ReadonlyMap<BackendState, TrafficFacts>;
}

/** One rule's and protocol's share of a backend's window. */
function tally(member: BackendState, { protocol, facts }: Group, minimumVolume: number): Tally {
  const own = facts.get(member);
  if (own === undefined) return NO_TALLY;
  const { flowsOpened, connectFailures, backendResets, packetsToClient, bytesToClient } = own;
  // A TCP flow is opened once it is connected; a UDP flow before "unreachable" can come back for it.
  const refusedOpen = protocol === 'udp' ? Math.min(flowsOpened, connectFailures) : 0;
  const attempts = flowsOpened + connectFailures - refusedOpen;
  // At least so many of them can have had no answer. Resets after an answer are some services' way to close.
  const reset = Math.min(flowsOpened, Math.max(0, backendResets - packetsToClient));
  const isSilent =
    flowsOpened >= minimumVolume &&
    packetsToClient === 0 &&
    [...facts.values()].some(
      (their) => their.flowsOpened >= minimumVolume && their.packetsToClient >= their.flowsOpened,
    );
  return {
    attempts,
    unconnected: connectFailures,
    reset,
    unanswered: isSilent ? Math.max(0, flowsOpened - reset - refusedOpen) : 0,
    resets: backendResets,
    answers: packetsToClient,
    answerBytes: bytesToClient,
  };
}

const NO_TALLY: Tally = {
  attempts: 0,
  unconnected: 0,
  reset: 0,
  unanswered: 0,
  resets: 0,
  answers: 0,
  answerBytes: 0,
};

function sumUp(
  opinion: Pick<TruthWindow, 'probe' | 'health' | 'healthAgeMs'>,
  tallies: readonly Tally[],
): TruthWindow {
  const sum = tallies.reduce(
    (a, b) => ({
      attempts: a.attempts + b.attempts,
      unconnected: a.unconnected + b.unconnected,
      reset: a.reset + b.reset,
      unanswered: a.unanswered + b.unanswered,
      resets: a.resets + b.resets,
      answers: a.answers + b.answers,
      answerBytes: a.answerBytes + b.answerBytes,
    }),
    NO_TALLY,
  );
  return { ...opinion, ...sum };
}

/** A probe needs its time to notice: only what goes on for longer contradicts it. */
function toFindings(subject: string, probe: Probe, verdict: TruthVerdict): readonly Finding[] {
  const { trafficFailing, trafficFine, evidence } = verdict;
  const holdMs = probe.intervalMs * probe.downThreshold + probe.timeoutMs;
  return [
    { name: 'ProbeUpTrafficFailing', subject, status: trafficFailing, evidence, holdMs },
    { name: 'ProbeDownTrafficFine', subject, status: trafficFine, evidence },
  ];
}

function opinionKey(view: PoolView, { backend }: BackendState): string {
  return `${view.key} ${backend.id}`;
}
