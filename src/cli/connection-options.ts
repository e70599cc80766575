import { Option, type Command } from 'commander';

/** Adds the options that say which running process is asked, and `--json`. */
export function addConnection(
  command: Command,
  words: { readonly json: string; readonly config?: string },
): Command {
  return command
    .option(
      '-c, --config <file>',
      words.config ?? 'configuration file; its admin.socket says where the process is asked',
      'config.json',
    )
    .option('--socket <path>', 'admin socket of the process (default: HAPORTS_SOCKET, else admin.socket)')
    .addOption(
      new Option('--http <url>', 'admin address of the process instead, as http://127.0.0.1:9901').conflicts(
        'socket',
      ),
    )
    .option('--token-file <file>', 'file with the bearer token for --http')
    .option('--ca <file>', 'certificate to trust for --http, PEM')
    .option('--json', words.json, false);
}
