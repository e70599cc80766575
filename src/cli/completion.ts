import type { Argument, Command, Option } from 'commander';
import { clientFor, type ConnectionOptions } from './client.js';
import type { CliCommand } from './command.js';
import { EXIT, printLines, usageError, type CliDeps } from './deps.js';

const FILES = ':files';

/**
 * What each shell asks: `haports __complete -- <words>`, the last one being typed. The answer is a line for each word
 * that fits, with a description behind a tab where there is one, or `:files`.
 */
const STUBS = {
  bash: `# bash completion for haports: source <(haports completion bash)
_haports() {
  local line cur="\${COMP_WORDS[COMP_CWORD]}" IFS=$'\\n'
  COMPREPLY=()
  while read -r line; do
    if [[ $line == ${FILES} ]]; then
      compopt -o filenames 2>/dev/null
      COMPREPLY=($(compgen -f -- "$cur"))
      return 0
    fi
    COMPREPLY+=("\${line%%$'\\t'*}")
  done < <("\${COMP_WORDS[0]}" __complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null </dev/null)
  return 0
}
complete -F _haports haports
`,
  zsh: `#compdef haports
# zsh completion for haports: put it as _haports into a folder of $fpath, or source <(haports completion zsh)
_haports() {
  local line
  local -a offers
  for line in "\${(@f)$(haports __complete -- "\${(@Q)words[2,CURRENT]}" 2>/dev/null </dev/null)}"; do
    if [[ $line == ${FILES} ]]; then
      _files
      return
    fi
    [[ -n $line ]] && offers+=("\${\${line//:/\\\\:}/$'\\t'/:}")
  done
  (( $#offers )) && _describe -t haports 'haports' offers
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _haports "$@"
else
  compdef _haports haports
fi
`,
  fish: `# fish completion for haports: haports completion fish > ~/.config/fish/completions/haports.fish
function __haports_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l lines (haports __complete -- $words[2..-1] "$current" 2>/dev/null </dev/null)
    if test "$lines[1]" = ${FILES}
        __fish_complete_path "$current"
    else
        string join -- \\n $lines
    end
end
complete -c haports -f -a '(__haports_complete)'
`,
} as const;

export const completion: CliCommand = {
  name: 'completion',
  summary: 'print a completion script for bash, zsh or fish',
  examples: [
    'source <(haports completion bash)',
    'haports completion zsh > ~/.zfunc/_haports     with ~/.zfunc in $fpath, before compinit',
    'haports completion fish > ~/.config/fish/completions/haports.fish',
  ],
  exitCodes: '0 printed; 2 another shell',
  define: (command, { deps, program, run }) => {
    command.argument('<shell>', 'bash, zsh or fish').action(
      run((shell: string) => {
        const stub = Object.entries(STUBS).find(([name]) => name === shell)?.[1];
        if (stub === undefined)
          throw usageError(`Cannot complete in "${shell}": it must be bash, zsh or fish`);
        deps.out(stub);
        return EXIT.fine;
      }),
    );
    program
      .command('__complete', { hidden: true })
      .argument('[words...]')
      .helpOption(false)
      .allowUnknownOption()
      .action(
        run(async (words: readonly string[]) => {
          const lines = await completions(deps, program, words);
          if (lines.length > 0) printLines(deps, lines);
        }),
      );
  },
};

/** Lines for the last of the words. */
async function completions(
  deps: CliDeps,
  program: Command,
  words: readonly string[],
): Promise<readonly string[]> {
  const typed = words.at(-1) ?? '';
  const commands = program.createHelp().visibleCommands(program);
  const names = commands.map((one) => described(one.name(), one.description()));
  const offer = (lines: readonly string[]): readonly string[] =>
    lines.filter((line) => line.startsWith(typed));
  const [name, ...rest] = words.slice(0, -1);
  if (name === undefined) return offer([...names, '--help', '--version']);
  const command = commands.find((one) => one.name() === name);
  if (command === undefined) return [];
  const options = command.createHelp().visibleOptions(command);
  let waiting: Option | undefined;
  let place = 0;
  for (const word of rest) {
    if (waiting !== undefined) waiting = undefined;
    else if (word.startsWith('-'))
      waiting = options.find((one) => takesValue(one) && [one.short, one.long].includes(word));
    else place++;
  }
  if (waiting === undefined && typed.startsWith('-')) {
    return offer(
      options.flatMap(({ short, long, description }) =>
        [short, long].flatMap((flag) => (flag === undefined ? [] : [described(flag, description)])),
      ),
    );
  }
  if (name === 'help') return place === 0 ? offer(names) : [];
  const expected = waiting ?? command.registeredArguments[place];
  if (expected === undefined) return [];
  const values = await valuesOf(deps, expected, () => {
    command.parseOptions(waiting === undefined ? [...rest] : rest.slice(0, -1));
    return command.opts();
  });
  return values === FILES ? [FILES] : offer(values);
}

function takesValue({ required, optional }: Option): boolean {
  return required || optional;
}

function described(word: string, description: string): string {
  return description === '' ? word : `${word}\t${description.replaceAll(/\s+/g, ' ')}`;
}

async function valuesOf(
  deps: CliDeps,
  expected: Option | Argument,
  connection: () => ConnectionOptions,
): Promise<typeof FILES | readonly string[]> {
  if (expected.argChoices !== undefined) return expected.argChoices;
  const what = 'flags' in expected ? (/<([^>]+)/.exec(expected.flags)?.[1] ?? '') : expected.name();
  switch (what) {
    case 'file':
    case 'path':
    case 'flow.log':
      return FILES;
    case 'shell':
      return Object.keys(STUBS);
    case 'pool':
      return [...new Set((await backendNames(deps, connection)).map(([pool]) => pool))];
    case 'pool/backend':
    case 'pool/backend=state':
    case 'pool/backend=weight':
      return (await backendNames(deps, connection)).map((names) => names.join('/'));
    default:
      return [];
  }
}

/** Longer, and a Tab key seems dead. */
const PATIENCE_MS = 3000;

/** Pools and backends of the process that the command line means; none where it does not answer. */
async function backendNames(
  deps: CliDeps,
  connection: () => ConnectionOptions,
): Promise<readonly (readonly [pool: string, backend: string])[]> {
  try {
    const client = await clientFor(deps, connection());
    const pools = await client.pools({}, { signal: AbortSignal.timeout(PATIENCE_MS) });
    return pools
      .flatMap(({ backends }) => backends.map(({ pool, name }) => [pool, name] as const))
      .filter((names) => names.every(isPlainWord));
  } catch {
    return [];
  }
}

/** Nothing that a shell could take for more than a word. */
function isPlainWord(text: string): boolean {
  return /^[\w.:-]+$/.test(text);
}
