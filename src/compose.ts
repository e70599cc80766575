import { AdminServer } from './admin/admin-server.js';
import { MetricsServer } from './admin/metrics-server.js';
import { createOperations, loadConfigurationFile } from './compose-operations.js';
import { createPlane } from './compose-plane.js';
import { Balancer } from './control/balancer.js';
import { ForwardingCompiler } from './control/forwarding-compiler.js';
import type { Monitors } from './control/monitors/monitors.js';
import { ProbeHealth } from './control/probe-health.js';
import { probeStatuses } from './control/probe-statuses.js';
import type { ApplyReport, DataPlane, StopReport } from './dataplane/data-plane.js';
import type { Configuration } from './model/configuration.js';
import type { ControlEvent } from './model/control-events.js';
import { VERSION } from './model/version.js';
import { EventFeed } from './observe/event-feed.js';
import { EventLog } from './observe/event-log.js';
import { FlowLog } from './observe/flow-log.js';
import { createLogger } from './observe/logger.js';
import { Metrics } from './observe/metrics.js';
import { ReloadTally } from './observe/reload-tally.js';
import { Webhook } from './observe/webhook.js';
import { initialHealth, observe } from './pool/health-tracker.js';
import { createProbeRunner } from './probe/probe-runner.js';
import { ProbeScheduler } from './probe/scheduler.js';
import { nodeAppendFiles } from './runtime/append-file.js';
import { systemClock as clock } from './runtime/clock.js';
import type { Logger } from './runtime/logger.js';
import { systemSocketFiles } from './runtime/socket-files.js';
import {
  createSystemdNotifier,
  systemdNotifyProgram,
  type SystemdNotifier,
} from './runtime/systemd-notify.js';
import { createHasher } from './selection/hasher.js';

export { loadConfigurationFile };

/** A balancer that runs in this process and, with workers, its children. */
export interface RunningBalancer {
  readonly report: ApplyReport;
  readonly metricsPort?: number;
  /** Of the admin API over TCP. */
  readonly adminPort?: number;
  /** Lets flows finish until the deadline, then ends everything. May be called again with a shorter deadline. */
  stop(cause: string, deadlineMs: number): Promise<StopReport>;
  /** Opens the flow log anew, for log rotation. */
  reopenLogs(): Promise<void>;
  /** Takes a whole configuration over, or nothing of it. The outcome is logged; see Reloader.reload. */
  reload(text: string, cause: string): Promise<void>;
}

/** Where a configuration came from, for the log. */
export interface ConfigurationOrigin {
  readonly source: string;
  readonly findings: number;
}

/**
 * Builds and starts a whole balancer. Rejects, with everything closed again, if the metrics or admin address or the
 * flow log cannot be opened, or if not one port can be listened on. The log goes to stderr.
 */
