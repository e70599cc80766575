import type { TrafficCounters } from '../../dataplane/data-plane.js';
import type { Protocol } from '../../model/five-tuple.js';

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
