import type { Protocol } from '../model/address.js';
import type { HealthState, Probe } from '../model/configuration.js';
import type { HealthEventName } from '../model/events.js';
import type { BackendState, ForwardingState, PoolView } from '../model/forwarding.js';
import type { TrafficCounters } from '../planes/contract.js';
import type { Monitor, MonitorReading, MonitorSample, ReadingStatus } from './alerts.js';

/*
 * Conservative on purpose: a window and a minimum volume, so that one error says nothing.
 */
const WINDOW_MS = 60_000;

/** Attempts, or answers, in the window below which nothing is said. */
const MINIMUM_VOLUME = 20;

/** Share of failed attempts from which traffic fails, and below which it is fine again. */
const FAILING_SHARE = 0.5;
const FINE_SHARE = 0.25;

/**
 * Reports where a probe and the traffic contradict each other, per backend. It never takes a backend out. It skips
 * backends that are switched down, and rules without a probe: there is no verdict to doubt.
 */
export class ProbeTruthMonitor implements Monitor {
  readonly names: readonly HealthEventName[] = ['ProbeUpTrafficFailing', 'ProbeDownTrafficFine'];
  readonly #window = new TrafficWindow({ windowMs: WINDOW_MS });
  /** By view key and backend id: what the probe finds, and since when. */
  #opinions: ReadonlyMap<string, { readonly health: HealthState; readonly sinceMs: number }> = new Map();

  observe({ atMs, counters }: MonitorSample, state: ForwardingState): readonly MonitorReading[] | undefined {
    if (counters === undefined) return undefined;
    const changed = this.#updateOpinions(state, atMs);
    this.#window.add(atMs, counters.traffic, { isMark: changed });
    return state.views.flatMap((view, index) => this.#readings(view, index, state, atMs));
  }

  /** Whether any probe finds something else than before. */
  #updateOpinions(state: ForwardingState, atMs: number): boolean {
    const before = this.#opinions;
    this.#opinions = new Map(
      state.views.flatMap((view) =>
        view.backends.map((member) => {
          const known = before.get(opinionKey(view, member));
          const { health } = member;
          return [opinionKey(view, member), known?.health === health ? known : { health, sinceMs: atMs }];
        }),
      ),
    );
    return [...this.#opinions].some(([key, opinion]) => before.get(key) !== opinion);
  }

  #readings(view: PoolView, index: number, state: ForwardingState, atMs: number): readonly MonitorReading[] {
    const { probe } = view;
    if (probe === undefined) return [];
    const sinceMs = (member: BackendState): number =>
      this.#opinions.get(opinionKey(view, member))?.sinceMs ?? atMs;
    const rules = state.configuration.rules.filter((_, rule) => state.viewOfRule[rule] === index);
    // The facts of all members, so that one can be compared with the others.
    const groups = rules.flatMap(({ name: rule, protocols }) =>
      protocols.map((protocol): Group => {
        const facts = view.backends.map((member): [BackendState, TrafficFacts] => {
          const row = { rule, backendId: member.backend.id, protocol };
          return [member, this.#window.since(sinceMs(member), row)];
        });
        return { protocol, facts: new Map(facts) };
      }),
    );
    return view.backends
      .filter(({ adminState }) => adminState !== 'down')
      .flatMap((member) => {
        const opinion = { probe: probe.name, health: member.health, healthAgeMs: atMs - sinceMs(member) };
        const tallies = groups.map((group) => tally(member, group));
        return toReadings(member.backend.id, probe, assess({ ...opinion, ...sum(TALLIED, tallies) }));
      });
  }
}

function opinionKey(view: PoolView, { backend }: BackendState): string {
  return `${view.key} ${backend.id}`;
}

/** What one rule's flows of one protocol met, by backend. */
interface Group {
  readonly protocol: Protocol;
  readonly facts: ReadonlyMap<BackendState, TrafficFacts>;
}

const TALLIED = [
  /** New flows that came to a backend: those that were opened, and those that could not be. */
  'attempts',
  'unconnected',
  /** New flows that it reset without having answered. */
  'reset',
  /** Flows that it took and never answered, where others answer theirs. */
  'unanswered',
  /** Flows that it reset in all, new or old, answered or not. */
  'resets',
  /** Datagrams or reads that came from it, and their bytes. */
  'answers',
  'answerBytes',
] as const;