export async function startBalancer(
  configuration: Configuration,
  origin: ConfigurationOrigin,
): Promise<RunningBalancer> {
  const hash = await createHasher();
  const feed = new EventFeed({ clock });
  const logger = feed.wrap(await createLogger(configuration.logging, process.stderr));
  const eventLog = new EventLog({ logger, clock });
  const reloads = new ReloadTally({ clock });
  const { webhook: webhookOptions } = configuration;
  const webhook = webhookOptions === undefined ? undefined : new Webhook({ clock, logger }, webhookOptions);
  const systemd = createSystemdNotifier(process.env, systemdNotifyProgram(process.env), {
    onFailure: (message) => logger.warn({ event: 'systemd-notify-failed' }, message),
  });
  const onEvent = (event: ControlEvent): void => {
    eventLog.control(event);
    reloads.control(event);
    running.onEvent(event);
    if (event.type === 'health-event') webhook?.post(event);
  };

  const plane = createPlane(configuration, hash);
  const health = new ProbeHealth(
    new ProbeScheduler({
      clock,
      runner: createProbeRunner({ clock }),
      tracker: { initialHealth, observe },
      random: Math.random,
    }),
  );
  const flowLog = createFlowLog(configuration, logger);
  const balancer = new Balancer(
    {
      clock,
      plane,
      health,
      compiler: new ForwardingCompiler(hash),
      onEvent,
      onState: (state) => flowLog?.epoch(state),
    },
    configuration,
  );
  const { source } = origin;
  const running = createOperations({ balancer, plane, health, hash, feed, source, onEvent });
  onEvent({ type: 'starting', version: VERSION, workers: configuration.workers });
  onEvent({ type: 'config-loaded', configuration, ...origin });
  plane.subscribe((events) => {
    eventLog.plane(events);
    flowLog?.plane(events);
  });

  const { monitors, operations, reloader } = running;
  const metricsServer = createMetricsServer(configuration, {
    ...{ plane, balancer, health, flowLog, monitors, reloads },
  });
  const admin =
    configuration.admin === undefined
      ? undefined
      : new AdminServer(
          { operations, clock, logger, files: systemSocketFiles },
          { listen: configuration.admin },
        );
  const closeAll = async (): Promise<void> => {
    running.stop();
    await admin?.stop();
    await metricsServer?.stop();
    await webhook?.stop();
    await flowLog?.stop();
    eventLog.stop();
    systemd.stop();
  };
  try {
    await flowLog?.start();
    const metricsPort = await metricsServer?.start();
    const report = await balancer.start();
    running.start();
    const { httpPort: adminPort } = (await admin?.start()) ?? {};
    void systemd.ready(statusLine(balancer));
    systemd.watch(() => isAlive(balancer, plane));
    return {
      report,
      ...(metricsPort === undefined ? {} : { metricsPort }),
      ...(adminPort === undefined ? {} : { adminPort }),
      async stop(cause, deadlineMs) {
        void systemd.stopping(`Stopping: ${cause}`, deadlineMs);
        const stopped = await balancer.stop(cause, deadlineMs);
        await closeAll();
        return stopped;
      },
      async reopenLogs() {
        await flowLog?.reopen();
      },
      reload: (text, cause) => withSystemd(systemd, balancer, () => reloader.reload(text, { cause })),
    };
  } catch (error) {
    await balancer.stop('failed start', 0);
    await closeAll();
    throw error;
  }
}

/** What `systemctl status` shows. */
function statusLine({ report, configuration }: Balancer): string {
  const { tcp, udp } = report?.listeners ?? { tcp: 0, udp: 0 };
  const backends = configuration.backendPools.reduce((sum, pool) => sum + pool.backends.length, 0);
  return `${tcp} TCP and ${udp} UDP listeners, ${configuration.rules.length} rules, ${backends} backends`;
}

async function withSystemd(
  systemd: SystemdNotifier,
  balancer: Balancer,
  reload: () => Promise<unknown>,
): Promise<void> {
  void systemd.reloading();
  try {
    await reload();
  } finally {
    void systemd.ready(statusLine(balancer));
  }
}

async function isAlive(balancer: Balancer, plane: DataPlane): Promise<boolean> {
  await Promise.all([balancer.settled(), plane.answer()]);
  return true;
}

function createFlowLog(configuration: Configuration, logger: Logger): FlowLog | undefined {
  const { flowLog } = configuration;
  return flowLog === undefined ? undefined : new FlowLog({ files: nodeAppendFiles, logger, clock }, flowLog);
}

function createMetricsServer(
  configuration: Configuration,
  parts: {
    readonly plane: DataPlane;
    readonly balancer: Balancer;
    readonly health: ProbeHealth;
    readonly flowLog: FlowLog | undefined;
    readonly monitors: Monitors;
    readonly reloads: ReloadTally;
  },
): MetricsServer | undefined {
  const { plane, balancer, health, flowLog, monitors, reloads } = parts;
  if (configuration.metrics === undefined) return undefined;
  const source = {
    counters: () => plane.counters(),
    state: () => balancer.state,
    probes: () => probeStatuses(health),
    healthEvents: () => monitors.active,
    reloads: () => reloads.stats,
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
      }),
      clock,
    },
    { listen: configuration.metrics },
  );
}

function openListeners({ report }: Balancer): number {
  return report === undefined ? 0 : report.listeners.tcp + report.listeners.udp;
}
