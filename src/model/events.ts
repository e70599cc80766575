import type { Protocol } from './address.js';
import type { AdminState, Configuration, HealthTransition, LocalCause } from './configuration.js';
import { formatDuration } from './duration.js';
import { errorCode, errorMessage } from './errors.js';
import type { FlowEndReason, FlowRecord } from './flow.js';
import type { DrainRequest } from './forwarding.js';

/** Why a connection or datagram got no flow or was thrown away. Label values of one metric: keep them few. */
export const DROP_REASONS = [
  'denied',
  'no-backend',
  'backends-full',
  'table-full',
  'embryonic-full',
  'source-cap',
  'own-listener',
  'bad-proxy-header',
  'descriptors-exhausted',
  'ports-exhausted',
  'send-failed',
  'blackholed',
  'unexpected-reply',
  'unknown-origin',
  'stopping',
] as const;

export type DropReason = (typeof DROP_REASONS)[number];

/**
 * How packets reach a plane: through a socket for each port; through a few sockets to which nftables steers captured
 * ports; or through no socket, since the kernel forwards them by itself.
 */
export type IngressMode = 'port-sockets' | 'captured' | 'kernel';

/**
 * How what this process keeps in the kernel stands. `in-place`: as it should be, when last looked. `failing`: it could
 * not be put in place, which is tried again. `absent`: not put in place yet, or taken away at the end.
 */
export type KernelState = 'in-place' | 'failing' | 'absent';

/** What a plane keeps in the kernel. Plain data. */
export interface KernelReport {
  /** `inet haports`. */
  readonly table: string;
  /** `capture, udp redirect`, and why that was chosen. */
  readonly mode: string;
  readonly why: string;
  readonly state: KernelState;
  /** Milliseconds since the epoch: since when it is in that state. */
  readonly sinceMs: number;
  /** Times that it was found lost or altered, and put right. */
  readonly repairs: number;
  /** Transactions that failed. */
  readonly failures: number;
  /** The text of the last failure, as the tool wrote it. */
  readonly lastFailure?: { readonly atMs: number; readonly text: string };
  /** `nftables v1.0.6 (Lester Gooch #5)`. */
  readonly tool: string;
}

export type EventLevel = 'debug' | 'info' | 'warn' | 'error';

/** How much of something that can run out is in use. */
export type Pressure = 'high' | 'exhausted' | 'normal';

const PRESSURE_LEVEL: Readonly<Record<Pressure, EventLevel>> = {
  ...{ high: 'warn', exhausted: 'error', normal: 'info' },
};

/** How an event of one type reads, in the log and in the event stream. */
interface Description<E> {
  readonly level: EventLevel | ((event: E) => EventLevel);
  /** The name that the line goes by. @default the type */
  readonly name?: (event: E) => string;
  /** What is undefined is left out. @default the event's members, without `type` and `atMs` */
  readonly fields?: (event: E) => object;
  /** One sentence for people, without a full stop. */
  readonly text: (event: E, ingress: IngressMode) => string;
}

/** Without a description other parts act on it, but it has no line. */
function event<E>(description?: Description<E>): Description<E> | undefined {
  return description;
}

/** What names a backend in an event. */
interface Member {
  readonly pool: string;
  readonly backendId: string;
  readonly backendName: string;
}

/** A port that could not be listened on. */
export interface ListenFailure {
  readonly rule: string;
  readonly protocol: Protocol;
  readonly address: string;
  readonly port: number;
  /** `EADDRINUSE`, `EACCES`, `EADDRNOTAVAIL`, `EMFILE` ... */
  readonly errorCode: string;
}

/** Ports of one rule, protocol and address that failed alike. */
export interface ListenFailureGroup extends Omit<ListenFailure, 'port'> {
  readonly count: number;
  /** As a port set, cut after 20 ranges. */
  readonly ports: string;
}

/** What a data plane answered to an apply. */
export interface AppliedReport {
  readonly revision: number;
  /** Open after the apply. */
  readonly listeners: Readonly<Record<Protocol, number>>;
  readonly failures: readonly ListenFailure[];
}

