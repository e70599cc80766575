import type { DrainChanged, Reloaded, ReloadFailed, WeightChanged } from '../model/control-events.js';
import { errorCode, errorMessage } from '../model/errors.js';
import type { HealthEvent } from '../model/health-event.js';
import type { Logger } from '../runtime/logger.js';

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
