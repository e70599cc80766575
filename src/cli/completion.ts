import type { Command } from 'commander';
import { EXIT, usageError, type CliDeps, type ExitCode } from './deps.js';

/** `haports completion`: a script that teaches a shell all commands and options of the program as it is. */
export function completionCommand(deps: CliDeps, program: Command, shell: string): ExitCode {
  const commands = completedCommands(program);
  if (shell === 'bash') deps.out(bashCompletion(commands));
  else if (shell === 'zsh') deps.out(zshCompletion(commands));
  else throw usageError(`Cannot complete in "${shell}": it must be bash or zsh`);
  return EXIT.fine;
}

/** What a word may be that stands in some place of a command line. */
export type WordKind =
  | { readonly kind: 'choices'; readonly choices: readonly string[] }
  | { readonly kind: 'file' }
  /** `pool/backend` of the running process. */
  | { readonly kind: 'backend' }
  | { readonly kind: 'pool' }
  | { readonly kind: 'text' };

export interface CompletedOption {
  /** `-c` and `--config`. */
  readonly flags: readonly string[];
  readonly description: string;
  /** Absent: it takes no value. */
  readonly value?: WordKind;
}

export interface CompletedCommand {
  readonly name: string;
  readonly description: string;
  readonly options: readonly CompletedOption[];
  readonly words: readonly WordKind[];
}

const FILE_VALUES = ['file', 'path'];

/** Commands, options and arguments of a program, for completion scripts. Hidden ones are left out. */
export function completedCommands(program: Command): readonly CompletedCommand[] {
  return program
    .createHelp()
    .visibleCommands(program)
    .map((command) => ({
      name: command.name(),
      description: oneLine(command.description()),
      options: command
        .createHelp()
        .visibleOptions(command)
        .map((option) => ({
          flags: [option.short, option.long].filter((flag) => flag !== undefined),
          description: oneLine(option.description),
          ...(option.required || option.optional
            ? { value: wordKind(/[<[]([^>\]]+)/.exec(option.flags)?.[1] ?? '', option.argChoices) }
            : {}),
        })),
      words: command.registeredArguments.map((argument) => wordKind(argument.name(), argument.argChoices)),
    }));
}

function wordKind(name: string, choices: readonly string[] | undefined): WordKind {
  if (choices !== undefined) return { kind: 'choices', choices };
  if (FILE_VALUES.includes(name) || name.endsWith('.json') || name.endsWith('.log')) return { kind: 'file' };
  if (name.startsWith('pool/backend')) return { kind: 'backend' };
  return name === 'pool' ? { kind: 'pool' } : { kind: 'text' };
}

function oneLine(text: string): string {
  return text.replaceAll(/\s+/g, ' ').trim();
}

/**
 * A completion script for bash 4 and newer that needs nothing but bash, awk and haports. Names of backends are asked
 * of the running process that the line means; where none answers, nothing is offered.
 */
export function bashCompletion(commands: readonly CompletedCommand[]): string {
  const names = commands.map(({ name }) => name);
  return `# bash completion for haports: source <(haports completion bash)
# Printed by haports itself; do not edit.

# Names of the running process that this command line means: "backend" or "pool". Never fails, never waits long.
_haports_names() {
  local -a where=()
  local i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "\${COMP_WORDS[i]}" in
      -c | --config | --socket | --http | --token-file | --ca)
        where+=("\${COMP_WORDS[i]}" "\${COMP_WORDS[i + 1]}")
        ;;
    esac
  done
  local -a limit=()
  command -v timeout >/dev/null 2>&1 && limit=(timeout 3)
  "\${limit[@]}" "\${COMP_WORDS[0]}" backends --json "\${where[@]}" 2>/dev/null </dev/null |
    awk -F'"' -v what="$1" '
      $2 == "id" { id = $4; name = ""; next }
      $2 == "name" && id != "" && name == "" { name = $4; next }
      $2 == "pool" && id != "" {
        # Nothing that a shell could take for more than a word.
        if ($4 name !~ /^[a-z0-9-]+$/) next
        if (what == "pool") pools[$4] = 1
        else print $4 "/" name
        id = ""
      }
      END { for (pool in pools) print pool }
    ' 2>/dev/null
  return 0
}

_haports_offer() {
  local IFS=$'\\n'
  COMPREPLY=($(compgen -W "$1" -- "$2"))
}

_haports_files() {
  local IFS=$'\\n'
  compopt -o filenames 2>/dev/null
  COMPREPLY=($(compgen -f -- "$1"))
}

_haports() {
  local cur="\${COMP_WORDS[COMP_CWORD]}" before="\${COMP_WORDS[COMP_CWORD - 1]}"
  local command='' word expects='' i
  local -i place=0
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="\${COMP_WORDS[i]}"
    if [[ -n $expects ]]; then
      expects=''
    elif [[ $word == -* ]]; then
      case "$command $word" in
${valuePatterns(commands)}
      esac
    elif [[ -z $command ]]; then
      command="$word"
    else
      place+=1
    fi
  done
  if [[ -z $command ]]; then
    _haports_offer $'${['--help', '--version', ...names].join('\\n')}' "$cur"
    return 0
  fi
  if [[ -n $expects ]]; then
    case "$command $before" in
${commands.flatMap(optionValueCases).join('\n')}
    esac
    return 0
  fi
  if [[ $cur == -* ]]; then
    case "$command" in
${commands.map((command) => `      ${command.name}) _haports_offer $'${flagsOf(command).join('\\n')}' "$cur" ;;`).join('\n')}
    esac
    return 0
  fi
  case "$command $place" in
${commands.flatMap(wordCases).join('\n')}
    'help 0') _haports_offer $'${names.join('\\n')}' "$cur" ;;
  esac
  return 0
}

complete -F _haports haports
`;
}

