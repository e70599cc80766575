import { InvalidArgumentError, Option, type Command } from 'commander';
import { parseDuration } from '../model/duration.js';
import { usageError, type CliDeps, type ExitCode } from './deps.js';
import * as format from './format.js';

/**
 * A command, described once: its help, its page in docs/commands and its completion come from here. To add one, write
 * such a constant and add it to COMMANDS in program.ts.
 */
export interface CliCommand {
  readonly name: string;
  /** What it does, in one line that starts with a verb. */
  readonly summary: string;
  /** Whole command lines. */
  readonly examples?: readonly string[];
  /** Paragraphs for the help. */
  readonly notes?: string;
  /** As `0 fine; 1 no process answers`. */
  readonly exitCodes: string;
  /** Adds arguments, options and the action. */
  readonly define: (command: Command, cli: Cli) => unknown;
}

/** What commands are defined with. */
export interface Cli {
  readonly deps: CliDeps;
  /** What `demo` runs without --config. */
  readonly bundledConfig: string;
  /** With the commands that have been defined so far. */
  readonly program: Command;
  /** An action for commander that passes on the exit code of the command; none means that all is fine. */
  readonly run: <A extends unknown[]>(
    action: (...args: A) => ExitCode | Promise<ExitCode> | Promise<void>,
  ) => (...args: A) => Promise<void>;
}

/** What the help says after the options. */
export function helpText({ examples = [], notes = '', exitCodes }: CliCommand): string {
  return [
    ...(examples.length === 0 ? [] : ['', 'Examples:', ...examples.map((line) => `  ${line}`)]),
    ...(notes === '' ? [] : ['', notes.trim()]),
    '',
    ...format.wrapWords(`Exit codes: ${exitCodes}.`, 2, 116),
    '',
  ].join('\n');
}

const GROUP = 'Which process:';

/** Adds `--json`, and the options that say which running process is asked in a group of their own. */
export function addConnection(
  command: Command,
  json: string,
  config = 'configuration file, for its admin.socket',
): Command {
  const socket = 'admin socket (default: HAPORTS_SOCKET, else admin.socket)';
  // The first option decides which group is shown first.
  command.option('--json', json, false);
  for (const option of [
    new Option('-c, --config <file>', config).default('config.json'),
    new Option('--socket <path>', socket),
    new Option('--http <url>', 'admin address instead, as http://127.0.0.1:9901').conflicts('socket'),
    new Option('--token-file <file>', 'file with the token for --http'),
    new Option('--ca <file>', 'certificate to trust for --http, PEM'),
  ]) {
    command.addOption(option.helpGroup(GROUP));
  }
  return command;
}

/** An option that takes one of these words. */
export function oneOf(
  flags: string,
  description: string,
  words: readonly string[],
  initially?: string,
): Option {
  return new Option(flags, description).choices(words).default(initially);
}

/** An option that may be given again: its values in order. */
export function repeatable(flags: string, description: string): Option {
  return new Option(flags, `${description} (may be given again)`)
    .argParser((value: string, before: readonly string[]) => [...before, value])
    .default([], 'none');
}

/** Which backend is meant: `pool/name` or `pool/address`. */
export interface BackendRef {
  readonly pool: string;
  readonly backend: string;
}

/** Throws `LB_USAGE` on anything but two parts. Addresses may hold colons, not slashes. */
export function parseBackendRef(text: string): BackendRef {
  const [, pool, backend] = /^([^/]+)\/([^/]+)$/.exec(text) ?? [];
  if (pool === undefined || backend === undefined) {
    throw usageError(
      `Cannot read backend "${text}": it must be pool/backend, as nvas/nva-1 or nvas/127.0.0.11`,
    );
  }
  return { pool, backend };
}

/** For commander: a duration as in the configuration, kept as text. */
export function durationText(text: string): string {
  if (parseDuration(text) !== undefined) return text;
  throw new InvalidArgumentError('It must be a whole number with a unit: 500ms, 10s, 10m or 1h.');
}

/** For commander: `2%`, or a share from 0 to 1 such as 0.02. */
export function share(text: string): number {
  const percent = /^(\d+(?:\.\d+)?)\s?%$/.exec(text)?.[1];
  const value =
    percent === undefined ? (/^[01](?:\.\d+)?$/.test(text) ? Number(text) : NaN) : Number(percent) / 100;
  if (value <= 1) return value;
  throw new InvalidArgumentError('It must be at most 100%, as 2%, or a share from 0 to 1, as 0.02.');
}

/** For commander: a whole number within bounds. */
export function wholeNumber(from: number, to: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : NaN;
    if (value >= from && value <= to) return value;
    throw new InvalidArgumentError(`It must be a whole number, ${from} to ${to}.`);
  };
}

/** A number where the text is one, for the contract of the admin API to check; else the text. */
export function numberOrText(text: string): number | string {
  return /^\d{1,15}$/.test(text) ? Number(text) : text;
}
