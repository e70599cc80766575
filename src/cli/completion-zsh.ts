import type { CompletedCommand, CompletedOption, WordKind } from './completion-words.js';

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
