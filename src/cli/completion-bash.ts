import type { CompletedCommand, WordKind } from './completion-words.js';

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
