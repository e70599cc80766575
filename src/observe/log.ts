import { pino, stdTimeFunctions, type DestinationStream } from 'pino';
import type { LoggingOptions } from '../model/configuration.js';
import type { EventLine } from '../model/events.js';

/** Where log lines go; `process.stderr` fits. */
export type LogStream = NodeJS.WritableStream & { readonly isTTY?: boolean };

/** Gives a stream that turns JSON lines into text for people, or undefined where pino-pretty is not installed. */
export type LoadPretty = (output: LogStream) => Promise<DestinationStream | undefined>;

/**
 * Writes one JSON object a line (`level`, `time` in ISO 8601, `pid`, `event`, the fields, `msg`), or lines for people:
 * with `format: pretty`, and with `auto` on a terminal, if pino-pretty is installed. Everything happens in this process
 * and thread. The stream stays the caller's; a broken one (EPIPE) loses lines, never the process.
 */
export async function openLog(
  options: LoggingOptions,
  output: LogStream,
  loadPretty: LoadPretty = loadPinoPretty,
): Promise<(line: EventLine) => void> {
  // A reader that went away must not end the flows.
  output.on('error', () => undefined);
  const wantsPretty = options.format === 'pretty' || (options.format === 'auto' && output.isTTY === true);
  const pretty = wantsPretty ? await loadPretty(output) : undefined;
  const logger = pino(
    {
      level: options.level,
      base: { pid: process.pid },
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    pretty ?? { write: (line) => void output.write(line) },
  );
  if (options.format === 'pretty' && pretty === undefined) {
    logger.warn({ event: 'pretty-missing' }, 'Logging JSON: format "pretty" needs the package pino-pretty');
  }
  return ({ level, type, fields, message }) => logger[level]({ event: type, ...fields }, message);
}

/** As far as it is used here. The package is optional, so its own types may be missing too. */
type PinoPretty = (options: object) => DestinationStream;

async function loadPinoPretty(output: LogStream): Promise<DestinationStream | undefined> {
  // As a string the compiler does not look for it: it may not be installed where this is built.
  const name = 'pino-pretty' as string;
  const loaded = (await import(name).catch(() => undefined)) as { readonly default: PinoPretty } | undefined;
  return loaded?.default({
    colorize: output.isTTY === true,
    destination: output,
    // The message says it all; the fields are for machines.
    hideObject: true,
    ignore: 'pid',
    translateTime: 'SYS:HH:MM:ss.l',
  });
}
