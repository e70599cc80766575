import type { Protocol } from '../model/address.js';
import { errorCode, errorMessage } from '../model/errors.js';
import type {
  AppliedReport,
  ConfigLoaded,
  ControlEvent,
  DrainChanged,
  HealthChanged,
  HealthEvent,
  KernelChanged,
  ListeningChanged,
  Overload,
  PassiveFailure,
  PlaneEvent,
  PoolServingChanged,
  ReloadFailed,
  Reloaded,
  SourcePortPressure,
  TablePressure,
  UpgradeFailed,
  UpgradeReady,
  UpgradeStarted,
  WeightChanged,
  WorkerLost,
} from '../model/events.js';
import { formatPortSet, portSetOf } from '../model/ports.js';
import type { TcpPorts } from '../planes/contract.js';
import type { Clock } from '../runtime/clock.js';
import type { Logger } from '../runtime/logger.js';

const KEPT_IN_KERNEL = 'the kernel goes on forwarding by what it has';

/** What a line needs to know of the time before it. */
export interface ControlLineContext {
  readonly poolWasDown: boolean;
  readonly failuresAreNew: boolean;
  readonly entry: TrafficEntry;
}

export function logControlEvent(logger: Logger, event: ControlEvent, context: ControlLineContext): void {
  switch (event.type) {
    case 'config-loaded':
      logConfigLoaded(logger, event);
      break;
    case 'health-changed':
      logHealthChanged(logger, event);
      break;
    case 'admin-changed': {
      const { pool, backendId, backendName, from, to } = event;
      logger.info(
        { event: 'admin-changed', pool, backendId, backendName, from, to },
        `Admin state of backend "${backendName}" in pool "${pool}" changed from ${from} to ${to}`,
      );
      break;
    }
    case 'pool-serving-changed':
      logPoolServing(logger, event, context);
      break;
    case 'applied':
      logApplied(logger, event.digest, event.report, context);
      break;
    case 'apply-failed': {
      const { revision, error } = event;
      const fields = { event: 'apply-failed', revision, code: errorCode(error), error: errorMessage(error) };
      logger.error(fields, `Cannot apply revision ${revision}: ${errorMessage(error)}`);
      break;
    }
    case 'weight-changed':
      logWeightChanged(logger, event);
      break;
    case 'drain-changed':
      logDrainChanged(logger, event);
      break;
    case 'reloaded':
      logReloaded(logger, event);
      break;
    case 'reload-failed':
      logReloadFailed(logger, event);
      break;
    case 'upgrade-started':
    case 'upgrade-ready':
    case 'upgrade-failed':
      logUpgrade(logger, event);
      break;
    case 'health-event':
      logHealthEvent(logger, event);
      break;
    case 'starting': {
      const { version, workers } = event;
      logger.info({ event: 'starting', version, workers }, `haports ${version} is starting`);
      break;
    }
    case 'stopping': {
      const { cause, deadlineMs } = event;
      const rest = event.keptInKernel ? KEPT_IN_KERNEL : `flows may finish for ${deadlineMs} ms`;
      logger.info({ event: 'stopping', cause, deadlineMs }, `Stopping on ${cause}: ${rest}`);
      break;
    }
    case 'stopped': {
      const { finished, reset } = event.report;
      const rest = event.keptInKernel ? KEPT_IN_KERNEL : `${finished} flows finished, ${reset} were ended`;
      logger.info({ event: 'stopped', finished, reset }, `Stopped: ${rest}`);
      break;
    }
  }
}

function logConfigLoaded(logger: Logger, event: ConfigLoaded): void {
  const { digest, frontends, rules, backendPools } = event.configuration;
  const fields = {
    event: 'config-loaded',
    source: event.source,
    digest,
    findings: event.findings,
    frontends: frontends.length,
    rules: rules.length,
    pools: backendPools.length,
    backends: backendPools.reduce((sum, pool) => sum + pool.backends.length, 0),
  };
  logger.info(fields, `Loaded configuration "${event.source}", digest ${digest.slice(0, 12)}`);
}

function logHealthChanged(logger: Logger, event: HealthChanged): void {
  const { pool, backendId, backendName, probe, transition } = event;
  const { from, to, evidence, atMs } = transition;
  const fields = { event: 'health-changed', pool, backendId, backendName, probe, from, to, evidence, atMs };
  const message = `Probe "${probe}" finds backend "${backendName}" in pool "${pool}" ${to}: ${evidence}`;
  if (to === 'up') logger.info(fields, message);
  else logger.warn(fields, message);
}