/** What is said of a drain. */
export interface Drained extends DrainRequest, Member {
  readonly flowsAtStart: number;
  /** Live flows now. */
  readonly flows: Readonly<Record<Protocol, number>>;
}

/** What is said of a reload. */
export interface Reloaded {
  readonly revision: number;
  readonly digest: string;
  readonly durationMs: number;
  readonly plan: {
    /** Share of the hash space, 0 to 1. */
    readonly movedShare: number;
    readonly backends: Readonly<Record<'added' | 'removed' | 'changed', readonly unknown[]>>;
  };
  readonly kept: Readonly<Record<'flows' | 'listeners', number>>;
  readonly lost: Readonly<Record<'flows' | 'listeners', number>>;
}

/** The outcome of an upgrade. Plain data. */
export interface UpgradeOutcome {
  /** Of the new control process. */
  readonly pid: number;
  /** Of haports, in the new process. */
  readonly version: string;
  /** Listening sockets handed over, TCP and UDP. */
  readonly sockets: number;
  /** UDP flows handed over. */
  readonly udpFlows: number;
  /** From the start of the new process until it served. */
  readonly durationMs: number;
  /** How long datagrams of clients waited in the sockets meanwhile. */
  readonly udpPauseMs: number;
}

/** Azure's names (LoadBalancerHealthEvent), and those of the probe-truth monitor. */
export type HealthEventName =
  | 'DataPathAvailabilityWarning'
  | 'DataPathAvailabilityCritical'
  | 'NoHealthyBackends'
  | 'HighSnatPortUsage'
  | 'SnatPortExhaustion'
  | 'ProbeUpTrafficFailing'
  | 'ProbeDownTrafficFine';

const KERNEL_KEEPS = 'the kernel keeps forwarding with the rules it has';

/** Findings of a configuration that cannot be used; `haports check` prints the others. */
const MAX_FINDINGS = 20;

