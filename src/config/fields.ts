import { z } from 'zod';
import { isWildcard, parseCidr, parseEndpoint, parseIpAddress, type IpAddress } from '../model/address.js';
import { isPrime } from '../model/configuration.js';
import { formatDuration, parseDuration } from '../model/duration.js';
import { parsePortSet, portSetOf, type PortRange, type PortSet } from '../model/ports.js';

/*
 * The building blocks of the schema: one field is read and turned into its value in one step. Every custom message is the
 * text after "Expected": what must be. A `preset` is what the operator would have to write for the default.
 */

/** Text that `parse` turns into a value; text for which it returns undefined is refused as not being `expected`. */
export function parsed<T>(parse: (text: string) => T | undefined, expected: string): z.ZodType<T> {
  return z.string({ error: expected }).transform((text, context): T => {
    const value = parse(text);
    if (value !== undefined) return value;
    context.addIssue({ code: 'custom', message: expected });
    return z.NEVER;
  });
}

/** The same field with a default, which is read like anything that is written. */
export function orPreset<T>(field: z.ZodType<T>, preset: unknown): z.ZodType<T> {
  return preset === undefined ? field : field.prefault(preset);
}

export function optional<S extends z.ZodType>(field: S): z.ZodExactOptional<S> {
  return field.exactOptional();
}

export function choice<const T extends string>(words: readonly T[], preset?: T): z.ZodType<T> {
  return orPreset(z.enum(words), preset);
}

export function flag(preset?: boolean): z.ZodType<boolean> {
  return orPreset(z.boolean(), preset);
}

/** Both ends included. */
export function integer(minimum: number, maximum: number, preset?: number): z.ZodType<number> {
  const error = `a whole number from ${minimum} to ${maximum}`;
  return orPreset(z.int({ error }).min(minimum, { error }).max(maximum, { error }), preset);
}

export function text(expected: string, pattern: RegExp): z.ZodType<string> {
  return z.string({ error: expected }).regex(pattern, { error: expected });
}

/** An optional list that is empty where it is not written. */
export function list<T>(item: z.ZodType<T>): z.ZodType<readonly T[]> {
  return z.array(item).prefault([]);
}

export function path(expected: string) {
  return z.string({ error: expected }).min(1, { error: expected });
}

const NAME = /^[a-z0-9][a-z0-9-]{0,62}$/;

/** Whether something could bear this name; see `name`. */
export function isName(word: string): boolean {
  return NAME.test(word) && word !== 'constructor';
}

/** A name of something in the configuration. Names reach nft text, hence the narrow alphabet. */
export function name(preset?: string): z.ZodType<string> {
  const expected = 'a name of up to 63 lower-case letters, digits and hyphens, the first no hyphen';
  // The one key of Object.prototype that looks like a name; records are looked up by name.
  const reserved = 'a name other than the reserved word "constructor"';
  const field = z.string({ error: expected }).regex(NAME, { error: expected });
  return orPreset(
    field.refine((word) => word !== 'constructor', { error: reserved }),
    preset,
  );
}

/** Milliseconds of a duration, or undefined where it is none or out of range. Both ends included. */
export function msWithin(written: string, minimumMs: number, maximumMs: number): number | undefined {
  const ms = parseDuration(written);
  return ms === undefined || ms < minimumMs || ms > maximumMs ? undefined : ms;
}

/** A duration with a unit, as milliseconds. Both ends included. */
export function duration(minimumMs: number, maximumMs: number, preset?: string): z.ZodType<number> {
  const range = `from ${formatDuration(minimumMs)} to ${formatDuration(maximumMs)}`;
  const expected = `a duration ${range} such as "500ms", "5s", "4m" or "1h"`;
  const field = parsed((written) => msWithin(written, minimumMs, maximumMs), expected);
  return orPreset(field.meta({ pattern: '^[0-9]{1,9}(ms|s|m|h)$' }), preset);
}

