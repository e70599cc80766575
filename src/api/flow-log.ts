import { z } from 'zod';
import { parseIpAddress } from '../model/address.js';
import { errorMessage } from '../model/errors.js';
import { configurationFromJson, type Json } from './configuration-json.js';
import { adminState, carried, healthState, placementReason, protocol } from './views.js';

/*
 * The flow log: one JSON object a line, for people in docs/flow-log.md. What is written is typed by the input of these
 * schemas and read by their output. A reader skips lines and members that it does not know.
 */

/** Grows when a reader of older lines would misread newer ones. */
export const FLOW_LOG_FORMAT = 1;

const address = z.string().transform((text, context) => {
  const parsed = parseIpAddress(text);
  if (parsed !== undefined) return parsed;
  context.addIssue('must be an IP address');
  return z.NEVER;
});

const port = z.int().min(0).max(65_535);

/** Milliseconds since 1970 UTC. */
const atMs = z.number().optional();

const tuple = z
  .object({
    protocol,
    source: address,
    sourcePort: port,
    destination: address,
    destinationPort: port,
  })
  .refine(({ source, destination }) => source.family === destination.family, {
    error: 'both addresses must be of one family',
  });

/** A flow, and why it is where it is. */
const placement = {
  atMs,
  id: z.number(),
  tuple,
  rule: z.string(),
  backend: z.string(),
  endpoint: z.string(),
  reason: placementReason,
  excluded: z.array(z.string()).readonly(),
  /** Revision that placed it, and the digest of its configuration. */
  epoch: z.number(),
  digest: z.string(),
};

/** A pool as the rules with one probe see it. */
const view = z.object({
  /** `pool|probe`. */
  key: z.string(),
  servingPriority: z.number().optional(),
  backends: z
    .array(
      z.object({
        id: z.string(),
        eligible: z.boolean(),
        valid: z.boolean(),
        serving: z.boolean(),
        /** What the table was built with. */
        weight: z.number(),
        /** Before slow start, and whose weight it is. Absent in lines of older versions. */
        wanted: z.number().optional(),
        origin: z.enum(['configured', 'operator', 'probe-header']).optional(),
        /** Per cent of it that slow start lets the backend have; absent: all of it. */
        ramp: z.number().optional(),
        health: healthState,
        adminState,
        exclusion: z.string().optional(),
      }),
    )
    .readonly(),
});

const list = z.array(z.unknown());

const LINES = {
  /** The whole configuration, addresses as text: what a replay starts from. */
  config: z
    .object({
      type: z.literal('config'),
      format: z.literal(FLOW_LOG_FORMAT),
      atMs,
      digest: z.string(),
      configuration: z.custom<Json>(),
    })
    .transform(({ configuration, ...line }) => {
      // The writer is trusted with the rest, as in configurationFromJson.
      const sketch = { digest: z.literal(line.digest), seed: z.number(), tableSize: z.number() };
      z.object({ ...sketch, frontends: list, backendPools: list, rules: list }).parse(configuration);
      return { ...line, configuration: configurationFromJson(configuration) };
    }),

  /** What a revision adds to the configuration: who was eligible and with what weight. */
  epoch: z.object({
    type: z.literal('epoch'),
    atMs,
    revision: z.number(),
    digest: z.string(),
    views: z.array(view).readonly(),
  }),

  /** A flow was placed. */
  start: z.object({ type: z.literal('start'), ...placement }),

  /** A flow moved to another backend; the rest is as it stands after the move. */
  move: z.object({ type: z.literal('move'), ...placement, from: z.string(), ...carried }),

  end: z.object({
    type: z.literal('end'),
    ...placement,
    end: z.string(),
    durationMs: z.number(),
    ...carried,
  }),

  /** So many lines are missing here. */
  lost: z.object({ type: z.literal('lost'), atMs, lines: z.number() }),
};

const anyLine = z.object({ type: z.string() });

type Lines = typeof LINES;

/** A line as it is written. */
export type WrittenLine = { [T in keyof Lines]: z.input<Lines[T]> }[keyof Lines];

/** A line as it is read. */
export type LoggedConfiguration = z.output<Lines['config']>;
export type LoggedEpoch = z.output<Lines['epoch']>;
export type LoggedMember = LoggedEpoch['views'][number]['backends'][number];
export type LoggedPlacement = z.output<Lines['start']> | z.output<Lines['move']>;

export type LoggedLine =
  | LoggedConfiguration
  | LoggedEpoch
  | LoggedPlacement
  | z.output<Lines['lost']>
  /** Ends, which no reader here needs, and types that came later than this reader. */
  | { readonly type: 'other' }
  | { readonly type: 'damaged'; readonly evidence: string };

/** JSON, with its line feed. Members come in the order in which they stand in the object. */
export function writeLine(line: WrittenLine): string {
  return `${JSON.stringify(line)}\n`;
}

/**
 * Reads a flow log, however long, a piece at a time. Lines that cannot be read come as damaged. Rejects only if
 * `chunks` does.
 */
export async function* readFlowLog(
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<readonly { readonly number: number; readonly line: LoggedLine }[]> {
  for await (const lines of splitLines(chunks)) {
    yield lines.map(({ number, text }) => ({ number, line: readLine(text) }));
  }
}

function readLine(text: string | undefined): LoggedLine {
  if (text === undefined) return { type: 'damaged', evidence: 'The line is too long' };
  try {
    const json: unknown = JSON.parse(text);
    const { type } = anyLine.parse(json);
    switch (type) {
      case 'config':
      case 'epoch':
      case 'start':
      case 'move':
      case 'lost':
        return LINES[type].parse(json);
      default:
        return { type: 'other' };
    }
  } catch (error) {
    return { type: 'damaged', evidence: reasonOf(error) };
  }
}

function reasonOf(error: unknown): string {
  const issue = error instanceof z.ZodError ? error.issues[0] : undefined;
  if (issue === undefined) return errorMessage(error);
  return `${issue.path.length === 0 ? 'The line' : `"${issue.path.join('.')}"`}: ${issue.message}`;
}

/** A line of a file. */
export interface NumberedLine {
  /** From 1. */
  readonly number: number;
  /** Undefined: it is longer than any that can be read. */
  readonly text: string | undefined;
}

/** The longest line that is held: a configuration of 100,000 backends has room. In UTF-16 units. */
const MOST_LENGTH = 64 * 1024 * 1024;

/**
 * UTF-8 text cut into lines, many at a time, blank ones left out. The last may lack its line feed. Holds one line at
 * most: of one longer than `mostLength` only the number is given.
 */
export async function* splitLines(
  chunks: AsyncIterable<Uint8Array>,
  mostLength: number = MOST_LENGTH,
): AsyncGenerator<readonly NumberedLine[]> {
  const decoder = new TextDecoder();
  let number = 1;
  let rest = '';
  let tooLong = false;
  const take = (end: string): NumberedLine | undefined => {
    const text = tooLong || rest.length + end.length > mostLength ? undefined : rest + end;
    rest = '';
    tooLong = false;
    const line = { number: number++, text };
    return text?.trim() === '' ? undefined : line;
  };
  for await (const chunk of chunks) {
    const parts = decoder.decode(chunk, { stream: true }).split('\n');
    const last = parts.pop() ?? '';
    const lines = parts.map(take).filter((line) => line !== undefined);
    tooLong ||= rest.length + last.length > mostLength;
    rest = tooLong ? '' : rest + last;
    if (lines.length > 0) yield lines;
  }
  const line = rest === '' && !tooLong ? undefined : take(decoder.decode());
  if (line !== undefined) yield [line];
}
