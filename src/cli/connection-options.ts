import { Option, type Command } from 'commander';

const GROUP = 'Which process:';

/** Adds `--json` and, apart from the command's own options, those that say which running process is asked. */
export function addConnection(
  command: Command,
  words: { readonly json: string; readonly config?: string },
): Command {
  const config = words.config ?? 'configuration file, for its admin.socket';
  // The first option decides which group is shown first.
  return command
    .option('--json', words.json, false)
    .addOption(new Option('-c, --config <file>', config).default('config.json').helpGroup(GROUP))
    .addOption(
      new Option('--socket <path>', 'admin socket (default: HAPORTS_SOCKET, else admin.socket)').helpGroup(
        GROUP,
      ),
    )
    .addOption(
      new Option('--http <url>', 'admin address instead, as http://127.0.0.1:9901')
        .conflicts('socket')
        .helpGroup(GROUP),
    )
    .addOption(new Option('--token-file <file>', 'file with the token for --http').helpGroup(GROUP))
    .addOption(new Option('--ca <file>', 'certificate to trust for --http, PEM').helpGroup(GROUP));
}