/** What a data plane tells, in batches. Flow events only if asked for. */
const PLANE_EVENTS = {
  'flow-started': event<{ atMs: number; flow: FlowRecord }>(),

  'flow-ended': event<{ atMs: number; flow: FlowRecord; end: FlowEndReason }>(),

  /** `flow` is how it stands after the move. */
  'flow-moved': event<{ atMs: number; flow: FlowRecord; fromBackendId: string }>(),

  /**
   * Traffic found a backend unreachable. Speeds up its next probe; never ejects by itself. `evidence`: `ECONNREFUSED`,
   * `connect timeout`, `ICMP unreachable`.
   */
  'passive-failure': event<{ atMs: number; backendId: string; evidence: string }>({
    level: 'debug',
    text: () => 'Traffic could not reach a backend',
  }),

  /** A backend refused one of the many ports forwarded to it, where it had not answered before. Speeds up its next probe. */
  'port-refused': event<{ atMs: number; backendId: string }>({
    level: 'debug',
    text: () => 'A backend refused a port that had not been open before',
  }),

  /** A budget was exceeded (`started`), or has had room again for a second (`ended`). */
  overload: event<{ atMs: number; phase: 'started' | 'ended'; reason: DropReason }>({
    level: ({ phase }) => (phase === 'started' ? 'warn' : 'info'),
    name: ({ phase }) => `overload-${phase}`,
    fields: ({ reason }) => ({ reason }),
    text: ({ phase, reason }) =>
      `Overload ${phase}${phase === 'started' ? overloadEffect(reason) : ''} (${reason})`,
  }),

  /** Local ports of a (source address, backend) pair: 75 % in use, or none left. */
  'source-port-pressure': event<{
    atMs: number;
    backendId: string;
    sourceAddress: string;
    pressure: Pressure;
    used: number;
    available: number;
  }>({
    level: ({ pressure }) => PRESSURE_LEVEL[pressure],
    text({ pressure, backendId, sourceAddress, used, available }) {
      const pair = `from ${sourceAddress} to backend "${backendId}"`;
      const found = {
        high: `Source ports ${pair} are running out`,
        exhausted: `No source port is left ${pair}`,
        normal: `Source port usage ${pair} is back to normal`,
      };
      return `${found[pressure]}: ${used} of ${available} are in use`;
    },
  }),

  /** The kernel's connection tracking, flows of other programs included: 75 % in use, full, or below 70 % again. */
  'table-pressure': event<{ atMs: number; pressure: Pressure; used: number; limit: number }>({
    level: ({ pressure }) => PRESSURE_LEVEL[pressure],
    text({ pressure, used, limit }) {
      const found = { high: 'is filling up', exhausted: 'is full, new flows fail', normal: 'has room again' };
      const advice = pressure === 'normal' ? '' : '. Raise net.netfilter.nf_conntrack_max';
      return `Connection tracking ${found[pressure]}: ${used} of ${limit} entries are in use${advice}`;
    },
  }),

  /** Ports that could not be bound at first were tried again, and their number changed. */
  'listening-changed': event<{
    atMs: number;
    worker: number;
    /** Sockets open now. */
    listeners: Readonly<Record<Protocol, number>>;
    /** Sockets that still cannot be opened. */
    failures: number;
  }>({
    level: 'info',
    text({ listeners, failures }, ingress) {
      const rest = failures === 0 ? 'all are bound' : `${failures} still cannot be bound`;
      return `Now ${listeningWords(ingress, listeners)}; ${rest}`;
    },
  }),

  /** What the plane keeps in the kernel was installed, found lost or altered and repaired, or could not be. */
  'kernel-changed': event<{
    atMs: number;
    change: 'installed' | 'repaired' | 'failed' | 'removed';
    /** What was wrong, or why it failed. */
    evidence?: string | undefined;
    report: KernelReport;
  }>({
    level: ({ change }) =>
      (({ installed: 'info', repaired: 'warn', failed: 'error', removed: 'info' }) as const)[change],
    name: ({ change }) => `kernel-${change}`,
    fields: ({ change, evidence, report: { table, mode, why } }) => ({
      ...{ table, mode, evidence },
      why: change === 'installed' ? why : undefined,
    }),
    text({ change, evidence, report: { table, mode, why } }) {
      if (change === 'installed') return `Installed table ${table} in the kernel: ${mode}. ${why}`;
      if (change === 'removed') return `Removed table ${table} from the kernel`;
      const what = change === 'repaired' ? 'Repaired' : 'Cannot install';
      return `${what} table ${table} in the kernel${evidence === undefined ? '' : `: ${evidence}`}`;
    },
  }),

  /** A data worker died; its flows are gone. It is being replaced. */
  'worker-lost': event<{ atMs: number; worker: number; evidence: string; flowsLost: number }>({
    level: 'error',
    text: ({ worker, evidence, flowsLost }) =>
      `Data worker ${worker} died (${evidence}) with ${plural(flowsLost, 'flow')} and is being replaced`,
  }),
};

