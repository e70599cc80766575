import { flowView, type DrainStatus } from '../api/views.js';
import type { Protocol } from '../model/address.js';
import type { Backend } from '../model/configuration.js';
import type { ControlEvent } from '../model/events.js';
import type { FlowRecord } from '../model/flow.js';
import type { DrainPhase, DrainRequest } from '../model/forwarding.js';
import type { DataPlane, TrafficCounters } from '../planes/contract.js';
import type { Clock } from '../runtime/clock.js';
import type { Overrides } from './overrides.js';

/** How often a drain looks whether flows are left. */
const WATCH_MS = 250;

const LONGEST = 5;

/** Flows looked at for the longest ones; a page of the flow table. */
const PAGE = 1000;

export interface DrainDeps {
  readonly clock: Clock;
  readonly plane: Pick<DataPlane, 'flows' | 'counters'>;
  readonly overrides: Overrides;
  /** Has the data plane take over what is overridden. */
  readonly refresh: () => Promise<void>;
  readonly onEvent: (event: ControlEvent) => void;
}

/** A drain, for another process. Plain data. */
export interface DrainRecord extends DrainRequest {
  readonly pool: string;
  readonly backendId: string;
  /** Milliseconds since the epoch. */
  readonly startedAtMs: number;
  readonly flowsAtStart: number;
  readonly phase: DrainPhase;
}

/** What is known of one backend's flows at a moment. */
interface Census {
  readonly flows: Record<Protocol, number>;
  readonly lastNewFlowAtMs?: number | undefined;
}

interface Drain {
  readonly backend: Backend;
  readonly startedAtMonotonicMs: number;
  readonly forecast: FinishForecast;
  record: DrainRecord;
  census: Census;
  cancel: () => void;
}

/**
 * Drains under way, by backend identity: from "no new flows" over the deadline to the end of the last flow. A drain
 * that is done keeps the backend out until it is cancelled or the backend leaves the configuration.
 */
export class Drains {
  readonly #deps: DrainDeps;
  readonly #drains = new Map<string, Drain>();

  constructor(deps: DrainDeps) {
    this.#deps = deps;
  }

  get size(): number {
    return this.#drains.size;
  }

