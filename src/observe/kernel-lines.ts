import type { KernelChanged } from '../model/events.js';
import type { Logger } from '../runtime/logger.js';

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