function isMulticast({ family, bytes: [first = 0] }: IpAddress): boolean {
  // 224.0.0.0/4 with 240.0.0.0/4 (reserved, and broadcast at its end) above it; ff00::/8.
  return family === 4 ? first >= 224 : first === 0xff;
}

function isUnscopedLinkLocal({ family, zone, bytes: [first, second = 0] }: IpAddress): boolean {
  return family === 6 && zone === undefined && first === 0xfe && (second & 0xc0) === 0x80;
}

function addressField(expected: string, fits: (address: IpAddress) => boolean): z.ZodType<IpAddress> {
  return parsed((written) => {
    const address = parseIpAddress(written);
    const isUsable = address !== undefined && !isMulticast(address) && !isUnscopedLinkLocal(address);
    return isUsable && fits(address) ? address : undefined;
  }, expected);
}

/** An address to listen on: of this machine, or the wildcard. */
export function listenAddress(): z.ZodType<IpAddress> {
  const expected = 'an IP address such as "10.0.0.4" or "fd00::4" (link-local ones as "fe80::1%eth0")';
  return addressField(`${expected}, no host name, prefix, multicast or broadcast`, () => true);
}

/** The address of one host. */
export function hostAddress(): z.ZodType<IpAddress> {
  const expected =
    'the IP address of one host such as "10.0.0.4" or "fd00::4" (link-local ones as "fe80::1%eth0")';
  const others = 'no host name, prefix, wildcard, multicast or broadcast';
  return addressField(`${expected}, ${others}`, (address) => !isWildcard(address));
}

export function cidr() {
  const expected = 'an address block such as "10.0.0.0/8" or "fd00::/8", no bits set beyond its prefix';
  return parsed(parseCidr, expected);
}

export function endpoint() {
  return parsed((written) => {
    const found = parseEndpoint(written);
    return found === undefined || isMulticast(found.address) ? undefined : found;
  }, 'an address and port such as "127.0.0.1:9902" or "[::1]:9902"');
}

/** An absolute http or https URL, as it was written. No user and password: fetch refuses them, and logs would show them. */
export function webhook(): z.ZodType<string> {
  return parsed((written) => {
    const url = URL.canParse(written) ? new URL(written) : undefined;
    const fits = url?.protocol === 'http:' || url?.protocol === 'https:';
    return fits && url.username === '' && url.password === '' ? written : undefined;
  }, 'an http or https URL such as "https://alerts.example/haports", no user and password in it');
}

/** A number, or text that stands for several. */
export function numberOrText<T>(
  expected: string,
  number: z.ZodType<number>,
  ofNumber: (value: number) => T,
  ofText: (written: string) => T | undefined,
): z.ZodType<T> {
  return z.union([number.transform(ofNumber), parsed(ofText, expected)], { error: expected });
}

/** A set of ports, as text or as one number. */
export function portSet(preset?: string): z.ZodType<PortSet> {
  const expected = 'ports from 1 to 65535 such as "443", "8000-8099" or "22, 80, 8000-8099"';
  const one = (port: number): PortSet => portSetOf(port);
  return orPreset(numberOrText(expected, integer(1, 65535), one, parsePortSet), preset);
}

/** One port from 0, or one range from 1, as a range. */
export function portOrRange(): z.ZodType<PortRange> {
  const one = (port: number): PortRange => ({ first: port, last: port });
  const range = (written: string): PortRange | undefined => {
    const set = parsePortSet(written);
    return set?.length === 1 ? set[0] : undefined;
  };
  const expected = 'a port from 0 to 65535, or a range such as "5000-5100"';
  return numberOrText(expected, integer(0, 65535), one, range);
}

export function tableSize(maximum: number, preset: number): z.ZodType<number> {
  const error = `a prime from 251 to ${maximum}`;
  const bounded = z.int({ error }).min(251, { error, abort: true }).max(maximum, { error, abort: true });
  return bounded.refine(isPrime, { error }).prefault(preset);
}
