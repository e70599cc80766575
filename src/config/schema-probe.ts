import { z } from 'zod';
import type { StatusRange } from '../model/configuration.js';
import { durationField, hostAddressField, integerField, nameField, parsed, textField } from './fields.js';

/** Parses `"200"` or `"200-399,401"`, codes from 100 to 599. */
export function parseStatusRanges(text: string): readonly StatusRange[] | undefined {
  const ranges: StatusRange[] = [];
  for (const part of text.split(',')) {
    const match = /^\s*([1-5]\d\d)\s*(?:-\s*([1-5]\d\d)\s*)?$/.exec(part);
    if (match === null) return undefined;
    const range = { first: Number(match[1]), last: Number(match[2] ?? match[1]) };
    if (range.first > range.last) return undefined;
    ranges.push(range);
  }
  return ranges;
}

const STATUS = 'HTTP status codes from 100 to 599 such as "200" or "200-399,401"';
const threshold = integerField(1, 100);

export const probeSchema = z
  .strictObject({
    name: nameField().describe('Name of the probe, unique among probes'),
    protocol: z
      .enum(['tcp', 'http', 'https'])
      .describe('tcp: a connection opens. http, https: a GET is answered as expected'),
    port: integerField(1, 65535).describe("Port probed on each backend's own address"),
    path: textField('a path that starts with "/" and has no spaces, such as "/healthz"', /^\/[!-~]*$/)
      .describe('Path and query of the GET. http and https only')
      .meta({ default: '/' })
      .exactOptional(),
    host: textField('a host name or address, with a port if need be', /^[A-Za-z0-9.:[\]_-]{1,255}$/)
      .describe("Host header. Default: the backend's address. http and https only")
      .exactOptional(),
    serverName: textField('a host name', /^[A-Za-z0-9._-]{1,253}$/)
      .describe(
        'TLS server name (SNI), also what the certificate must be for. Default: host, if it is a name. https only',
      )
      .exactOptional(),
    expectStatus: z
      .union(
        [
          integerField(100, 599).transform((code): readonly StatusRange[] => [{ first: code, last: code }]),
          parsed(parseStatusRanges, STATUS),
        ],
        { error: STATUS },
      )
      .describe('Status codes that count as healthy. Default 200, as Azure. http and https only')
      .exactOptional(),
    expectBody: z
      .string({ error: 'text of 1 to 1024 characters' })
      .min(1, { error: 'text of 1 to 1024 characters' })
      .max(1024, { error: 'text of 1 to 1024 characters' })
      .describe('Text that the first 64 KiB of the body must contain. http and https only')
      .exactOptional(),
    interval: durationField(100, 3_600_000)
      .describe('From the start of one probe to the start of the next, 100ms to 1h')
      .prefault('5s'),
    timeout: durationField(10, 3_600_000)
      .describe(
        'How long a probe may take; at most the interval. Default: the interval (tcp), or the shorter of the ' +
          'interval and 30s (http, https), as Azure',
      )
      .exactOptional(),
    threshold: z
      .union(
        [
          threshold.transform((count) => ({ up: count, down: count })),
          z.strictObject({
            up: threshold.describe('Successes in a row that bring a backend up').default(2),
            down: threshold.describe('Failures in a row that take a backend down').default(2),
          }),
        ],
        { error: 'a whole number from 1 to 100, or {"up": ..., "down": ...}' },
      )
      .describe('Results in a row that change the state, both ways or apart')
      .prefault(2),
    ca: z
      .string({ error: 'the path of a PEM file' })
      .min(1, { error: 'the path of a PEM file' })
      .describe(
        'PEM file of the authority to trust, read when the configuration is. Default: the well-known ones. https only',
      )
      .exactOptional(),
    skipVerify: z
      .boolean()
      .describe('Take any certificate. https only')
      .meta({ default: false })
      .exactOptional(),
    sourceAddress: hostAddressField()
      .describe("Local address that probes come from. Default: the machine's choice")
      .exactOptional(),
    sendProxy: z
      .enum(['none', 'v1', 'v2'])
      .describe('PROXY protocol header (LOCAL, UNKNOWN) sent first, for backends that insist on one')
      .default('none'),
    flapDamping: z
      .strictObject({
        transitions: integerField(2, 1000).describe('Changes of state within the window').default(6),
        window: durationField(1000, 86_400_000).describe('How far back changes count').prefault('1m'),
        hold: durationField(1000, 86_400_000).describe('How long the next up is held back').prefault('30s'),
      })
      .describe('Keeps a backend that goes up and down all the time down for longer. Off by default')
      .exactOptional(),
    weightFromProbeHeader: textField('the name of an HTTP header', /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$/)
      .describe(
        "Response header whose number, 0 to 256, becomes the backend's weight (Google Cloud: " +
          'X-Load-Balancing-Endpoint-Weight). Default: weights do not change. http and https only',
      )
      .exactOptional(),
    explicitAnswerFlips: z
      .boolean()
      .describe(
        'An answer, good or bad, changes the state at once and only missing answers are counted, as Azure. ' +
          'false: the threshold holds for all. http and https only',
      )
      .meta({ default: true })
      .exactOptional(),
  })
  .describe('An active health check, shared by the rules that name it');

export type ProbeInput = z.output<typeof probeSchema>;
