import type { Protocol } from '../model/five-tuple.js';
import type { Logger } from '../runtime/logger.js';
import type { TcpPorts } from '../dataplane/data-plane.js';
import { listeningSentence, type TrafficEntry } from './listening-words.js';

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
