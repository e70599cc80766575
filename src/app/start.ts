import { Balancer } from '../control/balancer.js';
import { Hindrances } from '../health/hindrances.js';
import { createProbeRunner } from '../health/probes.js';
import { ProbeScheduler } from '../health/scheduler.js';
import { ProbeHealth } from '../health/tracker.js';
import type { Configuration } from '../model/configuration.js';
import { BalancerError } from '../model/errors.js';
import { listeningSentence, type ControlEvent, type IngressMode } from '../model/events.js';
import { VERSION } from '../model/version.js';
import { EventBus, EventFeed, EventSummaries, Overloads } from '../observe/bus.js';
import { FlowLog } from '../observe/flow-log.js';
import { openLog } from '../observe/log.js';
import { ReloadTally } from '../observe/metrics.js';
import { Webhook } from '../observe/webhook.js';
import { canHandOver, type ApplyReport, type DataPlane, type StopReport } from '../planes/contract.js';
import { flowShortageAdvice } from '../planes/userspace/descriptors.js';
import { shortageAdvice } from '../planes/userspace/listen-plan.js';
import { systemClock as clock } from '../runtime/clock.js';
import { nodeAppendFiles } from '../runtime/files.js';
import { residentMemory } from '../runtime/machine.js';
import { startSuccessor, type PeerChannel } from '../runtime/peer.js';
import { SystemdNotifier, systemdNotifyProgram } from '../runtime/systemd.js';
import { ForwardingCompiler } from '../selection/compiler.js';
import { createHasher } from '../selection/flow-hash.js';
import { adoptControlState, controlStateOf, resumeDrains, type HandoverParts } from '../upgrade/messages.js';
import { Predecessor } from '../upgrade/new-process.js';
import { Succession, type UpgradeRequest } from '../upgrade/old-process.js';
import { budgetFor, createPlane, decideCaptureHere, kernelOperations } from './planes.js';
import { Servers, createOperations } from './servers.js';

export { kernelOperations };

/** A balancer that runs in this process and, with workers, its children. */
export interface RunningBalancer {
  readonly report: ApplyReport;
  readonly metricsPort?: number;
  /** Of the admin API over TCP. */
  readonly adminPort?: number;
  /** Lets flows finish until the deadline, then ends everything. May be called again with a shorter deadline. */
  stop(cause: string, deadlineMs: number): Promise<StopReport>;
  /** Resolves when another process has taken this one's place; to be answered by `stop`. */
  readonly superseded: Promise<UpgradeRequest>;
  /** Has another process take this one's place. Never rejects: the outcome is logged. */
  upgrade(): Promise<void>;
  /** Opens the flow log anew, for log rotation. */
  reopenLogs(): Promise<void>;
  /** Takes a whole configuration over, or nothing of it. The outcome is logged; see Reloader.reload. */
  reload(text: string, cause: string): Promise<void>;
  /** Tells, as a failed reload, that what was to be taken over could not even be read. */
  reloadRefused(error: Error, cause: string): void;
}

/** Where a configuration came from, for the log. */
export interface ConfigurationOrigin {
  readonly source: string;
  readonly findings: number;
}

/**
 * Builds and starts a whole balancer. Rejects, with everything closed again, if the metrics or admin address or the
 * flow log cannot be opened, or if not one port can be listened on. The log goes to stderr. With a predecessor it takes
 * that process's place, which serves until this one does.
 */