type Tally = Readonly<Record<(typeof TALLIED)[number], number>>;

/** One rule's and protocol's share of a backend's window. */
function tally(member: BackendState, { protocol, facts }: Group): Tally {
  const own = facts.get(member) ?? NOTHING;
  const { flowsOpened, connectFailures, backendResets, packetsToClient, bytesToClient } = own;
  // A TCP flow is opened once it is connected; a UDP flow before "unreachable" can come back for it.
  const refusedOpen = protocol === 'udp' ? Math.min(flowsOpened, connectFailures) : 0;
  // At least so many of them can have had no answer. Resets after an answer are some services' way to close.
  const reset = Math.min(flowsOpened, Math.max(0, backendResets - packetsToClient));
  const isSilent =
    flowsOpened >= MINIMUM_VOLUME &&
    packetsToClient === 0 &&
    [...facts.values()].some(
      (their) => their.flowsOpened >= MINIMUM_VOLUME && their.packetsToClient >= their.flowsOpened,
    );
  return {
    attempts: flowsOpened + connectFailures - refusedOpen,
    unconnected: connectFailures,
    reset,
    unanswered: isSilent ? Math.max(0, flowsOpened - reset - refusedOpen) : 0,
    resets: backendResets,
    answers: packetsToClient,
    answerBytes: bytesToClient,
  };
}

/** A probe needs its time to notice: only what lasts longer contradicts it. */
function toReadings(subject: string, probe: Probe, verdict: TruthVerdict): readonly MonitorReading[] {
  const { trafficFailing, trafficFine, evidence } = verdict;
  const holdMs = probe.intervalMs * probe.downThreshold + probe.timeoutMs;
  return [
    { name: 'ProbeUpTrafficFailing', subject, status: trafficFailing, evidence, holdMs },
    { name: 'ProbeDownTrafficFine', subject, status: trafficFine, evidence },
  ];
}

/** One backend as one probe sees it, and what its traffic did meanwhile. */
export interface TruthWindow extends Tally {
  readonly probe: string;
  readonly health: HealthState;
  /** How long the probe has been of this opinion. */
  readonly healthAgeMs: number;
}

export interface TruthVerdict {
  readonly trafficFailing: ReadingStatus;
  readonly trafficFine: ReadingStatus;
  readonly evidence: string;
}

/** Holds a probe's verdict against the traffic since it was given, at most one window. Pure. */
export function assess(window: TruthWindow): TruthVerdict {
  const { probe, health, healthAgeMs, attempts, unconnected, reset, unanswered, answers } = window;
  const lastSeconds = `in the last ${Math.round(Math.min(WINDOW_MS, healthAgeMs) / 1000)} s`;
  switch (health) {
    case 'unknown':
      return { trafficFailing: 'fine', trafficFine: 'fine', evidence: `Probe "${probe}" has no verdict` };
    case 'up': {
      const failures = Math.min(attempts, unconnected + reset + unanswered);
      const share = failures / attempts;
      const isClear = attempts >= MINIMUM_VOLUME && (share >= FAILING_SHARE || share < FINE_SHARE);
      return {
        trafficFailing: isClear ? (share >= FAILING_SHARE ? 'bad' : 'fine') : 'unclear',
        trafficFine: 'fine',
        evidence: `Probe "${probe}" finds it up; ${failures} of ${attempts} new flows failed ${lastSeconds}${causes(window)}`,
      };
    }
    case 'down': {
      const failed = unconnected + unanswered + window.resets;
      const tooLittle = healthAgeMs < WINDOW_MS || answers < MINIMUM_VOLUME;
      return {
        trafficFailing: 'fine',
        trafficFine: failed > 0 || answers === 0 ? 'fine' : tooLittle ? 'unclear' : 'bad',
        evidence: `Probe "${probe}" finds it down; it answered ${answers} times (${window.answerBytes} bytes) and failed ${failed} times ${lastSeconds}`,
      };
    }
  }
}

