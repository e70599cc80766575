import type { Command } from 'commander';
import { readFile } from 'node:fs/promises';
import type { CliCommand } from '../src/cli/command.js';
import type { CliDeps } from '../src/cli/deps.js';
import { COMMANDS, createProgram } from '../src/cli/program.js';

const FOLDER = 'docs/commands';

/**
 * The pages of docs/commands by their paths. What commander knows stands between `<!-- generated: name -->` and
 * `<!-- end -->`: usage, arguments, options, exit codes and the list of commands. The rest is written by hand and kept; a
 * page that is not there yet is begun.
 */
export const COMMAND_PAGES: Readonly<Record<string, () => Promise<string>>> = {
  [`${FOLDER}/README.md`]: async () => {
    const rows = COMMANDS.map(({ name, summary }) => [`[${name}](${name}.md)`, summary]);
    return withRegions(await readFile(`${FOLDER}/README.md`, 'utf8'), {
      commands: table(['command', 'what it does'], rows),
    });
  },
  ...Object.fromEntries(
    COMMANDS.map((command) => [`${FOLDER}/${command.name}.md`, () => commandPage(command)]),
  ),
};

/** Commands are only described here, never run. */
const NO_DEPS = { out: () => undefined, err: () => undefined } as unknown as CliDeps;

async function commandPage(described: CliCommand): Promise<string> {
  const program = createProgram(NO_DEPS, 'the one that comes with haports', () => undefined);
  const command = program.commands.find((one) => one.name() === described.name);
  if (command === undefined) throw new TypeError(`There is no command ${described.name}`);
  const text = await readFile(`${FOLDER}/${described.name}.md`, 'utf8').catch(() => newPage(described));
  return withRegions(text, {
    usage: usage(command),
    'exit codes': `## Exit codes\n\n${wrapped(`${described.exitCodes}.`)}`,
  });
}

function newPage({ name, summary, notes = '', examples = [] }: CliCommand): string {
  return [
    `# haports ${name}`,
    `${summary.slice(0, 1).toUpperCase()}${summary.slice(1)}.`,
    region('usage', ''),
    notes.trim(),
    `## Examples\n\n\`\`\`sh\n${examples.join('\n')}\n\`\`\``,
    region('exit codes', ''),
  ].join('\n\n');
}

function usage(command: Command): string {
  const help = command.createHelp();
  const args = command.registeredArguments.map((argument) => [
    `\`${argument.name()}\``,
    meaning(argument.description, { choices: argument.argChoices }),
  ]);
  const options = help.visibleOptions(command).map((option) => [
    `\`${option.flags}\``,
    meaning(option.description, {
      choices: option.argChoices,
      // Of a switch, and of an option that may be given again, it goes without saying.
      value: ['string', 'number'].includes(typeof option.defaultValue) ? `${option.defaultValue}` : undefined,
    }),
  ]);
  return [
    `\`\`\`text\n${help.commandUsage(command)}\n\`\`\``,
    ...(args.length === 0 ? [] : [table(['argument', 'meaning'], args)]),
    `## Options\n\n${table(['option', 'meaning'], options)}`,
  ].join('\n\n');
}

interface Values {
  readonly choices?: readonly string[];
  /** By default. */
  readonly value?: string;
}

function meaning(description: string, { choices, value }: Values): string {
  const facts = [
    ...(choices === undefined ? [] : [`choices: ${choices.map((choice) => `\`${choice}\``).join(', ')}`]),
    ...(value === undefined ? [] : [`default: ${value.includes(' ') ? value : `\`${value}\``}`]),
  ];
  return facts.length === 0 ? description : `${description} (${facts.join(', ')})`;
}

function table(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  return [titles, titles.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

function wrapped(text: string): string {
  return text.replaceAll(/(.{1,118})(?: |$)/g, '$1\n').trimEnd();
}

function region(name: string, content: string): string {
  return `<!-- generated: ${name} -->\n\n${content}\n\n<!-- end -->`;
}

/** The text with the content of these regions replaced. Throws where one is missing. */
function withRegions(text: string, contents: Readonly<Record<string, string>>): string {
  return Object.entries(contents).reduce((before, [name, content]) => {
    const pattern = new RegExp(`<!-- generated: ${name} -->[^]*?<!-- end -->`);
    if (!pattern.test(before))
      throw new TypeError(`There is no region "${name}" in "${before.slice(0, 40)}"`);
    return before.replace(pattern, () => region(name, content));
  }, text);
}
