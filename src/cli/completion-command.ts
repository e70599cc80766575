import type { Command } from 'commander';
import type { CliDeps } from './cli-deps.js';
import { bashCompletion } from './completion-bash.js';
import { completedCommands } from './completion-words.js';
import { zshCompletion } from './completion-zsh.js';
import { EXIT, type ExitCode } from './exit-codes.js';
import { usageError } from './option-parsers.js';

/** `haports completion`: a script that teaches a shell all commands and options of the program as it is. */
export function completionCommand(deps: CliDeps, program: Command, shell: string): ExitCode {
  const commands = completedCommands(program);
  if (shell === 'bash') deps.out(bashCompletion(commands));
  else if (shell === 'zsh') deps.out(zshCompletion(commands));
  else throw usageError(`Cannot complete in "${shell}": it must be bash or zsh`);
  return EXIT.fine;
}
