import type {
  AppliedReport,
  ConfigLoaded,
  ControlEvent,
  HealthChanged,
  PoolServingChanged,
} from '../model/control-events.js';
import { errorCode, errorMessage } from '../model/errors.js';
import type { Logger } from '../runtime/logger.js';
import { groupListenFailures } from './listen-failures.js';
import { listeningWords, type TrafficEntry } from './listening-words.js';
import {
  logDrainChanged,
  logHealthEvent,
  logReloaded,
  logReloadFailed,
  logWeightChanged,
} from './operator-lines.js';
import { logUpgrade } from './upgrade-lines.js';

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
