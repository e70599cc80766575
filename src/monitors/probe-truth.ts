import type { Protocol } from '../model/address.js';
import type { HealthState, Probe } from '../model/configuration.js';
import type { HealthEventName } from '../model/events.js';
import type { BackendState, ForwardingState, PoolView } from '../model/forwarding.js';
import type { TrafficCounters } from '../planes/contract.js';
import type { Finding, FindingStatus, Monitor, MonitorSample } from './alerts.js';

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
    const { probe } = view;
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

/** Conservative on purpose: a window and a minimum volume, so that one error says nothing. */
export interface ProbeTruthOptions {
  /** @default 60000 */
  readonly windowMs: number;
  /** Attempts, or answers, in the window below which nothing is said. @default 20 */
  readonly minimumVolume: number;
  /** Share of failed attempts from which traffic fails. @default 0.5 */
  readonly failingShare: number;
  /** Share of failed attempts below which it is fine again. @default 0.25 */
  readonly fineShare: number;
}

export const PROBE_TRUTH_DEFAULTS: ProbeTruthOptions = {
  windowMs: 60_000,
  minimumVolume: 20,
  failingShare: 0.5,
  fineShare: 0.25,
};

/** One backend as one probe sees it, and what its traffic did meanwhile. */
export interface TruthWindow {
  readonly probe: string;
  readonly health: HealthState;
  /** How long the probe has been of this opinion. */
  readonly healthAgeMs: number;
  /** New flows that came to it: those that were opened, and those that could not be. */
  readonly attempts: number;
  readonly unconnected: number;
  /** New flows that it reset without having answered. */
  readonly reset: number;
  /** Flows that it took and never answered, where others answer theirs. */
  readonly unanswered: number;
  /** Flows that it reset in all, new or old, answered or not. */
  readonly resets: number;
  /** Datagrams or reads that came from it, and their bytes. */
  readonly answers: number;
  readonly answerBytes: number;
}

export interface TruthVerdict {
  readonly trafficFailing: FindingStatus;
  readonly trafficFine: FindingStatus;
  readonly evidence: string;
}

/** Holds a probe's verdict against the traffic since it was given, at most one window. Pure. */
export function assess(window: TruthWindow, options: ProbeTruthOptions = PROBE_TRUTH_DEFAULTS): TruthVerdict {
  const { probe, health, healthAgeMs, attempts, unconnected, reset, unanswered, answers } = window;
  const failures = Math.min(attempts, unconnected + reset + unanswered);
  const lastSeconds = `in the last ${Math.round(Math.min(options.windowMs, healthAgeMs) / 1000)} s`;
  switch (health) {
    case 'unknown':
      return { trafficFailing: 'fine', trafficFine: 'fine', evidence: `Probe "${probe}" has no verdict` };
    case 'up':
      return {
        trafficFailing: failing(attempts, failures, options),
        trafficFine: 'fine',
        evidence: `Probe "${probe}" finds it up; ${failures} of ${attempts} new flows failed ${lastSeconds}${causes(window)}`,
      };
    case 'down': {
      const failed = unconnected + unanswered + window.resets;
      const tooLittle = healthAgeMs < options.windowMs || answers < options.minimumVolume;
      return {
        trafficFailing: 'fine',
        trafficFine: failed > 0 || answers === 0 ? 'fine' : tooLittle ? 'unclear' : 'bad',
        evidence: `Probe "${probe}" finds it down; it answered ${answers} times (${window.answerBytes} bytes) and failed ${failed} times ${lastSeconds}`,
      };
    }
  }
}

function failing(attempts: number, failures: number, options: ProbeTruthOptions): FindingStatus {
  if (attempts < options.minimumVolume) return 'unclear';
  const share = failures / attempts;
  if (share >= options.failingShare) return 'bad';
  return share < options.fineShare ? 'fine' : 'unclear';
}

function causes({ unconnected, reset, unanswered }: TruthWindow): string {
  const parts = [
    ...(unconnected > 0 ? [`${unconnected} could not connect`] : []),
    ...(reset > 0 ? [`${reset} were reset without an answer`] : []),
    ...(unanswered > 0 ? [`${unanswered} got no answer where other backends answer`] : []),
  ];
  return parts.length === 0 ? '' : `: ${parts.join(', ')}`;
}

/** What happened to the flows of one (rule, backend, protocol) within some time. */
export interface TrafficFacts {
  readonly flowsOpened: number;
  readonly connectFailures: number;
  /** Flows that the backend ended with RST. */
  readonly backendResets: number;
  /** Datagrams (UDP) or reads (TCP) that came from the backend. */
  readonly packetsToClient: number;
  readonly bytesToClient: number;
}

const NOTHING: TrafficFacts = {
  flowsOpened: 0,
  connectFailures: 0,
  backendResets: 0,
  packetsToClient: 0,
  bytesToClient: 0,
};

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
    const latest = { atMs, totals: new Map(traffic.map((row) => [keyOf(row), factsOf(row)])) };
    this.#latest = latest;
    const lastKeptAtMs = this.#kept.at(-1)?.atMs;
    const isDue = lastKeptAtMs === undefined || atMs - lastKeptAtMs >= this.#windowMs / STEPS;
    if (isDue || options.isMark) this.#kept = [...this.#kept, latest].slice(-MAX_KEPT);
    this.#kept = this.#kept.filter((snapshot) => snapshot.atMs >= atMs - this.#windowMs);
  }

  /**
   * Since the first snapshot that is not before `fromMs` and not older than the window: exact from a mark on, else
   * up to a twelfth of the window less.
   */
  since(
    fromMs: number,
    row: { readonly rule: string; readonly backendId: string; readonly protocol: Protocol },
  ): TrafficFacts {
    const base = this.#kept.find((snapshot) => snapshot.atMs >= fromMs) ?? this.#latest;
    const key = keyOf(row);
    const now = this.#latest?.totals.get(key);
    return now === undefined ? NOTHING : difference(now, base?.totals.get(key) ?? NOTHING);
  }
}

function keyOf({
  rule,
  backendId,
  protocol,
}: Pick<TrafficCounters, 'rule' | 'backendId' | 'protocol'>): string {
  return `${rule}|${backendId}|${protocol}`;
}

function factsOf(row: TrafficCounters): TrafficFacts {
  return {
    flowsOpened: row.flowsOpened,
    connectFailures: row.connectFailures,
    backendResets: row.flowsEnded['backend-reset'] ?? 0,
    packetsToClient: row.packetsToClient,
    bytesToClient: row.bytesToClient,
  };
}

/** Totals that have shrunk are those of a new data plane: nothing can be told from them yet. */
function difference(now: TrafficFacts, before: TrafficFacts): TrafficFacts {
  return {
    flowsOpened: Math.max(0, now.flowsOpened - before.flowsOpened),
    connectFailures: Math.max(0, now.connectFailures - before.connectFailures),
    backendResets: Math.max(0, now.backendResets - before.backendResets),
    packetsToClient: Math.max(0, now.packetsToClient - before.packetsToClient),
    bytesToClient: Math.max(0, now.bytesToClient - before.bytesToClient),
  };
}