/** Azure's NoHealthyBackends: field.md section 1.9. */
function logPoolServing(logger: Logger, event: PoolServingChanged, context: ControlLineContext): void {
  const { pool, probe, servingPriority, eligible, total } = event;
  const fields = { pool, probe, servingPriority, eligible, total };
  if (eligible === 0) {
    logger.error(
      { event: 'pool-down', ...fields },
      `No backend of pool "${pool}" is eligible (0 of ${total})`,
    );
    return;
  }
  const priority = servingPriority === undefined ? '' : `, priority ${servingPriority} serves`;
  const serving = `${eligible} of ${total} backends are eligible${priority}`;
  if (context.poolWasDown) {
    logger.info({ event: 'pool-recovered', ...fields }, `Pool "${pool}" has recovered: ${serving}`);
  } else {
    logger.info({ event: 'pool-serving', ...fields }, `Pool "${pool}": ${serving}`);
  }
}

function logApplied(
  logger: Logger,
  digest: string,
  report: AppliedReport,
  context: ControlLineContext,
): void {
  const { revision, listeners, failures } = report;
  const { tcp, udp } = listeners;
  logger.info(
    { event: 'applied', revision, digest, listeners: { tcp, udp }, failures: failures.length },
    `Applied revision ${revision}: ${listeningWords(context.entry, listeners)}`,
  );
  if (failures.length === 0 || !context.failuresAreNew) return;
  const groups = groupListenFailures(failures);
  const first = groups[0];
  const example = first === undefined ? '' : `, first ${first.protocol} ${first.ports} (${first.errorCode})`;
  // Captured ports have no sockets that could be counted.
  const all = context.entry === 'captured' ? '' : ` of ${failures.length + tcp + udp}`;
  logger.warn(
    { event: 'listen-failed', revision, failures: groups },
    `Cannot listen on ${failures.length}${all} ${all === '' && failures.length === 1 ? 'port' : 'ports'}${example}`,
  );
}

export function logWeightChanged(logger: Logger, event: WeightChanged): void {
  const { pool, backendId, backendName, from, to } = event;
  logger.info(
    { event: 'weight-changed', pool, backendId, backendName, from, to },
    `Weight of backend "${backendName}" in pool "${pool}" changed from ${from} to ${to}`,
  );
}

export function logDrainChanged(logger: Logger, { phase, drain }: DrainChanged): void {
  const { pool, backendId, backendName, deadlineMs, then, spreadMs, flowsAtStart, flows } = drain;
  const { tcp, udp } = flows;
  const left = tcp + udp;
  const fields = {
    event: 'drain-changed',
    phase,
    pool,
    backendId,
    backendName,
    deadlineMs,
    then,
    spreadMs,
    flowsAtStart,
    flows: { tcp, udp },
  };
  const backend = `backend "${backendName}" in pool "${pool}"`;
  switch (phase) {
    case 'started':
      logger.info(fields, `Draining ${backend}: ${left} flows have ${deadlineMs} ms to finish`);
      break;
    case 'deadline': {
      const what = then === 'leave' ? 'are left alone' : `are ended over ${spreadMs} ms`;
      logger.warn(fields, `The deadline of draining ${backend} has passed: ${left} flows ${what}`);
      break;
    }
    case 'finished':
      logger.info(fields, `Drained ${backend}: none of its ${flowsAtStart} flows is left`);
      break;
    case 'cancelled':
      logger.info(fields, `Draining ${backend} was cancelled with ${left} flows left`);
      break;
  }
}

export function logReloaded(logger: Logger, { cause, report }: Reloaded): void {
  const { revision, digest, durationMs, kept, lost, plan } = report;
  const { added, removed, changed } = plan.backends;
  logger.info(
    {
      event: 'reloaded',
      cause,
      revision,
      digest,
      durationMs,
      kept,
      lost,
      movedShare: plan.movedShare,
      backends: { added: added.length, removed: removed.length, changed: changed.length },
    },
    `Reloaded by ${cause}, digest ${digest.slice(0, 12)}: kept ${kept.flows} flows and ${kept.listeners} listeners, lost ${lost.flows} flows and ${lost.listeners} listeners`,
  );
}

