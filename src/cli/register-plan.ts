import { Option, type Command } from 'commander';
import { addConnection } from './connection-options.js';
import { PLAN_HELP, REPLAY_HELP, SIMULATE_HELP } from './help-texts.js';
import { clientFor, type LiveOptions } from './live-options.js';
import { share, wholeNumber } from './option-parsers.js';
import { planCommand, type PlanOptions } from './plan-command.js';
import { collect, type Registration } from './register-local.js';
import { replayCommand, type ReplayOptions } from './replay-command.js';
import { simulateCommand, type SimulateOptions } from './simulate-command.js';

/** Commands that say what would be, and prove what was. They change nothing. */
export function registerPlanCommands(program: Command, { deps, done }: Registration): void {
  addConnection(program.command('plan'), { json: 'the plan as JSON' })
    .description('preview what a configuration would do to the running process')
    .argument('<file>', 'the new configuration')
    .option('--against <file>', 'compare with this configuration instead, without a running process')
    .option('--max-moved <share>', 'exit with 3 if more of the hash space of a rule moves, as 2%', share)
    .addHelpText('after', PLAN_HELP)
    .action(async (file: string, options: PlanOptions & LiveOptions) =>
      done(await planCommand({ ...deps, client: () => clientFor(deps, options) }, file, options)),
    );

  addConnection(program.command('simulate'), { json: 'the report as JSON' })
    .description('say where flows would go if backends were down, drained or weighted otherwise')
    .option('--offline <file>', 'start from this configuration, all probes up, without a running process')
    .addOption(backends('--down <pool/backend>', 'suppose that its probe is down'))
    .addOption(backends('--up <pool/backend>', 'suppose that its probe is up'))
    .addOption(backends('--drain <pool/backend>', 'suppose that it is drained'))
    .addOption(backends('--admin-state <pool/backend=state>', 'suppose its admin state: up, down or none'))
    .addOption(backends('--weight <pool/backend=weight>', 'suppose its weight, 0 to 256'))
    .option('--live', 'follow the flows that live now, instead of random ones', false)
    .option('--flow-log <file>', 'follow the flows of this flow log instead, without a running process')
    .option(
      '--last <count>',
      'of its distinct flows, only the last so many',
      wholeNumber({ from: 1, to: 1_000_000 }),
      100_000,
    )
    .option('--flows <count>', 'random flows for each rule', wholeNumber({ from: 1, to: 1_000_000 }), 10_000)
    .option(
      '--sources <count>',
      'distinct client addresses of random flows',
      wholeNumber({ from: 1, to: 16_777_216 }),
      1000,
    )
    .option('--seed <number>', 'other random flows', wholeNumber({ from: 0, to: 0xffff_ffff }), 0)
    .addHelpText('after', SIMULATE_HELP)
    .action(async (options: SimulateOptions & LiveOptions) =>
      done(await simulateCommand({ ...deps, client: () => clientFor(deps, options) }, options)),
    );

  program
    .command('replay')
    .description('make every decision of a flow log again, and report differences')
    .argument('<flow.log>', 'a flow log')
    .option('--json', 'the report as JSON', false)
    .addHelpText('after', REPLAY_HELP)
    .action(async (file: string, options: ReplayOptions) => done(await replayCommand(deps, file, options)));
}

function backends(flags: string, words: string): Option {
  return new Option(flags, `${words} (may be given again)`).argParser(collect).default([], 'none');
}
