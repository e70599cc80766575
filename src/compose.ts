import { fileURLToPath } from 'node:url';
import { MetricsServer } from './admin/metrics-server.js';
import { loadConfiguration, type LoadResult } from './config/load.js';
import { Balancer } from './control/balancer.js';
import { ForwardingCompiler } from './control/forwarding-compiler.js';
import { ProbeHealth } from './control/probe-health.js';
import { probeStatuses } from './control/probe-statuses.js';
import type { ApplyReport, DataPlane, StopReport } from './dataplane/data-plane.js';
import { PlaneHost } from './dataplane/remote/plane-host.js';
import { RemotePortGate } from './dataplane/remote/remote-port-gate.js';
import { SupervisedPlane } from './dataplane/remote/supervised-plane.js';
import { WorkerGroup } from './dataplane/remote/worker-group.js';
import { forkSharingWorker, forkWorker, parentChannel } from './dataplane/remote/worker-launcher.js';
import type { WorkerOptions } from './dataplane/remote/worker-protocol.js';
import { ownAddresses } from './dataplane/userspace/own-addresses.js';
import { tryTcpPort } from './dataplane/userspace/tcp/try-port.js';
import { UserspacePlane, type UserspacePlaneDeps } from './dataplane/userspace/userspace-plane.js';
import type { Configuration } from './model/configuration.js';
import type { ControlEvent } from './model/control-events.js';
import { VERSION } from './model/version.js';
import { EventLog } from './observe/event-log.js';
import { FlowLog } from './observe/flow-log.js';
import { createLogger } from './observe/logger.js';
import { Metrics } from './observe/metrics.js';
import { initialHealth, observe } from './pool/health-tracker.js';
import { createProbeRunner } from './probe/probe-runner.js';
import { ProbeScheduler } from './probe/scheduler.js';
import { nodeAppendFiles } from './runtime/append-file.js';
import { systemClock } from './runtime/clock.js';
import { descriptorLimit } from './runtime/descriptor-limit.js';
import { systemFiles } from './runtime/files.js';
import type { Logger } from './runtime/logger.js';
import { createHasher, type Hash32 } from './selection/hasher.js';

/** A balancer that runs in this process and, with workers, its children. */
export interface RunningBalancer {
  readonly report: ApplyReport;
  readonly metricsPort?: number;
  /** Lets flows finish until the deadline, then ends everything. May be called again with a shorter deadline. */
  stop(cause: string, deadlineMs: number): Promise<StopReport>;
  /** Opens the flow log anew, for log rotation. */
  reopenLogs(): Promise<void>;
}

/** Where a configuration came from, for the log. */
export interface ConfigurationOrigin {
  readonly source: string;
  readonly findings: number;
}

const clock = systemClock;

/** Reads and checks a configuration file against this machine. What is wrong with it is in the result. */
export function loadConfigurationFile(path: string): Promise<LoadResult> {
  return loadConfiguration(path, systemFiles, { ownAddresses: [...ownAddresses(4), ...ownAddresses(6)] });
}

/**
 * Builds and starts a whole balancer. Rejects, with everything closed again, if the metrics address or the flow log
 * cannot be opened, or if not one port can be listened on. The log goes to stderr.
 */
export async function startBalancer(
  configuration: Configuration,
  origin: ConfigurationOrigin,
): Promise<RunningBalancer> {
  const hash = await createHasher();
  const logger = await createLogger(configuration.logging, process.stderr);
  const eventLog = new EventLog({ logger, clock });
  const onEvent = (event: ControlEvent): void => eventLog.control(event);
  onEvent({ type: 'starting', version: VERSION, workers: configuration.workers });
  onEvent({ type: 'config-loaded', configuration, ...origin });

  const plane = createPlane(configuration, hash);
  const scheduler = new ProbeScheduler({
    clock,
    runner: createProbeRunner({ clock }),
    tracker: { initialHealth, observe },
    random: Math.random,
  });
  const health = new ProbeHealth(scheduler);
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
  plane.subscribe((events) => {
    eventLog.plane(events);
    flowLog?.plane(events);
  });

  const metricsServer = createMetricsServer(configuration, { plane, balancer, health, flowLog });
  const closeAll = async (): Promise<void> => {
    await metricsServer?.stop();
    await flowLog?.stop();
    eventLog.stop();
  };
  try {
    await flowLog?.start();
    const metricsPort = await metricsServer?.start();
    const report = await balancer.start();
    return {
      report,
      ...(metricsPort === undefined ? {} : { metricsPort }),
      async stop(cause, deadlineMs) {
        const stopped = await balancer.stop(cause, deadlineMs);
        await closeAll();
        return stopped;
      },
      async reopenLogs() {
        await flowLog?.reopen();
      },
    };
  } catch (error) {
    await balancer.stop('failed start', 0);
    await closeAll();
    throw error;
  }
}

/** The data worker's process: serves the process that forked it, and ends when that says so or is gone. */
export async function serveAsWorker(): Promise<void> {
  // Signals of the terminal reach the whole process group; what to do about them is the control process's decision.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);
  // The first message may come at any time from now on, and waits for the hasher.
  const channel = parentChannel();
  const hash = await createHasher();
  const tcpGate = new RemotePortGate(channel);
  new PlaneHost({
    channel,
    clock,
    createPlane: (options) => createUserspacePlane(hash, options, options.workers > 1 ? { tcpGate } : {}),
    onStopped: () => {
      if (process.connected) process.disconnect();
    },
  });
}

function createUserspacePlane(
  hash: Hash32,
  options: WorkerOptions,
  more: Pick<UserspacePlaneDeps, 'tcpGate'> = {},
): UserspacePlane {
  return new UserspacePlane(
    { clock, hash, ownAddresses, descriptorLimit: descriptorLimit(), ...more },
    options,
  );
}

function createPlane(configuration: Configuration, hash: Hash32): DataPlane {
  const { workers } = configuration;
  const flowEvents = configuration.flowLog !== undefined;
  const script = fileURLToPath(new URL('./worker.js', import.meta.url));
  switch (workers) {
    case 0:
      return createUserspacePlane(hash, { flowEvents, worker: 0, workers: 1 });
    case 1:
      return new SupervisedPlane(
        { clock, launch: () => forkWorker(script) },
        { flowEvents, worker: 0, workers },
      );
    default:
      return new WorkerGroup(
        { clock, launch: () => forkSharingWorker(script), tryTcpPort },
        { flowEvents, workers },
      );
  }
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
  },
): MetricsServer | undefined {
  const { plane, balancer, health, flowLog } = parts;
  if (configuration.metrics === undefined) return undefined;
  const source = {
    counters: () => plane.counters(),
    state: () => balancer.state,
    probes: () => probeStatuses(health),
    ...(flowLog === undefined ? {} : { flowLog: () => flowLog.stats }),
  };
  return new MetricsServer(
    {
      metrics: new Metrics({ source, clock }, { version: VERSION }),
      liveness: [
        { name: 'control loop', answer: () => balancer.settled() },
        {
          name: 'data plane',
          answer: () => (plane instanceof WorkerGroup ? plane.answer() : plane.flows({ limit: 1 })),
        },
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