/** Of a configuration that cannot be used; `haports check` prints the others. */
const MAX_FINDINGS = 20;

/** With what is wrong with the configuration, where the error says it: nobody else hears of a SIGHUP that failed. */
export function logReloadFailed(logger: Logger, { cause, error }: ReloadFailed): void {
  const known = error instanceof Error && 'findings' in error ? error.findings : undefined;
  const findings: unknown[] = Array.isArray(known) ? known : [];
  logger.error(
    {
      ...{ event: 'reload-failed', cause, code: errorCode(error), error: errorMessage(error) },
      ...(findings.length === 0 ? {} : { findings: findings.slice(0, MAX_FINDINGS) }),
      ...(findings.length > MAX_FINDINGS ? { moreFindings: findings.length - MAX_FINDINGS } : {}),
    },
    `Cannot reload by ${cause}, what was served is served on: ${errorMessage(error)}`,
  );
}

/** Azure's LoadBalancerHealthEvent, and haports' own in the same form: docs/health-events.md. */
export function logHealthEvent(logger: Logger, event: HealthEvent): void {
  const { name, severity, phase, subject, evidence, atMs } = event;
  const fields = { event: 'health-event', name, severity, phase, subject, evidence, atMs };
  switch (phase) {
    case 'raised':
      logger.warn(fields, `${name} of "${subject}": ${evidence}`);
      break;
    case 'again':
      logger.warn(fields, `${name} of "${subject}" still: ${evidence}`);
      break;
    case 'resolved':
      logger.info(fields, `${name} of "${subject}" is over: ${evidence}`);
      break;
  }
}

export function logOverload(logger: Logger, event: Overload): void {
  const { reason } = event;
  if (event.phase === 'started') {
    logger.warn({ event: 'overload-started', reason }, `Overload started: new flows are refused (${reason})`);
  } else {
    logger.info({ event: 'overload-ended', reason }, `Overload ended (${reason})`);
  }
}

/** Azure's HighSnatPortUsage (75 %) and SnatPortExhaustion: field.md section 1.9. */
export function logSourcePortPressure(logger: Logger, event: SourcePortPressure): void {
  const { backendId, sourceAddress, level, used, available } = event;
  const fields = { event: 'source-port-pressure', backendId, sourceAddress, level, used, available };
  const pair = `from ${sourceAddress} to backend "${backendId}"`;
  switch (level) {
    case 'high':
      logger.warn(fields, `Local ports ${pair} are running out: ${used} in use of ${available}`);
      break;
    case 'exhausted':
      logger.error(fields, `No local port is left ${pair}: ${used} in use of ${available}`);
      break;
    case 'normal':
      logger.info(fields, `Local ports ${pair} are plenty again: ${used} in use of ${available}`);
      break;
  }
}

/** A full table of conntrack drops new flows without a word to anybody. */
export function logTablePressure(logger: Logger, { level, used, limit }: TablePressure): void {
  const fields = { event: 'table-pressure', level, used, limit };
  const use = `${used} of ${limit} entries are in use`;
  switch (level) {
    case 'high':
      logger.warn(
        fields,
        `The table of conntrack is filling up: ${use}. net.netfilter.nf_conntrack_max sets its size`,
      );
      break;
    case 'exhausted':
      logger.error(
        fields,
        `The table of conntrack is full, new flows fail: ${use}. net.netfilter.nf_conntrack_max sets its size`,
      );
      break;
    case 'normal':
      logger.info(fields, `The table of conntrack has room again: ${use}`);
      break;
  }
}

export function logWorkerLost(logger: Logger, event: WorkerLost): void {
  const { worker, evidence, flowsLost } = event;
  logger.error(
    { event: 'worker-lost', worker, evidence, flowsLost },
    `Data worker ${worker} died (${evidence}) with ${flowsLost} flows and is being replaced`,
  );
}

export function logListeningChanged(logger: Logger, event: ListeningChanged, entry: TrafficEntry): void {
  const { worker, listeners, failures } = event;
  const { tcp, udp } = listeners;
  const rest = failures === 0 ? 'none is missing' : `${failures} still cannot be bound`;
  logger.info(
    { event: 'listening-changed', worker, listeners: { tcp, udp }, failures },
    `Now ${listeningWords(entry, listeners)}, ${rest}`,
  );
}

