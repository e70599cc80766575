import { parseEndpoint, parseIpAddress, type IpAddress } from '../model/address.js';
import { parseDuration } from '../model/duration.js';
import { usageError } from './error-problem.js';

/*
 * What requests say, taken apart by hand. A field that is not what it must be throws `LB_USAGE`, which says what is
 * there and what must be; one that is not there is undefined.
 */

type Fields = Readonly<Record<string, unknown>>;

/** Throws if there is a key besides these. */
export function assertKeys(fields: Fields, keys: readonly string[]): void {
  const unknown = Object.keys(fields).find((key) => !keys.includes(key));
  if (unknown === undefined) return;
  throw usageError(`Unknown key ${JSON.stringify(unknown)}, must be one of ${keys.join(', ')}`);
}

/** The query as fields. Throws where a key is unknown or there twice. */
export function queryFields(url: string, keys: readonly string[]): Readonly<Record<string, string>> {
  const { searchParams } = new URL(url);
  const fields = Object.fromEntries(searchParams);
  assertKeys(fields, keys);
  const twice = keys.find((key) => searchParams.getAll(key).length > 1);
  if (twice !== undefined) throw usageError(`"${twice}" is there more than once`);
  return fields;
}

/** The value, which must be there. */
export function required<T>(value: T | undefined, key: string): T {
  if (value === undefined) throw usageError(`Missing key "${key}"`);
  return value;
}

export function textOf(fields: Fields, key: string): string | undefined {
  return field(fields, key, 'a text', (value) =>
    typeof value === 'string' && value.length <= 1000 ? value : undefined,
  );
}

export function wordOf<const W extends string>(
  fields: Fields,
  key: string,
  words: readonly W[],
): W | undefined {
  return field(fields, key, `one of ${words.join(', ')}`, (value) => words.find((word) => word === value));
}

export function flagOf(fields: Fields, key: string): boolean | undefined {
  return field(fields, key, 'true or false', (value) => (typeof value === 'boolean' ? value : undefined));
}

export interface Range {
  readonly from: number;
  readonly to: number;
}

/** A number in a body. */
export function integerOf(fields: Fields, key: string, range: Range): number | undefined {
  return field(fields, key, wholeNumber(range), (value) =>
    Number.isInteger(value) ? within(value as number, range) : undefined,
  );
}

/** A number in a query, which is text. */
export function queryIntegerOf(fields: Fields, key: string, range: Range): number | undefined {
  return field(fields, key, wholeNumber(range), (value) =>
    typeof value === 'string' && /^\d{1,15}$/.test(value) ? within(Number(value), range) : undefined,
  );
}

/** A duration with a unit, in milliseconds. */
export function durationOf(fields: Fields, key: string, range: Range): number | undefined {
  return field(fields, key, 'a duration such as "30s" or "10m", at most 24h', (value) => {
    const ms = typeof value === 'string' ? parseDuration(value) : undefined;
    return ms === undefined ? undefined : within(ms, range);
  });
}

export function addressOf(fields: Fields, key: string): IpAddress | undefined {
  return field(fields, key, 'an IP address', (value) =>
    typeof value === 'string' ? parseIpAddress(value) : undefined,
  );
}

/** An address and a port from 1. */
export function endpointOf(
  fields: Fields,
  key: string,
): { readonly address: IpAddress; readonly port: number } | undefined {
  return field(fields, key, 'an address and port such as 192.0.2.7:40000 or [fd00::7]:40000', (value) => {
    const endpoint = typeof value === 'string' ? parseEndpoint(value) : undefined;
    return endpoint === undefined || endpoint.port === 0 ? undefined : endpoint;
  });
}

function field<T>(
  fields: Fields,
  key: string,
  expected: string,
  read: (value: unknown) => T | undefined,
): T | undefined {
  if (!Object.hasOwn(fields, key)) return undefined;
  const value = read(fields[key]);
  if (value !== undefined) return value;
  throw usageError(`"${key}" is ${inWords(fields[key])}, must be ${expected}`);
}

function wholeNumber({ from, to }: Range): string {
  return to === Number.MAX_SAFE_INTEGER
    ? `a whole number from ${from}`
    : `a whole number from ${from} to ${to}`;
}

function within(value: number, { from, to }: Range): number | undefined {
  return value >= from && value <= to ? value : undefined;
}

function inWords(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object' && value !== null) return 'an object';
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
