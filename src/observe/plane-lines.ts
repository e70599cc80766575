import type {
  ListeningChanged,
  Overload,
  SourcePortPressure,
  TablePressure,
  WorkerLost,
} from '../model/events.js';
import type { Logger } from '../runtime/logger.js';
import { listeningWords, type TrafficEntry } from './listening-words.js';

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