/** What became of what the plane keeps in the kernel. */
export function logKernelChanged(logger: Logger, { change, evidence, report }: KernelChanged): void {
  const { table, mode, why } = report;
  const fields = { event: `kernel-${change}`, table, mode, evidence };
  const because = evidence === undefined ? '' : `: ${evidence}`;
  switch (change) {
    case 'installed':
      logger.info({ ...fields, why }, `Table ${table} is in the kernel: ${mode}. ${why}`);
      break;
    case 'repaired':
      logger.warn(fields, `Table ${table} was put right in the kernel${because}`);
      break;
    case 'failed':
      logger.error(fields, `Table ${table} cannot be put in the kernel${because}`);
      break;
    case 'removed':
      logger.info(fields, `Table ${table} was taken out of the kernel`);
      break;
  }
}

/** What it took to listen. */
export interface ListeningCost {
  readonly listeners: Readonly<Record<Protocol, number>>;
  readonly entry: TrafficEntry;
  readonly durationMs: number;
  readonly workers: number;
  readonly tcpPorts: TcpPorts;
  /** Of all processes; absent: not known. */
  readonly memory?: { readonly processes: number; readonly bytes: number } | undefined;
}

export function logListening(logger: Logger, cost: ListeningCost): void {
  const { listeners, entry, durationMs, workers, tcpPorts, memory } = cost;
  const seconds = Math.round(durationMs / 10) / 100;
  const { tcp, udp } = listeners;
  const fields = {
    event: 'listening',
    listeners: { tcp, udp },
    seconds,
    ...(workers > 1 ? { tcpPorts } : {}),
    ...(memory === undefined ? {} : { processes: memory.processes, residentBytes: memory.bytes }),
  };
  const forms = { shared: 'all workers share each TCP port', owned: 'each TCP port belongs to one worker' };
  const parts = [
    `${listeningSentence(entry, listeners)}${entry === 'captured' ? ',' : ''} after ${seconds} s`,
    ...(memory === undefined
      ? []
      : [
          `${mebibytes(memory.bytes)} MiB resident in ${memory.processes} ${memory.processes === 1 ? 'process' : 'processes'}`,
        ]),
    ...(workers > 1 ? [forms[tcpPorts]] : []),
  ];
  logger.info(fields, parts.join(', '));
}

/** `advice` says what is wrong and what helps. */
export function logDescriptorShortage(
  logger: Logger,
  shortage: { readonly limit: number; readonly needed: number; readonly workers?: number },
  advice: string,
): void {
  const { limit, needed, workers } = shortage;
  const fields = { event: 'descriptors-short', limit, needed, ...(workers === undefined ? {} : { workers }) };
  logger.error(fields, `Not all ports can be listened on: ${advice}`);
}

function mebibytes(bytes: number): number {
  return Math.round(bytes / 1024 / 1024);
}

/** The log lines of an upgrade, as the old process writes them. */
export function logUpgrade(logger: Logger, event: UpgradeStarted | UpgradeReady | UpgradeFailed): void {
  switch (event.type) {
    case 'upgrade-started':
      logger.info({ event: event.type, pid: event.pid }, `Upgrading: process ${event.pid} was started`);
      break;
    case 'upgrade-ready': {
      const { pid, version, sockets, udpFlows, durationMs, udpPauseMs } = event.outcome;
      logger.info(
        { event: event.type, pid, version, sockets, udpFlows, durationMs, udpPauseMs },
        `Upgraded: haports ${version} serves as process ${pid} with ${sockets} sockets and ${udpFlows} UDP flows from here, after ${Math.round(durationMs)} ms`,
      );
      break;
    }
    case 'upgrade-failed': {
      const { error } = event;
      const fields = { event: event.type, code: errorCode(error), error: errorMessage(error) };
      logger.error(fields, `Cannot upgrade: ${errorMessage(error)}; this process goes on as before`);
      break;
    }
  }
}

/** Deeper than any field of a log line; what is below is left out. */
const MAX_DEPTH = 6;

/** A copy that JSON can hold: addresses and errors as text, no functions, no cycles. */
export function plainFields(fields: object): Record<string, unknown> {
  return plainObject(fields, MAX_DEPTH);
}

function plainObject(value: object, depth: number): Record<string, unknown> {
  const entries: [string, unknown][] = [];
  for (const [key, member] of Object.entries(value) as [string, unknown][]) {
    const plain = plainValue(member, depth - 1);
    if (plain !== undefined) entries.push([key, plain]);
  }
  return Object.fromEntries(entries);
}

