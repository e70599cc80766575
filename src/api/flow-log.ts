import { z } from 'zod';
import { ipAddress, parseCidr, parseIpAddress, type Cidr, type IpAddress } from '../model/address.js';
import { linkRules, type Configuration, type NamedRule, type Rule } from '../model/configuration.js';
import { errorMessage } from '../model/errors.js';
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

/** Addresses of two families come from a PROXY protocol header that names one of them in its IPv4-mapped form. */
const tuple = z.object({
  protocol,
  source: address,
  sourcePort: port,
  destination: address,
  destinationPort: port,
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

/** Anything that JSON can carry. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };

/** Stands where something secret stood. */
export const HIDDEN = '(hidden)';

/**
 * The configuration as JSON: addresses and address blocks as their canonical text, what a rule is linked to by name,
 * everything else as it is, but for what is secret: the admin token and TLS key, and the path of the webhook (it often holds a key), are HIDDEN.
 * `configurationFromJson` is its inverse, secrets aside.
 */
export function configurationToJson(configuration: Configuration): Json {
  const named = { ...withoutSecrets(configuration), rules: configuration.rules.map(namedRule) };
  return JSON.parse(
    JSON.stringify(named, (_key, value: unknown) => (isAddressOrBlock(value) ? value.text : value)),
  ) as Json;
}

function namedRule({ name, frontend, pool, probe, ...rest }: Rule): NamedRule {
  return { name, frontend: frontend.name, backendPool: pool.name, probe: probe?.name, ...rest };
}

/** The same configuration with HIDDEN in place of what is secret: for everything that is written or sent. */
export function withoutSecrets(configuration: Configuration): Configuration {
  const { admin, webhook } = configuration;
  return {
    ...configuration,
    ...(admin && {
      admin: {
        ...admin,
        ...(admin.tls && { tls: { ...admin.tls, key: HIDDEN } }),
        ...(admin.token !== undefined && { token: HIDDEN }),
      },
    }),
    ...(webhook && { webhook: { url: `${new URL(webhook.url).origin}/${HIDDEN}` } }),
  };
}

type ReadText = (text: string) => IpAddress | Cidr;

/** Keys of a configuration whose value is an address or an address block, or a list or record of them. */
const READERS: ReadonlyMap<string, ReadText> = new Map<string, ReadText>([
  ['address', ipAddress],
  ['sourceAddress', ipAddress],
  ['sourceAddresses', ipAddress],
  ['floatingAddresses', ipAddress],
  ['block', cidr],
  ['trustedSources', cidr],
  ['allow', cidr],
  ['deny', cidr],
  ['spokes', cidr],
]);

/**
 * Rebuilds what `configurationToJson` wrote. The input is trusted to be that: nothing but addresses is checked.
 * Throws TypeError on text that is no address or block, and on a rule that names something missing.
 */
export function configurationFromJson(json: Json): Configuration {
  const read = revive(json) as Omit<Configuration, 'rules'> & { readonly rules: readonly NamedRule[] };
  return { ...read, rules: linkRules(read.rules, read) };
}

/** `read`: what texts are read by, however deep; undefined: keys say so. */
function revive(json: Json, read?: ReadText): unknown {
  if (typeof json === 'string' && read !== undefined) return read(json);
  if (isList(json)) return json.map((item) => revive(item, read));
  if (json !== null && typeof json === 'object') {
    const members = Object.entries(json);
    return Object.fromEntries(members.map(([key, value]) => [key, revive(value, read ?? READERS.get(key))]));
  }
  if (read === undefined) return json;
  throw new TypeError(`Not an address: ${JSON.stringify(json)}`);
}

function isList(json: Json): json is readonly Json[] {
  return Array.isArray(json);
}

function cidr(text: string): Cidr {
  const block = parseCidr(text);
  if (block === undefined) throw new TypeError(`Not an address block: "${text}"`);
  return block;
}

function isAddressOrBlock(value: unknown): value is IpAddress | Cidr {
  if (value === null || typeof value !== 'object' || !('text' in value)) return false;
  return 'bytes' in value || 'prefixLength' in value;
}
