import type { UpgradeFailed, UpgradeReady, UpgradeStarted } from '../model/control-events.js';
import { errorCode, errorMessage } from '../model/errors.js';
import type { Logger } from '../runtime/logger.js';

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