function plainValue(value: unknown, depth: number): unknown {
  switch (typeof value) {
    case 'string':
    case 'number':
    case 'boolean':
      return value;
    case 'bigint':
      return value.toString();
    case 'undefined':
    case 'function':
    case 'symbol':
      return undefined;
    case 'object': {
      if (value === null) return null;
      if (value instanceof Error) return errorMessage(value);
      if (isAddress(value)) return value.text;
      if (depth <= 0) return undefined;
      if (Array.isArray(value)) return value.map((member) => plainValue(member, depth - 1) ?? null);
      return plainObject(value, depth);
    }
  }
}

function isAddress(value: object): value is { readonly text: string } {
  return 'family' in value && 'bytes' in value && 'text' in value && typeof value.text === 'string';
}

/** Ports of one rule, protocol and address that failed alike. */
export interface ListenFailureGroup {
  readonly rule: string;
  readonly protocol: string;
  readonly address: string;
  readonly errorCode: string;
  readonly count: number;
  /** As a port set, cut after 20 ranges. */
  readonly ports: string;
}

/** A line that lists thousands of scattered ports helps nobody. */
const MAX_RANGES = 20;

/** Puts the failures of one apply together, so that 1,023 privileged ports are one entry and not 1,023. */
export function groupListenFailures(failures: AppliedReport['failures']): readonly ListenFailureGroup[] {
  const groups = new Map<
    string,
    { readonly first: AppliedReport['failures'][number]; readonly ports: number[] }
  >();
  for (const failure of failures) {
    const key = [failure.rule, failure.protocol, failure.address, failure.errorCode].join(' ');
    const group = groups.get(key);
    if (group === undefined) groups.set(key, { first: failure, ports: [failure.port] });
    else group.ports.push(failure.port);
  }
  return [...groups.values()].map(({ first, ports }) => ({
    rule: first.rule,
    protocol: first.protocol,
    address: first.address,
    errorCode: first.errorCode,
    count: ports.length,
    ports: formatPorts(ports),
  }));
}

function formatPorts(ports: readonly number[]): string {
  const ranges = portSetOf(...ports);
  const text = formatPortSet(ranges.slice(0, MAX_RANGES));
  return ranges.length > MAX_RANGES ? `${text} and ${ranges.length - MAX_RANGES} more ranges` : text;
}

/**
 * How packets reach a plane: a socket a port; a few sockets to which nftables steers captured ports; or no socket, since
 * the kernel forwards them by itself.
 */
export type TrafficEntry = 'port-sockets' | 'captured' | 'kernel';

/** What `listeners` of a plane's report count, in words that can follow a colon. */
export function listeningWords(
  entry: TrafficEntry,
  { tcp, udp }: Readonly<Record<Protocol, number>>,
): string {
  switch (entry) {
    case 'port-sockets':
      return `listening on ${tcp} TCP and ${udp} UDP ports`;
    case 'captured':
      return `listening on ${tcp} TCP and ${udp} UDP sockets, which get all captured ports`;
    case 'kernel':
      return `the kernel forwards TCP of ${frontends(tcp)} and UDP of ${frontends(udp)}`;
  }
}