export async function startBalancer(
  configuration: Configuration,
  origin: ConfigurationOrigin,
  predecessor?: PeerChannel,
): Promise<RunningBalancer> {
  const old = predecessor === undefined ? undefined : new Predecessor(clock, predecessor);
  const hash = await createHasher();
  const feed = new EventFeed({ clock });
  const log = await openLog(configuration.logging, process.stderr);
  const bus = new EventBus();
  const onEvent = bus.emit;
  const reloads = new ReloadTally({ clock });
  const { webhook: webhookOptions } = configuration;
  const webhook = webhookOptions === undefined ? undefined : new Webhook({ clock, onEvent }, webhookOptions);
  const systemd = new SystemdNotifier(process.env, systemdNotifyProgram(process.env), {
    onFailure: (message) => onEvent({ type: 'systemd-notify-failed', message }),
  });

  const decided = await decideCaptureHere(configuration).catch((error: unknown) => {
    old?.failed(error);
    throw error;
  });
  const capture = decided instanceof BalancerError ? undefined : decided;
  const ingress =
    configuration.kernel !== undefined ? 'kernel' : capture === undefined ? 'port-sockets' : 'captured';
  bus.onLine(ingress, [log, feed.add]);
  bus.on(['config-loaded', 'reloaded', 'reload-failed'], (event) => reloads.observe(event));
  bus.on(['health-event'], (event) => webhook?.post(event));
  const summaries = new EventSummaries(bus, clock);
  const overloads = new Overloads(bus);
  if (decided instanceof BalancerError) onEvent({ type: 'capture-impossible', error: decided });
  const budget = budgetFor(configuration, capture);
  const plane = createPlane(configuration, hash, {
    ...budget,
    capture,
    onWarning: (warning) => onEvent({ type: 'kernel-machine', warning }),
  });
  const runner = createProbeRunner({ clock });
  const scheduler = new ProbeScheduler({ clock, runner, random: Math.random });
  const health = new ProbeHealth(scheduler, new Hindrances({ clock, onEvent }));
  const flowLog = createFlowLog(configuration, onEvent);
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
  const handoverParts = (): HandoverParts => {
    const { overrides } = balancer;
    return { clock, overrides, health, drains: running.drains };
  };
  const succession = new Succession({
    ...{ clock, plane, onEvent },
    state: () => controlStateOf(handoverParts()),
    isStopping: () => balancer.stopping,
    launch: () =>
      startSuccessor({
        node: process.argv0,
        nodeOptions: process.execArgv,
        args: process.argv.slice(1),
      }),
    release: () => {
      systemd.stop();
      return servers.stop();
    },
  });
  const running = createOperations({
    ...{ balancer, plane, health, hash, source, bus },
    upgrade: (request) => succession.upgrade(request),
  });
  onEvent({ type: 'starting', version: VERSION, workers: configuration.workers });
  onEvent({ type: 'config-loaded', configuration, ...origin });
  if (budget.shortage !== undefined) {
    onEvent({ type: 'descriptors-short', ...budget.shortage, advice: shortageAdvice(budget.shortage) });
  }
  if (budget.flowShortage !== undefined) {
    const advice = flowShortageAdvice(budget.flowShortage);
    onEvent({ type: 'flows-limited', ...budget.flowShortage, advice });
  }
  bus.on(['flow-started', 'flow-moved', 'flow-ended'], (event) => flowLog?.flow(event));
  plane.subscribe((events) => events.forEach(onEvent));

  const { monitors, operations, reloader } = running;
  const servers = new Servers(configuration, {
    ...{ plane, balancer, health, flowLog, monitors, reloads, operations, feed, overloads, onEvent },
  });
  const closeAll = async (): Promise<void> => {
    running.stop();
    await servers.stop();
    await webhook?.stop();
    await flowLog?.writer.stop();
    summaries.stop();
    systemd.stop();
  };
  const start = async (): Promise<Started> => {
    const { metricsPort } = await servers.startMetrics();
    // Before there are flows: once haports is ready its admin API answers, and an address in use disturbs no flow.
    const admin = await servers.startAdmin();
    const report = await balancer.start();
    running.start();
    return { report, metricsPort, ...admin };
  };
  // The old process serves until this one does; after that nothing may fail any more.
  const startInPlaceOf = async (predecessor: Predecessor): Promise<Started> => {
    if (!canHandOver(plane)) {
      const message = 'This data plane cannot take over sockets';
      throw new BalancerError(message, { code: 'LB_RESTART_NEEDED', source: 'usage' });
    }
    const { state, sockets } = await predecessor.meet();
    adoptControlState(state, handoverParts());
    await plane.inherit(sockets);
    const report = await balancer.start(async () => plane.inheritFlows(await predecessor.takeOver()));
    running.start();
    await predecessor.serving();
    resumeDrains(state, handoverParts(), balancer.configuration);
    // The service ends if the old process, its main one so far, ends before systemd knows of this one.
    await systemd.mainPid(process.pid);
    predecessor.leave();
    return { report, ...(await servers.startPatiently()) };
  };
  try {
    const startedAtMs = clock.monotonicMs();
    await flowLog?.start();
    const { report, metricsPort, adminPort } = old === undefined ? await start() : await startInPlaceOf(old);
    const { tcpPorts } = budget;
    const { listeners } = report;
    const [durationMs, memory] = [clock.monotonicMs() - startedAtMs, await residentMemory()];
    const { workers } = configuration;
    onEvent({ type: 'listening', listeners, durationMs, workers, tcpPorts, memory });
    void systemd.ready(statusLine(balancer, ingress));
    systemd.watch(() => isAlive(balancer, plane));
    return {
      ...{ report, metricsPort, adminPort },
      superseded: succession.superseded,
      async upgrade() {
        // The log tells the outcome, but for a refusal.
        await succession.upgrade({}).catch((error: unknown) => onEvent({ type: 'upgrade-refused', error }));
      },
      async stop(cause, deadlineMs) {
        // The service continues in another process, which notifies systemd itself.
        if (!succession.isOver) void systemd.stopping(`Stopping: ${cause}`, deadlineMs);
        const leaves = succession.isOver || balancer.configuration.kernel?.onStop === 'keep';
        const stopped = await balancer.stop(cause, deadlineMs, leaves ? 'at-once' : 'lame-duck');
        await closeAll();
        return stopped;
      },
      async reopenLogs() {
        await flowLog?.writer.reopen();
      },
      reload: (text, cause) =>
        withSystemd(systemd, balancer, ingress, () => reloader.reload(text, { cause })),
      reloadRefused: (error, cause) => onEvent({ type: 'reload-failed', cause, error }),
    };
  } catch (error) {
    old?.failed(error);
    await balancer.stop('failed start', 0);
    await closeAll();
    throw error;
  }
}

interface Started {
  readonly report: ApplyReport;
  readonly metricsPort?: number | undefined;
  readonly adminPort?: number | undefined;
}

/** What `systemctl status` shows. */
function statusLine({ report, configuration }: Balancer, ingress: IngressMode): string {
  const listeners = listeningSentence(ingress, report?.listeners ?? { tcp: 0, udp: 0 });
  const backends = configuration.backendPools.reduce((sum, pool) => sum + pool.backends.length, 0);
  return `${listeners}; ${configuration.rules.length} rules, ${backends} backends`;
}

async function withSystemd(
  systemd: SystemdNotifier,
  balancer: Balancer,
  ingress: IngressMode,
  reload: () => Promise<unknown>,
): Promise<void> {
  void systemd.reloading();
  try {
    await reload();
  } finally {
    void systemd.ready(statusLine(balancer, ingress));
  }
}

async function isAlive(balancer: Balancer, plane: DataPlane): Promise<boolean> {
  await Promise.all([balancer.settled(), plane.answer()]);
  return true;
}

function createFlowLog(
  configuration: Configuration,
  onEvent: (event: ControlEvent) => void,
): FlowLog | undefined {
  const { flowLog } = configuration;
  return flowLog === undefined ? undefined : new FlowLog({ files: nodeAppendFiles, onEvent, clock }, flowLog);
}