function causes({ unconnected, reset, unanswered }: Tally): string {
  const parts = [
    ...(unconnected > 0 ? [`${unconnected} could not connect`] : []),
    ...(reset > 0 ? [`${reset} were reset without an answer`] : []),
    ...(unanswered > 0 ? [`${unanswered} got no answer where other backends answer`] : []),
  ];
  return parts.length === 0 ? '' : `: ${parts.join(', ')}`;
}

/**
 * What happened to the flows of one (rule, backend, protocol) within some time. `backendResets`: flows that the backend
 * ended with RST; `packetsToClient`: datagrams (UDP) or reads (TCP) that came from the backend.
 */
const FACTS = [
  'flowsOpened',
  'connectFailures',
  'backendResets',
  'packetsToClient',
  'bytesToClient',
] as const;

export type TrafficFacts = Readonly<Record<(typeof FACTS)[number], number>>;

const NOTHING = sum(FACTS, []);

function sum<K extends string>(
  keys: readonly K[],
  rows: readonly Readonly<Record<K, number>>[],
): Record<K, number> {
  const totals = keys.map((key) => [key, rows.reduce((total, row) => total + row[key], 0)]);
  return Object.fromEntries(totals) as Record<K, number>;
}

interface Snapshot {
  readonly atMs: number;
  readonly totals: ReadonlyMap<string, TrafficFacts>;
}

/** Snapshots kept per window: memory is rows x these, whatever the sampling rate. */
const STEPS = 12;

/** Marks come on top; when there are very many, the window gets shorter instead of bigger. */
const MAX_KEPT = 5 * STEPS;

/** Totals of the data plane, kept for a while so that the last minute can be told from the last year. */
export class TrafficWindow {
  readonly #windowMs: number;
  /** Oldest first, a twelfth of the window apart or more. */
  #kept: readonly Snapshot[] = [];
  #latest: Snapshot | undefined;

  constructor(options: { readonly windowMs: number }) {
    this.#windowMs = options.windowMs;
  }

  /** `isMark`: a later `since` will ask for exactly this moment. `atMs` is monotonic and grows. */
  add(atMs: number, traffic: readonly TrafficCounters[], options: { readonly isMark: boolean }): void {
    const facts = ({ flowsEnded, ...row }: TrafficCounters): TrafficFacts => {
      const { flowsOpened, connectFailures, packetsToClient, bytesToClient } = row;
      const backendResets = flowsEnded['backend-reset'] ?? 0;
      return { flowsOpened, connectFailures, backendResets, packetsToClient, bytesToClient };
    };
    this.#latest = { atMs, totals: new Map(traffic.map((row) => [keyOf(row), facts(row)])) };
    const lastKeptAtMs = this.#kept.at(-1)?.atMs;
    const isDue = lastKeptAtMs === undefined || atMs - lastKeptAtMs >= this.#windowMs / STEPS;
    if (isDue || options.isMark) this.#kept = [...this.#kept, this.#latest].slice(-MAX_KEPT);
    this.#kept = this.#kept.filter((snapshot) => snapshot.atMs >= atMs - this.#windowMs);
  }

  /**
   * Since the first snapshot that is not before `fromMs` and not older than the window: exact from a mark on, else
   * up to a twelfth of the window less. Totals that have shrunk are those of a new data plane: nothing can be told from
   * them yet.
   */
  since(fromMs: number, row: Pick<TrafficCounters, 'rule' | 'backendId' | 'protocol'>): TrafficFacts {
    const base = this.#kept.find((snapshot) => snapshot.atMs >= fromMs) ?? this.#latest;
    const now = this.#latest?.totals.get(keyOf(row));
    const before = base?.totals.get(keyOf(row)) ?? NOTHING;
    if (now === undefined) return NOTHING;
    return Object.fromEntries(FACTS.map((key) => [key, Math.max(0, now[key] - before[key])])) as TrafficFacts;
  }
}

function keyOf({
  rule,
  backendId,
  protocol,
}: Pick<TrafficCounters, 'rule' | 'backendId' | 'protocol'>): string {
  return `${rule}|${backendId}|${protocol}`;
}