/** The same at the beginning of a sentence. */
export function listeningSentence(
  entry: TrafficEntry,
  listeners: Readonly<Record<Protocol, number>>,
): string {
  const words = listeningWords(entry, listeners);
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function frontends(count: number): string {
  return count === 1 ? '1 frontend' : `${count} frontends`;
}

interface Tally {
  count: number;
  evidence: string;
}

/**
 * Passive failures come as fast as clients do. Each is a debug line; the first of a quiet time is an info line at
 * once, the ones after it are summed up by backend, one info line a backend and interval.
 */
export class PassiveFailureLog {
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #intervalMs: number;
  /** A backend stays as long as its last interval had failures, so this is bounded by the backends there are. */
  readonly #tallies = new Map<string, Tally>();
  #cancelTimer: (() => void) | undefined;

  constructor(deps: { readonly logger: Logger; readonly clock: Clock }, intervalMs: number) {
    this.#logger = deps.logger;
    this.#clock = deps.clock;
    this.#intervalMs = intervalMs;
  }

  observe(failure: PassiveFailure): void {
    const { backendId, evidence } = failure;
    this.#logger.debug(
      { event: 'passive-failure', backendId, evidence },
      'Traffic could not reach a backend',
    );
    const tally = this.#tallies.get(backendId);
    if (tally === undefined) {
      this.#tallies.set(backendId, { count: 0, evidence });
      this.#logger.info(
        { event: 'passive-failures', backendId, evidence, count: 1 },
        `Traffic could not reach backend "${backendId}": ${evidence}`,
      );
    } else {
      tally.count++;
      tally.evidence = evidence;
    }
    this.#cancelTimer ??= this.#clock.setTimer(this.#intervalMs, () => this.#intervalOver(), { unref: true });
  }

  stop(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#summarise();
    this.#tallies.clear();
  }

  #intervalOver(): void {
    this.#cancelTimer = undefined;
    this.#summarise();
    if (this.#tallies.size === 0) return;
    this.#cancelTimer = this.#clock.setTimer(this.#intervalMs, () => this.#intervalOver(), { unref: true });
  }

  #summarise(): void {
    for (const [backendId, tally] of this.#tallies) {
      if (tally.count === 0) {
        this.#tallies.delete(backendId);
        continue;
      }
      const { count, evidence } = tally;
      tally.count = 0;
      this.#logger.info(
        { event: 'passive-failures', backendId, evidence, count, intervalMs: this.#intervalMs },
        `Traffic could not reach backend "${backendId}" ${count} more times, last: ${evidence}`,
      );
    }
  }
}

export interface EventLogDependencies {
  readonly logger: Logger;
  readonly clock: Clock;
}

export interface EventLogOptions {
  /** How often passive failures are summed up at info. @default 10000 */
  readonly summaryIntervalMs?: number;
  /** @default 'port-sockets' */
  readonly entry?: TrafficEntry;
}

/**
 * Turns facts into log lines. Each line has a stable `event` field to search for. Flow events are not logged here:
 * they belong in the flow log.
 */
export class EventLog {
  readonly #logger: Logger;
  readonly #entry: TrafficEntry;
  readonly #passiveFailures: PassiveFailureLog;
  /** Pool views that nobody serves, by `pool|probe`, so that a recovery can be told from a first serving. */
  readonly #downPools = new Set<string>();
  /** Of the last revision, as grouped for its line. */
  #listenFailures = '';

  constructor(deps: EventLogDependencies, options: EventLogOptions = {}) {
    this.#logger = deps.logger;
    this.#entry = options.entry ?? 'port-sockets';
    this.#passiveFailures = new PassiveFailureLog(deps, options.summaryIntervalMs ?? 10_000);
  }

  control(event: ControlEvent): void {
    logControlEvent(this.#logger, event, {
      poolWasDown: event.type === 'pool-serving-changed' && this.#wasDown(event),
      entry: this.#entry,
      failuresAreNew: event.type === 'applied' && this.#areNew(event.report.failures),
    });
  }

  plane(events: readonly PlaneEvent[]): void {
    for (const event of events) this.#planeEvent(event);
  }

  /** Writes what is still summed up. */
  stop(): void {
    this.#passiveFailures.stop();
  }

  #wasDown({ pool, probe, eligible }: PoolServingChanged): boolean {
    const key = `${pool}|${probe ?? ''}`;
    const wasDown = this.#downPools.has(key);
    if (eligible === 0) this.#downPools.add(key);
    else this.#downPools.delete(key);
    return wasDown;
  }

  /** Every revision brings the failures along; they are news once. */
  #areNew(failures: AppliedReport['failures']): boolean {
    const groups = JSON.stringify(groupListenFailures(failures));
    const areNew = groups !== this.#listenFailures;
    this.#listenFailures = groups;
    return areNew;
  }

  #planeEvent(event: PlaneEvent): void {
    switch (event.type) {
      case 'passive-failure':
        this.#passiveFailures.observe(event);
        break;
      case 'overload':
        logOverload(this.#logger, event);
        break;
      case 'source-port-pressure':
        logSourcePortPressure(this.#logger, event);
        break;
      case 'table-pressure':
        logTablePressure(this.#logger, event);
        break;
      case 'listening-changed':
        logListeningChanged(this.#logger, event, this.#entry);
        break;
      case 'kernel-changed':
        logKernelChanged(this.#logger, event);
        break;
      case 'worker-lost':
        logWorkerLost(this.#logger, event);
        break;
      case 'flow-started':
      case 'flow-ended':
      case 'flow-moved':
        break;
    }
  }
}