/** What the rest of the process tells. */
const CONTROL_EVENTS = {
  /** `workers`: data workers; 0: all in one process. */
  starting: event<{ version: string; workers: number }>({
    level: 'info',
    text: ({ version }) => `haports ${version} is starting`,
  }),

  /** A configuration was read and is about to be used. */
  'config-loaded': event<{
    configuration: Configuration;
    /** Where it came from: a path. */
    source: string;
    /** How many warnings and notes it gave rise to. */
    findings: number;
  }>({
    level: 'info',
    fields: ({ configuration: { digest, frontends, rules, backendPools }, source, findings }) => ({
      ...{ source, digest, findings },
      frontends: frontends.length,
      rules: rules.length,
      pools: backendPools.length,
      backends: backendPools.reduce((sum, pool) => sum + pool.backends.length, 0),
    }),
    text: ({ configuration, source }) =>
      `Loaded configuration "${source}", digest ${configuration.digest.slice(0, 12)}`,
  }),

  /** Not all ports can be listened on. `advice` says what is wrong and what helps. */
  'descriptors-short': event<{ limit: number; needed: number; workers?: number | undefined; advice: string }>(
    {
      level: 'error',
      fields: ({ limit, needed, workers }) => ({ limit, needed, workers }),
      text: ({ advice }) => `Cannot listen on all ports: ${advice}`,
    },
  ),

  /** `limits` allows more flows than there are descriptors for. `advice` says how many there are, and what helps. */
  'flows-limited': event<{
    limit: number;
    needed: number;
    tcpFlows: number;
    udpFlows: number;
    advice: string;
  }>({
    level: 'warn',
    fields: ({ limit, needed, tcpFlows, udpFlows }) => ({ limit, needed, tcpFlows, udpFlows }),
    text: ({ advice }) => `Descriptors do not suffice for all flows: ${advice}`,
  }),

  /** The start is over: what is listened on, and at what cost. */
  listening: event<{
    listeners: Readonly<Record<Protocol, number>>;
    durationMs: number;
    workers: number;
    /** Whether all workers share each TCP port, or each belongs to one. */
    tcpPorts: 'shared' | 'owned';
    /** Of all processes; absent: not known. */
    memory?: { readonly processes: number; readonly bytes: number } | undefined;
  }>({
    level: 'info',
    fields: ({ listeners, durationMs, workers, tcpPorts, memory }) => ({
      listeners,
      seconds: hundredths(durationMs),
      tcpPorts: workers > 1 ? tcpPorts : undefined,
      processes: memory?.processes,
      residentBytes: memory?.bytes,
    }),
    text({ listeners, durationMs, workers, tcpPorts, memory }, ingress) {
      const ports = {
        shared: 'all workers share each TCP port',
        owned: 'each TCP port belongs to one worker',
      };
      const comma = ingress === 'captured' ? ',' : '';
      const parts = [`${listeningSentence(ingress, listeners)}${comma} after ${hundredths(durationMs)} s`];
      if (memory !== undefined) {
        const { bytes, processes } = memory;
        const mebibytes = Math.round(bytes / 1024 / 1024);
        parts.push(`${mebibytes} MiB resident in ${processes} ${processes === 1 ? 'process' : 'processes'}`);
      }
      if (workers > 1) parts.push(ports[tcpPorts]);
      return parts.join(', ');
    },
  }),

  /** `capture.fallback` says to bind. */
  'capture-impossible': event<{ error: unknown }>({
    level: 'warn',
    fields: ({ error }) => ({ code: errorCode(error) }),
    text: ({ error }) => `Cannot capture ports, binding each one instead: ${errorMessage(error)}`,
  }),

  /** Something about the machine that the kernel plane can live with. */
  'kernel-machine': event<{ warning: string }>({
    level: 'warn',
    fields: () => ({}),
    text: ({ warning }) => warning,
  }),

  'health-changed': event<Member & { probe: string; transition: HealthTransition }>({
    level: ({ transition: { to } }) => (to === 'up' ? 'info' : 'warn'),
    fields: ({ pool, backendId, backendName, probe, transition: { from, to, evidence, atMs } }) => ({
      ...{ pool, backendId, backendName, probe, from, to, evidence, atMs },
    }),
    text: ({ pool, backendName, probe, transition: { to, evidence } }) =>
      `Probe "${probe}" finds backend "${backendName}" in pool "${pool}" ${to}: ${evidence}`,
  }),

  /**
   * Probes cannot leave this machine, for a cause of its own, so that backends keep the state they have; or they can
   * again. Once for each cause. `evidence`: of the first one. `probes`: how many could not.
   */
  'probes-hindered': event<
    | { phase: 'started'; cause: LocalCause; evidence: string }
    | { phase: 'ended'; cause: LocalCause; probes: number }
  >({
    level: ({ phase }) => (phase === 'started' ? 'error' : 'info'),
    name: ({ phase }) => `probes-hindered-${phase}`,
    fields: (told) => ({ ...told, type: undefined, phase: undefined }),
    text: (told) =>
      told.phase === 'started'
        ? `Probes cannot leave this machine: ${told.evidence}. Backends keep the state they have`
        : `Probes can leave this machine again (${told.cause}); ${plural(told.probes, 'probe')} could not`,
  }),

  'admin-changed': event<Member & { from: AdminState; to: AdminState }>({
    level: 'info',
    text: ({ pool, backendName, from, to }) =>
      `Admin state of backend "${backendName}" in pool "${pool}" changed from ${from} to ${to}`,
  }),

  /** `configured`: the weight of the configuration or of the probe's header. */
  'weight-changed': event<Member & { from: number | 'configured'; to: number | 'configured' }>({
    level: 'info',
    text: ({ pool, backendName, from, to }) =>
      `Weight of backend "${backendName}" in pool "${pool}" changed from ${from} to ${to}`,
  }),

  /** `started` by an operator; `deadline` passed with flows left; `finished`, since no flow is left; or `cancelled`. */
  'drain-changed': event<{ phase: 'started' | 'deadline' | 'finished' | 'cancelled'; drain: Drained }>({
    level: ({ phase }) => (phase === 'deadline' ? 'warn' : 'info'),
    fields: ({ phase, drain }) => {
      const { pool, backendId, backendName, deadlineMs, then, spreadMs, flowsAtStart, flows } = drain;
      return { phase, pool, backendId, backendName, deadlineMs, then, spreadMs, flowsAtStart, flows };
    },
    text({ phase, drain: { pool, backendName, deadlineMs, then, spreadMs, flowsAtStart, flows } }) {
      const backend = `backend "${backendName}" in pool "${pool}"`;
      const left = flows.tcp + flows.udp;
      const fate = then === 'leave' ? 'leaving them alone' : `ending them over ${formatDuration(spreadMs)}`;
      return {
        started: `Draining ${backend}: ${plural(left, 'flow')}, ${formatDuration(deadlineMs)} to finish`,
        deadline: `The drain deadline of ${backend} has passed with ${plural(left, 'flow')} left: ${fate}`,
        finished: `Drained ${backend}: all ${plural(flowsAtStart, 'flow')} finished`,
        cancelled: `Cancelled the drain of ${backend} with ${plural(left, 'flow')} left`,
      }[phase];
    },
  }),

  /** The set of backends that serve a pool view changed. Down: Azure's NoHealthyBackends. */
  'pool-serving-changed': event<{
    pool: string;
    /** Absent: the view of rules without a probe. */
    probe?: string | undefined;
    /** Absent while no backend serves. */
    servingPriority?: number | undefined;
    /** 0: there are no new flows. */
    eligible: number;
    total: number;
    /** None was eligible before. */
    wasDown?: boolean;
  }>({
    level: ({ eligible }) => (eligible === 0 ? 'error' : 'info'),
    name: ({ eligible, wasDown }) =>
      eligible === 0 ? 'pool-down' : wasDown ? 'pool-recovered' : 'pool-serving',
    fields: ({ pool, probe, servingPriority, eligible, total }) => ({
      ...{ pool, probe, servingPriority, eligible, total },
    }),
    text({ pool, eligible, total, servingPriority, wasDown }) {
      if (eligible === 0) return `No backend of pool "${pool}" is eligible (0 of ${total})`;
      const priority = servingPriority === undefined ? '' : `, priority ${servingPriority} serves`;
      const recovered = wasDown ? ' has recovered' : '';
      return `Pool "${pool}"${recovered}: ${eligible} of ${total} backends are eligible${priority}`;
    },
  }),

  applied: event<{ digest: string; report: AppliedReport }>({
    level: 'info',
    fields({ digest, report: { revision, listeners, failures } }) {
      return { revision, digest, listeners, failures: failures.length };
    },
    text: ({ report: { revision, listeners } }, ingress) =>
      `Applied revision ${revision}: ${listeningWords(ingress, listeners)}`,
  }),

  /** Told once, and again when the failures change. */
  'listen-failed': event<{ report: AppliedReport; failures: readonly ListenFailureGroup[] }>({
    level: 'warn',
    fields: ({ report: { revision }, failures }) => ({ revision, failures }),
    text({ report: { listeners, failures }, failures: [first] }, ingress) {
      const example =
        first === undefined ? '' : `, first ${first.protocol} ${first.ports} (${first.errorCode})`;
      // Captured ports have no sockets that could be counted.
      if (ingress !== 'captured') {
        const all = failures.length + listeners.tcp + listeners.udp;
        return `Cannot listen on ${failures.length} of ${all} ports${example}`;
      }
      return `Cannot listen on ${plural(failures.length, 'port')}${example}`;
    },
  }),

  /** A revision was refused; the one before it stays in force. */
  'apply-failed': event<{ revision: number; error: unknown }>({
    level: 'error',
    fields: ({ revision, error }) => ({ revision, ...errorFields(error) }),
    text: ({ revision, error }) => `Cannot apply revision ${revision}: ${errorMessage(error)}`,
  }),

  /** `cause`: `admin API`, `SIGHUP`, `file watch`. */
  reloaded: event<{ cause: string; report: Reloaded }>({
    level: 'info',
    fields({ cause, report: { revision, digest, durationMs, kept, lost, plan } }) {
      const { added, removed, changed } = plan.backends;
      const backends = { added: added.length, removed: removed.length, changed: changed.length };
      return { cause, revision, digest, durationMs, kept, lost, movedShare: plan.movedShare, backends };
    },
    text: ({ cause, report: { digest, kept, lost } }) =>
      `Reloaded by ${cause}, digest ${digest.slice(0, 12)}: kept ${flowsAndListeners(kept)}, lost ${flowsAndListeners(lost)}`,
  }),

  /** Tells what is wrong with the configuration where the error does: after a SIGHUP, the log is the only answer. */
  'reload-failed': event<{ cause: string; error: unknown }>({
    level: 'error',
    fields({ cause, error }) {
      const known = error instanceof Error && 'findings' in error ? error.findings : undefined;
      const findings: unknown[] = Array.isArray(known) ? known : [];
      return {
        ...{ cause, ...errorFields(error) },
        findings: findings.length > 0 ? findings.slice(0, MAX_FINDINGS) : undefined,
        moreFindings: findings.length > MAX_FINDINGS ? findings.length - MAX_FINDINGS : undefined,
      };
    },
    text: ({ cause, error }) =>
      `Cannot reload by ${cause}; the previous configuration stays active: ${errorMessage(error)}`,
  }),

  /** Azure's LoadBalancerHealthEvent, and haports' own in the same form: docs/health-events.md. */
  'health-event': event<{
    name: HealthEventName;
    severity: 'warning' | 'critical';
    /** `resolved`: what was told before is over. */
    phase: 'raised' | 'again' | 'resolved';
    /** A frontend, pool, rule or backend id. */
    subject: string;
    /** For people: what was measured, and against what. */
    evidence: string;
    atMs: number;
  }>({
    level: ({ phase }) => (phase === 'resolved' ? 'info' : 'warn'),
    fields: (event) => ({ ...event, type: undefined }),
    text: ({ name, phase, subject, evidence }) =>
      `${name} of "${subject}"${{ raised: '', again: ' continues', resolved: ' resolved' }[phase]}: ${evidence}`,
  }),

  /** Passive failures come as fast as clients do: the first at once, then a sum for each backend and interval. */
  'passive-failures': event<{
    backendId: string;
    /** Of the last one. */
    evidence: string;
    count: number;
    /** Absent: the first one. */
    intervalMs?: number | undefined;
  }>({
    level: 'info',
    text: ({ backendId, evidence, count, intervalMs }) =>
      intervalMs === undefined
        ? `Traffic could not reach backend "${backendId}": ${evidence}`
        : `Traffic could not reach backend "${backendId}" ${plural(count, 'more time')}, last: ${evidence}`,
  }),

  /** Another process was started, to take this one's place. `pid` 0: it could not be started. */
  'upgrade-started': event<{ pid: number }>({
    level: 'info',
    // `pid` of a line is the process that writes it.
    fields: ({ pid }) => ({ newPid: pid }),
    text: ({ pid }) => `Upgrading: started process ${pid}`,
  }),

  /** The new process serves; this one only lets its TCP flows finish. */
  'upgrade-ready': event<{ outcome: UpgradeOutcome }>({
    level: 'info',
    fields: ({ outcome: { pid, ...outcome } }) => ({ newPid: pid, ...outcome }),
    text: ({ outcome: { pid, version, sockets, udpFlows, durationMs } }) =>
      `Upgraded to haports ${version}: pid ${pid} took over ${plural(sockets, 'socket')} and ${plural(udpFlows, 'UDP flow')} after ${Math.round(durationMs)} ms`,
  }),

  'upgrade-failed': event<{ error: unknown }>({
    level: 'error',
    fields: ({ error }) => errorFields(error),
    text: ({ error }) => `Cannot upgrade: ${errorMessage(error)}; this process keeps serving`,
  }),

  /** An upgrade was asked for when there can be none. */
  'upgrade-refused': event<{ error: unknown }>({
    level: 'warn',
    fields: ({ error }) => ({ code: errorCode(error) }),
    text: ({ error }) => errorMessage(error),
  }),

  stopping: event<{
    /** `SIGTERM`, `SIGINT`, or what else asked. */
    cause: string;
    deadlineMs: number;
    /** The rules stay in the kernel. */
    keptInKernel?: true | undefined;
  }>({
    level: 'info',
    fields: ({ cause, deadlineMs }) => ({ cause, deadlineMs }),
    text: ({ cause, deadlineMs, keptInKernel }) =>
      `Stopping on ${cause}: ${keptInKernel ? KERNEL_KEEPS : `flows have ${formatDuration(deadlineMs)} to finish`}`,
  }),

  stopped: event<{
    /** A plane's StopReport is one. */
    report: { readonly finished: number; readonly reset: number };
    /** As when it was stopping: the report does not count those flows. */
    keptInKernel?: true | undefined;
  }>({
    level: 'info',
    fields: ({ report: { finished, reset } }) => ({ finished, reset }),
    text: ({ report: { finished, reset }, keptInKernel }) =>
      `Stopped: ${keptInKernel ? KERNEL_KEEPS : `${plural(finished, 'flow')} finished, ${reset} cut off`}`,
  }),

  /** The metrics or admin server could not be started in time. */
  'server-failed': event<{ error: unknown }>({
    level: 'error',
    fields: () => ({}),
    text: ({ error }) => errorMessage(error),
  }),

  /** A bug in the admin API. */
  'request-failed': event<{ request: string; error: Error }>({
    level: 'error',
    fields: ({ error }) => ({ error: error.stack ?? error.message }),
    text: ({ request }) => `Admin API: ${request} failed`,
  }),

  'systemd-notify-failed': event<{ message: string }>({
    level: 'warn',
    fields: () => ({}),
    text: ({ message }) => message,
  }),

  'flow-log-failed': event<{ file: string; error: unknown; action: 'write' | 'reopen' }>({
    level: 'error',
    fields: ({ file, error }) => ({ file, code: errorCode(error) }),
    text: ({ file, error, action }) => `Cannot ${action} "${file}": ${errorMessage(error)}`,
  }),

  'flow-log-recovered': event<{ file: string; linesLost: number }>({
    level: 'info',
    text: ({ file, linesLost }) => `Writing "${file}" again, ${plural(linesLost, 'line')} lost so far`,
  }),

  'flow-log-lost': event<{ file: string; lines: number }>({
    level: 'warn',
    text: ({ file, lines }) => `Lost ${plural(lines, 'line')} of "${file}"`,
  }),

  /** Told once until the queue is empty again. `url`: the origin alone, since paths of webhooks are often secrets. */
  'webhook-dropped': event<{ url: string; limit: number }>({
    level: 'warn',
    fields: ({ url }) => ({ url }),
    text: ({ limit }) => `More than ${limit} health events wait for the webhook: the oldest are dropped`,
  }),

  /** One health event that could not be posted, or those that there was no time left for. */
  'webhook-failed': event<
    { url: string } & (
      | { name: HealthEventName; phase: string; subject: string; evidence: string; count?: undefined }
      | { count: number }
    )
  >({
    level: 'warn',
    text: (failed) =>
      failed.count === undefined
        ? `Cannot post health event ${failed.name} of "${failed.subject}" to the webhook: ${failed.evidence}`
        : `Cannot post ${plural(failed.count, 'more health event')} to the webhook: no time was left`,
  }),
};