  /** Starts a drain, or starts it anew. Resolves when the data plane gives the backend no new flows any more. */
  async start(pool: string, backend: Backend, request: DrainRequest): Promise<DrainStatus> {
    const { clock, overrides, refresh, onEvent } = this.#deps;
    this.#drains.get(backend.id)?.cancel();
    overrides.set(backend.id, { drain: { ending: false } });
    await refresh();
    const census = await this.#census(backend.id);
    const flowsAtStart = census.flows.tcp + census.flows.udp;
    const begun = { startedAtMs: clock.wallMs(), flowsAtStart, phase: 'draining' } as const;
    const drain = this.#add({ ...request, pool, backendId: backend.id, ...begun }, backend, census);
    onEvent({ type: 'drain-changed', phase: 'started', drain: this.#status(drain, []) });
    this.#watch(drain);
    return this.#status(drain, await this.#longest(backend.id));
  }

  /** Continues a drain of another process, whose overrides have been restored. */
  resume(record: DrainRecord, backend: Backend): void {
    const drain = this.#add(record, backend, { flows: { tcp: 0, udp: 0 } });
    if (record.phase !== 'done') this.#watch(drain);
  }

  #add(record: DrainRecord, backend: Backend, census: Census): Drain {
    const { clock } = this.#deps;
    const drain: Drain = {
      ...{ record, backend, census },
      startedAtMonotonicMs: clock.monotonicMs() - Math.max(0, clock.wallMs() - record.startedAtMs),
      forecast: new FinishForecast(record.flowsAtStart, clock.monotonicMs()),
      cancel: () => undefined,
    };
    this.#drains.set(backend.id, drain);
    return drain;
  }

  /** The backend gets new flows again; flows that are left stay. False: it was not being drained. */
  async cancel(backendId: string): Promise<boolean> {
    const drain = this.#drains.get(backendId);
    if (drain === undefined) return false;
    this.#drop(drain);
    await this.#deps.refresh();
    this.#deps.onEvent({ type: 'drain-changed', phase: 'cancelled', drain: this.#status(drain, []) });
    return true;
  }

  /** Forgets drains of backends that have left the configuration. */
  retain(ids: ReadonlySet<string>): void {
    for (const [id, drain] of this.#drains) if (!ids.has(id)) this.#drop(drain);
  }

  /** With the flows of now. Throws RangeError for a backend that is not being drained. */
  async status(backendId: string): Promise<DrainStatus> {
    const drain = this.#drains.get(backendId);
    if (drain === undefined) throw new RangeError(`Backend "${backendId}" is not being drained`);
    drain.census = await this.#census(backendId);
    return this.#status(drain, await this.#longest(backendId));
  }

  records(): readonly DrainRecord[] {
    return Array.from(this.#drains.values(), ({ record }) => record);
  }

  async statuses(): Promise<readonly DrainStatus[]> {
    if (this.#drains.size === 0) return [];
    // Read once for all: counters are brought up to date over every live flow.
    const { traffic } = await this.#deps.plane.counters();
    return Promise.all(
      [...this.#drains.values()].map(async (drain) => {
        drain.census = censusOf(traffic, drain.backend.id);
        return this.#status(drain, await this.#longest(drain.backend.id));
      }),
    );
  }

  stop(): void {
    for (const drain of this.#drains.values()) drain.cancel();
  }

  #drop(drain: Drain): void {
    drain.cancel();
    this.#drains.delete(drain.backend.id);
    this.#deps.overrides.set(drain.backend.id, { drain: undefined });
  }

  #watch(drain: Drain): void {
    const { deadlineMs, phase } = drain.record;
    const left = deadlineMs - (this.#deps.clock.monotonicMs() - drain.startedAtMonotonicMs);
    const delayMs = phase === 'draining' ? Math.max(0, Math.min(WATCH_MS, left)) : WATCH_MS;
    drain.cancel = this.#deps.clock.setTimer(delayMs, () => void this.#look(drain));
  }

  async #look(drain: Drain): Promise<void> {
    const { clock, onEvent } = this.#deps;
    // A worker that is being replaced has no answer now; the next look has.
    drain.census = await this.#census(drain.backend.id).catch(() => drain.census);
    if (this.#drains.get(drain.backend.id) !== drain) return;
    const { tcp, udp } = drain.census.flows;
    drain.forecast.observe(tcp + udp, clock.monotonicMs());
    const { deadlineMs, then, phase } = drain.record;
    const isDue = clock.monotonicMs() - drain.startedAtMonotonicMs >= deadlineMs;
    if (tcp + udp === 0) {
      drain.record = { ...drain.record, phase: 'done' };
      onEvent({ type: 'drain-changed', phase: 'finished', drain: this.#status(drain, []) });
      return;
    }
    if (phase === 'draining' && isDue) {
      await this.#deadline(drain);
      if (then === 'leave') return;
    }
    this.#watch(drain);
  }

  async #deadline(drain: Drain): Promise<void> {
    const { overrides, refresh, onEvent } = this.#deps;
    const { then, spreadMs } = drain.record;
    drain.record = { ...drain.record, phase: then === 'leave' ? 'done' : 'ending' };
    onEvent({ type: 'drain-changed', phase: 'deadline', drain: this.#status(drain, []) });
    if (then === 'leave') return;
    overrides.set(drain.backend.id, { drain: { ending: true, spreadMs } });
    // The control loop reports a refusal, and tries again.
    await refresh().catch(() => undefined);
  }

  async #census(backendId: string): Promise<Census> {
    return censusOf((await this.#deps.plane.counters()).traffic, backendId);
  }

  async #longest(backendId: string): Promise<readonly FlowRecord[]> {
    const { flows } = await this.#deps.plane.flows({ backendId, limit: PAGE });
    return [...flows].sort((a, b) => a.openedAtMs - b.openedAtMs).slice(0, LONGEST);
  }

  #status(drain: Drain, longest: readonly FlowRecord[]): DrainStatus {
    const { record, backend, census, forecast } = drain;
    const isOpen = record.phase === 'draining';
    const inMs = isOpen ? forecast.finishInMs(this.#deps.clock.monotonicMs()) : undefined;
    return {
      ...record,
      backendName: backend.name,
      deadlineAtMs: record.startedAtMs + record.deadlineMs,
      ...census,
      predictedFinishAtMs: inMs === undefined ? undefined : this.#deps.clock.wallMs() + inMs,
      longest: longest.map(flowView),
    };
  }
}

function censusOf(traffic: readonly TrafficCounters[], backendId: string): Census {
  const flows = { tcp: 0, udp: 0 };
  let lastNewFlowAtMs: number | undefined;
  for (const row of traffic) {
    if (row.backendId !== backendId) continue;
    flows[row.protocol] += row.flowsActive;
    const { lastFlowAtMs = lastNewFlowAtMs } = row;
    if (lastFlowAtMs !== undefined) lastNewFlowAtMs = Math.max(lastNewFlowAtMs ?? 0, lastFlowAtMs);
  }
  return { flows, lastNewFlowAtMs };
}

/** Readings kept; the oldest is what the rate is measured from. */
const READINGS = 240;

interface Reading {
  readonly atMs: number;
  readonly flows: number;
}

/**
 * Predicts when a population that gets no newcomers will be gone, from how it has shrunk. Flows that finish at random,
 * each alike (an exponential lifetime), leave N(t) = N0 * e^(-rt): the rate comes from the readings, and the last one
 * is expected to go when N has fallen to a half.
 */
export class FinishForecast {
  #readings: Reading[];

  constructor(flows: number, atMs: number) {
    this.#readings = [{ atMs, flows }];
  }

  observe(flows: number, atMs: number): void {
    this.#readings = [...this.#readings, { atMs, flows }].slice(-READINGS);
  }

  /** 0 when no flow is left; undefined while none has finished. */
  finishInMs(nowMs: number): number | undefined {
    const first = this.#readings[0];
    const last = this.#readings.at(-1);
    if (first === undefined || last === undefined) return undefined;
    if (last.flows === 0) return 0;
    const elapsedMs = last.atMs - first.atMs;
    if (elapsedMs <= 0 || last.flows >= first.flows) return undefined;
    const ratePerMs = Math.log(first.flows / last.flows) / elapsedMs;
    return Math.max(0, Math.log(2 * last.flows) / ratePerMs - (nowMs - last.atMs));
  }
}
