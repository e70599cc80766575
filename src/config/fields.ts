import { z } from 'zod';
import { isWildcard, parseCidr, parseEndpoint, parseIpAddress, type IpAddress } from '../model/address.js';
import { formatDuration, parseDuration } from '../model/configuration.js';
import { parsePortSet, portSetOf, type PortRange, type PortSet } from '../model/ports.js';

// The building blocks of the schema. Every custom message is the text after "Expected": what must be.

const NAME = /^[a-z0-9][a-z0-9-]{0,62}$/;

/** Whether something could bear this name; see nameField. */
export function isName(text: string): boolean {
  return NAME.test(text) && text !== 'constructor';
}

/** Text that `parse` turns into a value; what it returns undefined for is refused as not being `expected`. */
export function parsed<T>(parse: (text: string) => T | undefined, expected: string) {
  return z.string({ error: expected }).transform((text, context): T => {
    const value = parse(text);
    if (value !== undefined) return value;
    context.addIssue({ code: 'custom', message: expected });
    return z.NEVER;
  });
}

/** A name of something in the configuration. Names reach nft text, hence the narrow alphabet. */
export function nameField() {
  const expected = 'a name of up to 63 lower-case letters, digits and hyphens, the first no hyphen';
  return (
    z
      .string({ error: expected })
      .regex(NAME, { error: expected })
      // The one key of Object.prototype that looks like a name; records are looked up by name.
      .refine((text) => text !== 'constructor', {
        error: 'a name other than the reserved word "constructor"',
      })
  );
}

export function integerField(minimum: number, maximum: number) {
  const error = `a whole number from ${minimum} to ${maximum}`;
  return z.int({ error }).min(minimum, { error }).max(maximum, { error });
}

export function textField(expected: string, pattern: RegExp) {
  return z.string({ error: expected }).regex(pattern, { error: expected });
}

/** A duration with a unit, as milliseconds. Both ends included. */
export function durationField(minimumMs: number, maximumMs: number) {
  const range = `from ${formatDuration(minimumMs)} to ${formatDuration(maximumMs)}`;
  return parsed((text) => {
    const ms = parseDuration(text);
    return ms === undefined || ms < minimumMs || ms > maximumMs ? undefined : ms;
  }, `a duration ${range} such as "500ms", "5s", "4m" or "1h"`).meta({ pattern: '^[0-9]{1,9}(ms|s|m|h)$' });
}

function isMulticast(address: IpAddress): boolean {
  const first = address.bytes[0] ?? 0;
  // 224.0.0.0/4 with 240.0.0.0/4 (reserved, and broadcast at its end) above it; ff00::/8.
  return address.family === 4 ? first >= 224 : first === 0xff;
}

function isUnscopedLinkLocal(address: IpAddress): boolean {
  return (
    address.family === 6 &&
    address.zone === undefined &&
    address.bytes[0] === 0xfe &&
    ((address.bytes[1] ?? 0) & 0xc0) === 0x80
  );
}

/** An address to listen on: of this machine, or the wildcard. */
export function listenAddressField() {
  return parsed((text) => {
    const address = parseIpAddress(text);
    return address === undefined || isMulticast(address) || isUnscopedLinkLocal(address)
      ? undefined
      : address;
  }, 'an IP address such as "10.0.0.4" or "fd00::4" (link-local ones as "fe80::1%eth0"), ' + 'no host name, prefix, multicast or broadcast');
}

/** The address of one host. */
export function hostAddressField() {
  return parsed((text) => {
    const address = parseIpAddress(text);
    const unusable =
      address === undefined || isMulticast(address) || isUnscopedLinkLocal(address) || isWildcard(address);
    return unusable ? undefined : address;
  }, 'the IP address of one host such as "10.0.0.4" or "fd00::4" (link-local ones as "fe80::1%eth0"), ' + 'no host name, prefix, wildcard, multicast or broadcast');
}

export function cidrField() {
  return parsed(
    parseCidr,
    'an address block such as "10.0.0.0/8" or "fd00::/8", no bits set beyond its prefix',
  );
}

export function endpointField() {
  return parsed((text) => {
    const endpoint = parseEndpoint(text);
    return endpoint === undefined || isMulticast(endpoint.address) ? undefined : endpoint;
  }, 'an address and port such as "127.0.0.1:9902" or "[::1]:9902"');
}

/** An absolute http or https URL, as it was written. No user and password: fetch refuses them, and logs would show them. */
export function webhookField() {
  return parsed((text) => {
    const url = URL.canParse(text) ? new URL(text) : undefined;
    const fits = url?.protocol === 'http:' || url?.protocol === 'https:';
    return fits && url.username === '' && url.password === '' ? text : undefined;
  }, 'an http or https URL such as "https://alerts.example/haports", no user and password in it');
}

/** A set of ports, as text or as one number. */
export function portSetField() {
  const expected = 'ports from 1 to 65535 such as "443", "8000-8099" or "22, 80, 8000-8099"';
  return z.union(
    [integerField(1, 65535).transform((port): PortSet => portSetOf(port)), parsed(parsePortSet, expected)],
    { error: expected },
  );
}

/** One port from 0, or one range from 1, as a range. */
export function portOrRangeField() {
  const expected = 'a port from 0 to 65535, or a range such as "5000-5100"';
  return z.union(
    [
      integerField(0, 65535).transform((port): PortRange => ({ first: port, last: port })),
      parsed((text): PortRange | undefined => {
        const set = parsePortSet(text);
        return set?.length === 1 ? set[0] : undefined;
      }, expected),
    ],
    { error: expected },
  );
}

/** Whether a Maglev table may have `size` slots: then every backend's stride visits every slot. */
export function isPrime(size: number): boolean {
  if (size < 2) return false;
  for (let divisor = 2; divisor * divisor <= size; divisor++) if (size % divisor === 0) return false;
  return true;
}

export function tableSizeField(maximum: number) {
  const error = `a prime from 251 to ${maximum}`;
  return z
    .int({ error })
    .min(251, { error, abort: true })
    .max(maximum, { error, abort: true })
    .refine(isPrime, { error });
}