/**
 * Every event, by its type: the only place where it is described. All are plain data, but for `error`, which is anything
 * thrown. The log, the event stream, the webhook and the flow log subscribe to them (observe/bus.ts).
 */
export const EVENTS = { ...PLANE_EVENTS, ...CONTROL_EVENTS };

export type EventType = keyof typeof EVENTS;

type Payload<T extends EventType> = (typeof EVENTS)[T] extends Description<infer E> | undefined ? E : never;

/** An event of this type, or of one of these types. */
export type EventOf<T extends EventType> = { [One in T]: Readonly<Payload<One>> & { readonly type: One } }[T];

export type BalancerEvent = EventOf<EventType>;
export type PlaneEvent = EventOf<keyof typeof PLANE_EVENTS>;
export type ControlEvent = EventOf<keyof typeof CONTROL_EVENTS>;
export type HealthEvent = EventOf<'health-event'>;
export type KernelChanged = EventOf<'kernel-changed'>;
export type ListeningChanged = EventOf<'listening-changed'>;
export type Overload = EventOf<'overload'>;
export type PoolServingChanged = EventOf<'pool-serving-changed'>;
export type SourcePortPressure = EventOf<'source-port-pressure'>;
export type TablePressure = EventOf<'table-pressure'>;

/** One event as the log has it. */
export interface EventLine {
  readonly level: EventLevel;
  /** `health-changed`, `kernel-repaired` ... */
  readonly type: string;
  /** For people: sentence case, no full stop. */
  readonly message: string;
  /** For machines. */
  readonly fields: Readonly<Record<string, unknown>>;
}

