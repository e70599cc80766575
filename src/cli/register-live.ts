import { Option, type Command } from 'commander';
import { adminStateCommand } from './admin-state-command.js';
import { backendsCommand } from './backends-command.js';
import { addConnection } from './connection-options.js';
import { drainCommand, type DrainOptions } from './drain-command.js';
import { eventsCommand, type EventsOptions } from './events-command.js';
import { flowsCommand, type FlowsOptions } from './flows-command.js';
import {
  ADMIN_STATE_HELP,
  DRAIN_HELP,
  EVENTS_HELP,
  FLOWS_HELP,
  RELOAD_HELP,
  TOP_HELP,
  UPGRADE_HELP,
  WEIGHT_HELP,
} from './help-texts.js';
import type { LiveOptions } from './live-options.js';
import { durationText, share, wholeNumber } from './option-parsers.js';
import type { Registration } from './register-local.js';
import { reloadCommand, type ReloadOptions } from './reload-command.js';
import { statusCommand } from './status-command.js';
import { topCommand, type TopOptions } from './top-command.js';
import { TOP_SORTS } from './top-model.js';
import { upgradeCommand, type UpgradeOptions } from './upgrade-command.js';
import { weightCommand } from './weight-command.js';

/** Commands that ask a running process, or tell it what to do. */
export function registerLiveCommands(program: Command, { deps, done }: Registration): void {
  addConnection(program.command('status'), { json: 'the status as JSON' })
    .description('show the running process as a whole: configuration, traffic, table, drains, problems')
    .action(async (options: LiveOptions) => done(await statusCommand(deps, options)));

  addConnection(program.command('backends'), { json: 'pools and backends as JSON' })
    .description('show every backend: state, shares, traffic, what its probe says')
    .argument('[pool]', 'only this pool')
    .action(async (pool: string | undefined, options: LiveOptions) =>
      done(await backendsCommand(deps, pool, options)),
    );

  addConnection(program.command('flows'), { json: 'the flows as JSON' })
    .description('show live flows, filtered and sorted')
    .option('--rule <name>', 'only flows of this rule')
    .option('--backend <pool/backend>', 'only flows of this backend')
    .addOption(new Option('--protocol <protocol>', 'only').choices(['tcp', 'udp']))
    .option('--source <address>', 'only flows of this client')
    .addOption(
      new Option('--state <state>', 'only').choices([
        'embryonic',
        'established',
        'half-closed',
        'blackholed',
      ]),
    )
    .addOption(
      new Option('--reason <reason>', 'only flows placed for this reason').choices([
        ...['hash', 'retry', 'rebalanced', 'fail-open', 'pinned'],
      ]),
    )
    .addOption(
      new Option('--sort <key>', 'largest first')
        .choices(['age', 'idle', 'bytes', 'rate', 'none'])
        .default('age'),
    )
    .option('--limit <count>', 'flows shown at most, 1 to 1000', wholeNumber({ from: 1, to: 1000 }), 100)
    .addHelpText('after', FLOWS_HELP)
    .action(async (options: FlowsOptions) => done(await flowsCommand(deps, options)));

  addConnection(program.command('top'), { json: 'one snapshot as JSON' })
    .description('watch backends and flows live, on the whole terminal')
    .addOption(new Option('--sort <key>', 'order of flows at the start').choices(TOP_SORTS).default('age'))
    .option('--filter <text>', 'only flows whose client or backend holds this', '')
    .addHelpText('after', TOP_HELP)
    .action(async (options: TopOptions) => done(await topCommand(deps, options)));

  addConnection(program.command('drain'), { json: 'the drain as JSON; with --watch one line a second' })
    .description('give a backend no new flows, and let those that it has finish')
    .argument('<pool/backend>', 'name or address, as nvas/nva-1')
    .option('--deadline <duration>', 'how long flows may take', durationText, '10m')
    .addOption(
      new Option('--then <action>', 'what becomes of flows that are left')
        .choices(['reset', 'leave'])
        .default('reset'),
    )
    .option('--spread <duration>', 'time over which they are ended', durationText, '10s')
    .option('--force', 'even if too few backends of the pool are left', false)
    .option('--watch', 'show it live until it is done', false)
    .option('--show', 'show the drain that is under way, start none', false)
    .option('--cancel', 'end the drain: the backend gets new flows again', false)
    .addHelpText('after', DRAIN_HELP)
    .action(async (backend: string, options: DrainOptions) =>
      done(await drainCommand(deps, backend, options)),
    );

  addConnection(program.command('admin-state'), { json: 'what was set as JSON' })
    .description("set the operator's switch on a backend, over its probe")
    .argument('<pool/backend>', 'name or address, as nvas/nva-1')
    .argument('<state>', 'none, up, down or configured')
    .addHelpText('after', ADMIN_STATE_HELP)
    .action(async (backend: string, state: string, options: LiveOptions) =>
      done(await adminStateCommand(deps, backend, state, options)),
    );

  addConnection(program.command('weight'), { json: 'what was set as JSON' })
    .description("set a backend's share of new flows")
    .argument('<pool/backend>', 'name or address, as nvas/nva-1')
    .argument('<weight>', '0 to 256, or configured')
    .addHelpText('after', WEIGHT_HELP)
    .action(async (backend: string, weight: string, options: LiveOptions) =>
      done(await weightCommand(deps, backend, weight, options)),
    );

  addConnection(program.command('reload'), {
    json: 'the report as JSON',
    config: 'configuration file to take over; its admin.socket says where',
  })
    .description('have the running process take a configuration over, whole or not at all')
    .option('--max-moved <share>', 'refuse to move more of the hash space of a rule, as 2%', share)
    .addHelpText('after', RELOAD_HELP)
    .action(async (options: ReloadOptions) => done(await reloadCommand(deps, options)));

  addConnection(program.command('upgrade'), { json: 'the outcome as JSON' })
    .description('have the version that is installed now take the place of the running process')
    .option('--deadline <duration>', 'how long TCP flows of the old process may take', durationText)
    .addHelpText('after', UPGRADE_HELP)
    .action(async (options: UpgradeOptions) => done(await upgradeCommand(deps, options)));

  addConnection(program.command('events'), { json: 'one event a line as JSON' })
    .description('show what has happened: health, drains, reloads, operators')
    .option('-f, --follow', 'go on with what happens from now on', false)
    .option(
      '--since <id>',
      'only events with a higher id',
      wholeNumber({ from: 0, to: Number.MAX_SAFE_INTEGER }),
    )
    .addHelpText('after', EVENTS_HELP)
    .action(async (options: EventsOptions) => done(await eventsCommand(deps, options)));
}
