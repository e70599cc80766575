import type { Command } from 'commander';
import { doctorCommand, type DoctorOptions } from './doctor-command.js';
import { DOCTOR_HELP } from './help-texts.js';
import { wholeNumber } from './option-parsers.js';
import type { Registration } from './register-local.js';

/** The command that examines a machine. */
export function registerDoctorCommand(program: Command, { deps, done }: Registration): void {
  program
    .command('doctor')
    .description('examine this machine and the way of flows to each backend, and say what is missing where')
    .option('-c, --config <file>', 'configuration file', 'config.json')
    .option('--json', 'the findings as JSON', false)
    .option(
      '--port <number>',
      'TCP port to try on backends (default: that of the probe)',
      wholeNumber({ from: 1, to: 65_535 }),
    )
    .option('--no-paths', 'change no routes, not even for a moment')
    .addHelpText('after', DOCTOR_HELP)
    .action(async (options: DoctorOptions) => done(await doctorCommand(deps, options)));
}
