import { dirname } from 'node:path';
import { MetricsServer } from '../admin/metrics-server.js';
import { AdminServer } from '../admin/server.js';
import type { Operations } from '../api/contract.js';
import { loadConfigurationText, type ParseResult } from '../config/load.js';
import type { Balancer } from '../control/balancer.js';
import { Drains } from '../control/drains.js';
import { Operator } from '../control/operator.js';
import { Reloader } from '../control/reload.js';
import type { ProbeHealth } from '../health/tracker.js';
import type { Configuration } from '../model/configuration.js';
import { BalancerError } from '../model/errors.js';
import type { ControlEvent } from '../model/events.js';
import type { ForwardingState } from '../model/forwarding.js';
import { VERSION } from '../model/version.js';
import { Monitors } from '../monitors/alerts.js';
import { AzureHealthEvents } from '../monitors/azure.js';
import { ProbeTruthMonitor } from '../monitors/probe-truth.js';
import type { EventBus, EventFeed, Overloads } from '../observe/bus.js';
import type { FlowLog } from '../observe/flow-log.js';
import { Metrics, type ReloadTally } from '../observe/metrics.js';
import { allFlows, type DataPlane } from '../planes/contract.js';
import { systemClock as clock } from '../runtime/clock.js';
import { systemFiles, systemSocketFiles } from '../runtime/files.js';
import type { Hash32 } from '../selection/flow-hash.js';
import { Picker } from '../selection/picker.js';
import { CounterSampler } from '../status/counters.js';
import { liveExplain } from '../status/explain.js';
import { FlowLister } from '../status/flows.js';
import { probeStatuses } from '../status/pools.js';
import { Views } from '../status/views.js';
import { simulate } from '../whatif/simulate.js';
import { thisMachine } from './configuration-file.js';

/** Ports that another process is giving up are tried again for so long. */
const PATIENCE_MS = 3000;
const AGAIN_MS = 20;

export interface ServersParts {
  readonly plane: DataPlane;
  readonly balancer: Balancer;
  readonly health: ProbeHealth;
  readonly flowLog: FlowLog | undefined;
  readonly monitors: Monitors;
  readonly reloads: ReloadTally;
  readonly operations: Operations;
  readonly feed: EventFeed;
  readonly overloads: Overloads;
  readonly onEvent: (event: ControlEvent) => void;
}

/** The metrics server and the admin API, as far as they are configured. It owns them. */
export class Servers {
  readonly #configuration: Configuration;
  readonly #parts: ServersParts;
  readonly #metrics: MetricsServer | undefined;
  #admin: AdminServer | undefined;
  #stopped: Promise<void> | undefined;

  constructor(configuration: Configuration, parts: ServersParts) {
    this.#configuration = configuration;
    this.#parts = parts;
    this.#metrics = createMetricsServer(configuration, parts);
  }

