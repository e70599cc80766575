import { AdminServer } from './admin/admin-server.js';
import { MetricsServer } from './admin/metrics-server.js';
import type { Operations } from './admin/operations.js';
import type { Balancer } from './control/balancer.js';
import type { Monitors } from './control/monitors/monitors.js';
import type { ProbeHealth } from './control/probe-health.js';
import { probeStatuses } from './control/probe-statuses.js';
import type { DataPlane } from './dataplane/data-plane.js';
import type { Configuration } from './model/configuration.js';
import { errorMessage } from './model/errors.js';
import { VERSION } from './model/version.js';
import type { FlowLog } from './observe/flow-log.js';
import { Metrics } from './observe/metrics.js';
import type { ReloadTally } from './observe/reload-tally.js';
import { systemClock as clock } from './runtime/clock.js';
import type { Logger } from './runtime/logger.js';
import { systemSocketFiles } from './runtime/socket-files.js';

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
  readonly logger: Logger;
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
    const { operations, logger } = this.#parts;
    // One that has failed to start has closed for good.
    this.#admin = new AdminServer(
      { operations, clock, logger, files: systemSocketFiles },
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
          this.#parts.logger.error({ event: 'server-failed' }, errorMessage(error));
          return undefined;
        }
      }
      await new Promise<void>((resolve) => clock.setTimer(AGAIN_MS, resolve));
    }
  }
}

function createMetricsServer(configuration: Configuration, parts: ServersParts): MetricsServer | undefined {
  const { plane, balancer, health, flowLog, monitors, reloads } = parts;
  if (configuration.metrics === undefined) return undefined;
  const source = {
    counters: () => plane.counters(),
    state: () => balancer.state,
    probes: () => probeStatuses(health),
    healthEvents: () => monitors.active,
    reloads: () => reloads.stats,
    kernel: () => plane.kernelReport?.(),
    ...(flowLog === undefined ? {} : { flowLog: () => flowLog.stats }),
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
