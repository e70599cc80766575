import { examine } from '../control/doctor.js';
import type { CliDeps } from './cli-deps.js';
import { doctorText } from './doctor-text.js';
import { EXIT, type ExitCode } from './exit-codes.js';
import { loadUsable } from './load-usable.js';

export interface DoctorOptions {
  readonly config: string;
  readonly json: boolean;
  /** `--no-paths`. */
  readonly paths: boolean;
  readonly port?: number;
}

/** `haports doctor`: examines this machine and the ways to the backends. */
export async function doctorCommand(deps: CliDeps, options: DoctorOptions): Promise<ExitCode> {
  const usable = await loadUsable(deps, options.config);
  if (usable === undefined) return EXIT.badInput;
  // What was put into the routing for a moment is taken out before the process ends: within seconds.
  const stopListening = deps.onSignal(() => undefined);
  try {
    const report = await examine(deps.doctor, usable.configuration, {
      paths: options.paths ? 'tried' : 'not-tried',
      ...(options.port === undefined ? {} : { port: options.port }),
    });
    deps.out(options.json ? `${JSON.stringify(report, undefined, 2)}\n` : doctorText(report));
    return report.healthy ? EXIT.fine : EXIT.failed;
  } finally {
    stopListening();
  }
}