  async startMetrics(): Promise<{ readonly metricsPort?: number | undefined }> {
    return { metricsPort: await this.#metrics?.start() };
  }

  /** `takeOver`: takes the Unix socket from a process that still answers on it. */
  async startAdmin(takeOver = false): Promise<{ readonly adminPort?: number | undefined }> {
    const { admin: listen } = this.#configuration;
    if (listen === undefined) return {};
    const { operations, feed, onEvent } = this.#parts;
    // One that has failed to start has closed for good.
    this.#admin = new AdminServer(
      { operations, events: feed, clock, onEvent, files: systemSocketFiles },
      { listen, takeOver },
    );
    return { adminPort: (await this.#admin.start()).httpPort };
  }

  /** Starts both where another process is giving up its ports. Does not reject: what cannot be had in time is logged. */
  async startPatiently(): Promise<{
    readonly metricsPort?: number | undefined;
    readonly adminPort?: number | undefined;
  }> {
    const metrics = await this.#patiently(() => this.startMetrics());
    return { ...metrics, ...(await this.#patiently(() => this.startAdmin(true))) };
  }

  /** Idempotent; never rejects. */
  stop(): Promise<void> {
    this.#stopped ??= Promise.all([this.#admin?.stop(), this.#metrics?.stop()]).then(() => undefined);
    return this.#stopped;
  }

  async #patiently<T>(start: () => Promise<T>): Promise<T | undefined> {
    const untilMs = clock.monotonicMs() + PATIENCE_MS;
    for (;;) {
      try {
        return await start();
      } catch (error) {
        if (clock.monotonicMs() >= untilMs) {
          this.#parts.onEvent({ type: 'server-failed', error });
          return undefined;
        }
      }
      await new Promise<void>((resolve) => clock.setTimer(AGAIN_MS, resolve));
    }
  }
}

function createMetricsServer(configuration: Configuration, parts: ServersParts): MetricsServer | undefined {
  const { plane, balancer, health, flowLog, monitors, reloads, overloads } = parts;
  if (configuration.metrics === undefined) return undefined;
  const source = {
    counters: () => plane.counters(),
    facts: () => ({
      state: balancer.state,
      probes: probeStatuses(health),
      healthEvents: monitors.active,
      reloads: reloads.stats,
      kernel: plane.kernelReport?.(),
      flowLog: flowLog?.writer.stats,
    }),
  };
  return new MetricsServer(
    {
      metrics: new Metrics({ source, clock }, { version: VERSION }),
      liveness: [
        { name: 'control loop', answer: () => balancer.settled() },
        { name: 'data plane', answer: () => plane.answer() },
      ],
      readiness: () => ({
        applied: balancer.state !== undefined,
        openListeners: openListeners(balancer),
        stopping: balancer.stopping,
        overloads: overloads.active,
        ...unsteered(plane),
      }),
      clock,
    },
    { listen: configuration.metrics },
  );
}

/** Where capture is not in place, open listeners are of no use. */
function unsteered(plane: DataPlane): { readonly unsteered?: string } {
  const kernel = plane.kernelReport?.();
  if (kernel === undefined || kernel.state === 'in-place') return {};
  return { unsteered: `Table ${kernel.table} is not in the kernel` };
}

function openListeners({ report }: Balancer): number {
  return report === undefined ? 0 : report.listeners.tcp + report.listeners.udp;
}

export interface OperationsParts {
  readonly balancer: Balancer;
  readonly plane: DataPlane;
  readonly health: ProbeHealth;
  readonly hash: Hash32;
  /** Path of the configuration file: files that a configuration names are relative to it. */
  readonly source: string;
  readonly bus: EventBus;
  readonly upgrade: Operations['upgrade'];
}

/** Everything that operators see and do, and the monitors that watch for them. */
export interface RunningOperations {
  readonly operations: Operations;
  readonly reloader: Reloader;
  readonly monitors: Monitors;
  readonly drains: Drains;
  /** Once the plane has started. */
  start(): void;
  stop(): void;
}

export function createOperations(parts: OperationsParts): RunningOperations {
  const { balancer, plane, health, hash, source, bus } = parts;
  const onEvent = bus.emit;
  const picker = new Picker(hash);
  const sampler = new CounterSampler({ clock, plane });
  const drains = new Drains({
    clock,
    plane,
    overrides: balancer.overrides,
    refresh: () => balancer.refresh(),
    onEvent,
  });
  const views = new Views(
    { clock, balancer, sampler, health, drains, kernel: () => plane.kernelReport?.() },
    {
      source,
      version: VERSION,
      pid: process.pid,
      startedAtMs: clock.wallMs(),
      workers: balancer.configuration.workers,
    },
  );
  const operator = new Operator({ balancer, drains, onEvent });
  const lister = new FlowLister({ clock, plane, configuration: () => balancer.configuration });
  const parse = (text: string): Promise<ParseResult> =>
    loadConfigurationText(text, dirname(source), systemFiles, thisMachine());
  const reloader = new Reloader({ clock, balancer, plane, drains, picker, parse, onEvent });
  const monitors = new Monitors({ clock, onEvent }, [new AzureHealthEvents(), new ProbeTruthMonitor()]);
  sampler.subscribe((sample) => {
    if (balancer.state !== undefined) monitors.observe(sample, balancer.state);
  });
  bus.on(['source-port-pressure'], (event) => monitors.portPressure(event));
  bus.on(['applied', 'apply-failed', 'reloaded', 'reload-failed'], (event) => views.onEvent(event));

  const operations: Operations = {
    status: () => views.status(),
    frontends: () => views.frontends(),
    rules: () => views.rules(),
    pools: () => views.pools(),
    pool: async ({ pool }) =>
      found(
        (await views.pools()).find(({ name }) => name === pool),
        `There is no backend pool ${JSON.stringify(pool)}`,
      ),
    flows: (query) => lister.list(query),
    explain: (tuple) => liveExplain({ picker, plane, tuple, state: stateOf(balancer) }),
    setAdminState: ({ adminState, ...named }) => operator.setAdminState(idOf(named), adminState),
    setWeight: ({ weight, ...named }) => operator.setWeight(idOf(named), weight),
    drain: ({ pool, backend, ...request }) => operator.drain(idOf({ pool, backend }), request),
    drainStatus: async (named) =>
      found(
        (await drains.statuses()).find(
          ({ backendId, backendName, pool }) =>
            backendId === idOf(named) || `${pool}/${backendName}` === idOf(named),
        ),
        `Backend ${JSON.stringify(idOf(named))} is not being drained`,
      ),
    cancelDrain: (named) => operator.cancelDrain(idOf(named)),
    drains: () => drains.statuses(),
    plan: ({ configuration }) => reloader.plan(configuration),
    reload: ({ configuration, maxMoved }) => reloader.reload(configuration, { cause: 'admin API', maxMoved }),
    simulate: (request) =>
      simulate(request, {
        picker,
        configuration: balancer.configuration,
        inputs: balancer.inputs(),
        compile: (configuration, inputs) => balancer.preview(configuration, inputs),
        flows: () => allFlows(plane),
      }),
    upgrade: parts.upgrade,
  };
  return {
    operations,
    reloader,
    monitors,
    drains,
    start: () => sampler.start(),
    stop() {
      sampler.stop();
      monitors.stop();
      drains.stop();
    },
  };
}

function idOf({ pool, backend }: { readonly pool: string; readonly backend: string }): string {
  return `${pool}/${backend}`;
}

function found<T>(value: T | undefined, otherwise: string): T {
  if (value !== undefined) return value;
  throw new BalancerError(otherwise, { code: 'LB_NOT_FOUND', source: 'usage' });
}

function stateOf({ state }: Balancer): ForwardingState {
  if (state !== undefined) return state;
  throw new BalancerError('The balancer has not started yet', { code: 'LB_CONFLICT', source: 'usage' });
}
