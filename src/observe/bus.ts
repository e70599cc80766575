import type { FeedEvent } from '../api/views.js';
import {
  EVENTS,
  describeEvent,
  type BalancerEvent,
  type AppliedReport,
  type DropReason,
  type EventLine,
  type EventOf,
  type EventType,
  type IngressMode,
  type ListenFailureGroup,
} from '../model/events.js';
import { formatPortSet, portSetOf } from '../model/ports.js';
import type { Clock } from '../runtime/clock.js';

/** Takes the events of the whole process to those who want them, each at once and in order of subscription. */
export class EventBus {
  readonly #listeners = new Map<EventType, ((event: BalancerEvent) => void)[]>();

  /** Can be passed on as a function. */
  readonly emit = (event: BalancerEvent): void => {
    for (const listener of this.#listeners.get(event.type) ?? []) listener(event);
  };

  /** Calls the listener with each event of these types. It must not throw: the emitter would suffer. */
  on<T extends EventType>(types: readonly T[], listener: (event: EventOf<T>) => void): void {
    for (const type of types) {
      // It gets no other types than these.
      const taken = listener as (event: never) => void as (event: BalancerEvent) => void;
      this.#listeners.set(type, [...(this.#listeners.get(type) ?? []), taken]);
    }
  }

  /** Calls each sink with the line of every event that has one. */
  onLine(ingress: IngressMode, sinks: readonly ((line: EventLine) => void)[]): void {
    const types = (Object.keys(EVENTS) as EventType[]).filter((type) => EVENTS[type] !== undefined);
    this.on(types, (event) => {
      const line = describeEvent(event, ingress);
      if (line !== undefined) for (const sink of sinks) sink(line);
    });
  }
}

/** Of overload, what this machine or its limits cause, rather than one client or backend. */
const OWN_OVERLOADS: ReadonlySet<DropReason> = new Set<DropReason>([
  'table-full',
  'embryonic-full',
  'descriptors-exhausted',
  'ports-exhausted',
]);

/** Which budgets of this process are exceeded now. */
export class Overloads {
  readonly #active = new Set<DropReason>();

  constructor(bus: EventBus) {
    bus.on(['overload'], ({ phase, reason }) => {
      if (phase === 'ended') this.#active.delete(reason);
      else if (OWN_OVERLOADS.has(reason)) this.#active.add(reason);
    });
  }

  get active(): readonly DropReason[] {
    return [...this.#active];
  }
}

/** How often passive failures are summed up. */
const SUMMARY_INTERVAL_MS = 10_000;

/**
 * Emits the events that follow from several others: listen failures that are new, and sums of
 * passive failures. Subscribe the log before it, so that the cause comes before what follows from it.
 */
export class EventSummaries {
  readonly #bus: EventBus;
  readonly #clock: Clock;
  /** Of the last revision. Every revision has them; they are news once. */
  #listenFailures = '[]';
  /** Failures since the last sum. A backend stays while its last interval had failures: there are no more than backends. */
  readonly #tallies = new Map<string, { count: number; evidence: string }>();
  #cancelTimer: (() => void) | undefined;

  constructor(bus: EventBus, clock: Clock) {
    this.#bus = bus;
    this.#clock = clock;
    bus.on(['applied'], ({ report }) => this.#applied(report));
    bus.on(['passive-failure'], (event) => this.#passiveFailure(event));
  }

  /** Emits what is still summed up. */
  stop(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#sumUp();
    this.#tallies.clear();
  }

  #applied(report: AppliedReport): void {
    const failures = groupListenFailures(report.failures);
    const text = JSON.stringify(failures);
    if (text !== this.#listenFailures && failures.length > 0) {
      this.#bus.emit({ type: 'listen-failed', report, failures });
    }
    this.#listenFailures = text;
  }

  #passiveFailure({ backendId, evidence }: EventOf<'passive-failure'>): void {
    const tally = this.#tallies.get(backendId);
    if (tally === undefined) {
      this.#tallies.set(backendId, { count: 0, evidence });
      this.#bus.emit({ type: 'passive-failures', backendId, evidence, count: 1 });
    } else {
      tally.count++;
      tally.evidence = evidence;
    }
    this.#cancelTimer ??= this.#startInterval();
  }

  #startInterval(): () => void {
    const over = (): void => {
      this.#sumUp();
      this.#cancelTimer = this.#tallies.size > 0 ? this.#startInterval() : undefined;
    };
    return this.#clock.setTimer(SUMMARY_INTERVAL_MS, over, { unref: true });
  }

  #sumUp(): void {
    for (const [backendId, tally] of this.#tallies) {
      const { count, evidence } = tally;
      if (count === 0) {
        this.#tallies.delete(backendId);
        continue;
      }
      tally.count = 0;
      const intervalMs = SUMMARY_INTERVAL_MS;
      this.#bus.emit({ type: 'passive-failures', backendId, evidence, count, intervalMs });
    }
  }
}

/** Thousands of scattered ports would make a line useless. */
const MAX_RANGES = 20;

/** Puts the failures of one apply together, so that 1,023 privileged ports are one entry and not 1,023. */
function groupListenFailures(failures: AppliedReport['failures']): readonly ListenFailureGroup[] {
  const groups = new Map<string, Omit<ListenFailureGroup, 'count' | 'ports'> & { readonly all: number[] }>();
  for (const { port, rule, protocol, address, errorCode } of failures) {
    const key = [rule, protocol, address, errorCode].join(' ');
    const group = groups.get(key) ?? { rule, protocol, address, errorCode, all: [] };
    group.all.push(port);
    groups.set(key, group);
  }
  return [...groups.values()].map(({ all, ...group }) => {
    const ranges = portSetOf(...all);
    const cut = ranges.length > MAX_RANGES ? ` and ${ranges.length - MAX_RANGES} more ranges` : '';
    return { ...group, count: all.length, ports: formatPortSet(ranges.slice(0, MAX_RANGES)) + cut };
  });
}

/** Events remembered. */
const CAPACITY = 1000;

/**
 * The lines of events, each with an id, and a short memory of them. It keeps everything from info upwards, whatever level
 * the log itself is written at.
 */
export class EventFeed {
  readonly #clock: Clock;
  readonly #listeners = new Set<(event: FeedEvent) => void>();
  /** Oldest first. Cut back now and then, to at most twice the capacity. */
  #events: FeedEvent[] = [];
  #nextId = 1;

  constructor(deps: { readonly clock: Clock }) {
    this.#clock = deps.clock;
  }

  /** Takes a line. Can be passed on as a function. */
  readonly add = ({ level, type, message, fields }: EventLine): void => {
    if (level === 'debug') return;
    const atMs = this.#clock.wallMs();
    const event = { id: this.#nextId++, atMs, level, type, message, fields };
    this.#events.push(event);
    if (this.#events.length >= 2 * CAPACITY) this.#events = this.#events.slice(-CAPACITY);
    for (const listener of [...this.#listeners]) {
      try {
        listener(event);
      } catch {
        // The other listeners and the emitter must not suffer from it.
      }
    }
  };

  /** Remembered events with an id above this one, oldest first. */
  since(id: number): readonly FeedEvent[] {
    return this.#events.slice(-CAPACITY).filter((event) => event.id > id);
  }

  /** Calls the listener with each event until the returned function is called. Errors that it throws are ignored. */
  subscribe(listener: (event: FeedEvent) => void): () => void {
    // Two subscribers may bring the same function.
    const own = (event: FeedEvent): void => listener(event);
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  }
}