function flagsOf({ options }: CompletedCommand): readonly string[] {
  return options.flatMap(({ flags }) => flags);
}

/** Options that the next word belongs to. */
function valuePatterns(commands: readonly CompletedCommand[]): string {
  const patterns = commands.flatMap(({ name, options }) =>
    options.flatMap(({ flags, value }) =>
      value === undefined ? [] : flags.map((flag) => `'${name} ${flag}'`),
    ),
  );
  return patterns.length === 0 ? "        '') ;;" : `        ${patterns.join(' | ')}) expects=yes ;;`;
}

function optionValueCases({ name, options }: CompletedCommand): readonly string[] {
  return options.flatMap(({ flags, value }) => {
    const offer = value === undefined ? undefined : offerOf(value);
    return offer === undefined
      ? []
      : [`      ${flags.map((flag) => `'${name} ${flag}'`).join(' | ')}) ${offer} ;;`];
  });
}

function wordCases({ name, words }: CompletedCommand): readonly string[] {
  return words.flatMap((word, place) => {
    const offer = offerOf(word);
    return offer === undefined ? [] : [`    '${name} ${place}') ${offer} ;;`];
  });
}

function offerOf(word: WordKind): string | undefined {
  switch (word.kind) {
    case 'choices':
      return `_haports_offer $'${word.choices.join('\\n')}' "$cur"`;
    case 'file':
      return '_haports_files "$cur"';
    case 'backend':
    case 'pool':
      return `_haports_offer "$(_haports_names ${word.kind})" "$cur"`;
    case 'text':
      return undefined;
  }
}

/**
 * A completion script for zsh. Names of backends are asked of the running process that the line means; where none
 * answers, nothing is offered.
 */
export function zshCompletion(commands: readonly CompletedCommand[]): string {
  return `#compdef haports
# zsh completion for haports: put it as _haports into a folder of $fpath, or source <(haports completion zsh)
# Printed by haports itself; do not edit.

# Names of the running process that this command line means: "backend" or "pool". Never fails, never waits long.
_haports_names() {
  local -a where limit names
  local i
  for ((i = 2; i < $#words; i++)); do
    case "\${words[i]}" in
      -c|--config|--socket|--http|--token-file|--ca) where+=("\${words[i]}" "\${(Q)words[i + 1]}") ;;
    esac
  done
  (( $+commands[timeout] )) && limit=(timeout 3)
  names=(\${(f)"$($limit haports backends --json $where 2>/dev/null </dev/null |
    awk -F'"' -v what="$1" '
      $2 == "id" { id = $4; name = ""; next }
      $2 == "name" && id != "" && name == "" { name = $4; next }
      $2 == "pool" && id != "" {
        # Nothing that a shell could take for more than a word.
        if ($4 name !~ /^[a-z0-9-]+$/) next
        if (what == "pool") pools[$4] = 1
        else print $4 "/" name
        id = ""
      }
      END { for (pool in pools) print pool }
    ' 2>/dev/null)"})
  (( $#names )) && compadd -a names
  return 0
}

_haports_backend() { _haports_names backend }
_haports_pool() { _haports_names pool }

_haports() {
  local curcontext="$curcontext" state line
  local -a names
  _arguments -C '(- *)'{-h,--help}'[show help]' '(- *)'{-V,--version}'[show the version]' \\
    '1: :->command' '*:: :->rest'
  case "$state" in
    command)
      names=(
${commands.map(({ name, description }) => `        ${quoted(`${name}:${description.replaceAll(':', '\\:')}`)}`).join('\n')}
      )
      _describe -t commands 'haports command' names
      ;;
    rest)
      case "$line[1]" in
${commands.map(commandCase).join('\n')}
      esac
      ;;
  esac
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _haports "$@"
else
  compdef _haports haports
fi
`;
}

function commandCase({ name, options, words }: CompletedCommand): string {
  const specs = [
    ...options.flatMap(optionSpecs),
    ...words.map((word, index) => quoted(`${index + 1}: :${actionOf(word)}`)),
  ];
  return `        ${name}) _arguments${specs.map((spec) => ` \\\n          ${spec}`).join('')} ;;`;
}

function optionSpecs({ flags, description, value }: CompletedOption): readonly string[] {
  const text = description.replaceAll(/[[\]\\:]/g, '\\$&');
  const tail = value === undefined ? '' : `: :${actionOf(value)}`;
  return flags.map((flag) => quoted(`*${flag}[${text}]${tail}`));
}

function actionOf(word: WordKind): string {
  switch (word.kind) {
    case 'choices':
      return `(${word.choices.join(' ')})`;
    case 'file':
      return '_files';
    case 'backend':
      return '_haports_backend';
    case 'pool':
      return '_haports_pool';
    case 'text':
      return '';
  }
}

/** For a shell, as one word. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
