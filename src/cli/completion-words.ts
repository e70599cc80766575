import type { Command } from 'commander';

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