/** The line of an event; undefined: it has none. */
export function describeEvent(event: BalancerEvent, ingress: IngressMode): EventLine | undefined {
  // The table has each event's own description under its type, which is more than the compiler can follow.
  const description = EVENTS[event.type] as Description<BalancerEvent> | undefined;
  if (description === undefined) return undefined;
  const { level, name, fields = ownMembers, text } = description;
  return {
    level: typeof level === 'string' ? level : level(event),
    type: name?.(event) ?? event.type,
    message: text(event, ingress),
    fields: Object.fromEntries(Object.entries(fields(event)).filter(([, value]) => value !== undefined)),
  };
}

function ownMembers(event: object): object {
  return { ...event, type: undefined, atMs: undefined };
}

/** What `listeners` of a plane's report count, at the beginning of a sentence. */
export function listeningSentence(
  ingress: IngressMode,
  listeners: Readonly<Record<Protocol, number>>,
): string {
  const words = listeningWords(ingress, listeners);
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function listeningWords(ingress: IngressMode, { tcp, udp }: Readonly<Record<Protocol, number>>): string {
  switch (ingress) {
    case 'port-sockets':
      return `listening on ${tcp} TCP and ${udp} UDP ports`;
    case 'captured':
      return `listening on ${tcp} TCP and ${udp} UDP sockets, which get all captured ports`;
    case 'kernel':
      return `the kernel forwards TCP of ${plural(tcp, 'frontend')} and UDP of ${plural(udp, 'frontend')}`;
  }
}

function flowsAndListeners({ flows, listeners }: Reloaded['kept']): string {
  return `${plural(flows, 'flow')} and ${plural(listeners, 'listener')}`;
}

/** `1 flow`, `2 flows`. */
function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

/** Where a table is full, UDP flows without an answer give way first. */
function overloadEffect(reason: DropReason): string {
  const evicts = reason === 'table-full' || reason === 'descriptors-exhausted';
  return evicts ? ': new flows are refused, or evict unanswered UDP flows' : ': new flows are refused';
}

function errorFields(error: unknown): { readonly code: string | undefined; readonly error: string } {
  return { code: errorCode(error), error: errorMessage(error) };
}

/** Seconds, rounded. */
function hundredths(durationMs: number): number {
  return Math.round(durationMs / 10) / 100;
}
