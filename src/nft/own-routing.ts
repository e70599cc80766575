import type { BalancerError } from '../model/errors.js';
import {
  anyIpRoute,
  backendRoute,
  backendRule,
  everythingLocalRoute,
  ipCommandLine,
  isBackendTable,
  loopbackAddress,
  markRule,
  ROUTE_PROTOCOL,
  sameEntry,
  type RoutingEntry,
} from './routing-entry.js';
import { succeeded, toolFailure } from './tool-failure.js';
import type { Tools } from './tools.js';

/** Where entries are looked for. */
type Place = 'private-routes' | 'own-table' | 'backend-tables' | 'addresses' | 'rules';

interface Listing {
  readonly place: Place;
  readonly family: 4 | 6;
}

const EVERYWHERE: readonly Listing[] = ([4, 6] as const).flatMap((family) =>
  (['private-routes', 'own-table', 'backend-tables', 'addresses', 'rules'] as const).map((place) => ({
    place,
    family,
  })),
);

/**
 * All that carries the tag, as it was made. `like`: only in places where these are, which takes fewer processes.
 * Rejects with BalancerError.
 */
export async function listOwnRouting(
  tools: Tools,
  tag: number,
  like?: readonly RoutingEntry[],
): Promise<RoutingEntry[]> {
  const wanted = (one: Listing): boolean =>
    like?.some((entry) => entry.family === one.family && placeOf(entry) === one.place) ?? true;
  const found = await Promise.all(EVERYWHERE.filter(wanted).map((one) => list(tools, tag, one)));
  return found.flat();
}

/** Puts entries in place; one that is there already is left. Rejects with BalancerError at the first that cannot be. */
export async function addRouting(tools: Tools, entries: readonly RoutingEntry[]): Promise<void> {
  for (const entry of entries) {
    // `ip rule` knows no replace. It is only called for what is missing.
    const failure = await change(tools, entry.object === 'rule' ? 'add' : 'replace', entry);
    if (failure !== undefined && !failure.message.includes('File exists')) throw failure;
  }
}

/** Takes entries away, all that can be. The failure of the first that could not be. */
export async function deleteRouting(
  tools: Tools,
  entries: readonly RoutingEntry[],
): Promise<BalancerError | undefined> {
  let first: BalancerError | undefined;
  for (const entry of entries) {
    const failure = await change(tools, 'del', entry);
    // Gone by itself, or with its device.
    if (
      failure !== undefined &&
      !/No such process|Cannot assign requested address|No such file/.test(failure.message)
    ) {
      first ??= failure;
    }
  }
  return first;
}

export function without(entries: readonly RoutingEntry[], others: readonly RoutingEntry[]): RoutingEntry[] {
  return entries.filter((entry) => !others.some((other) => sameEntry(entry, other)));
}

async function change(
  tools: Tools,
  verb: 'add' | 'replace' | 'del',
  entry: RoutingEntry,
): Promise<BalancerError | undefined> {
  const [, ...args] = ipCommandLine(verb, entry).split(' ');
  const outcome = await tools.run('ip', args);
  return succeeded(outcome) ? undefined : toolFailure('ip', outcome);
}

async function list(tools: Tools, tag: number, { place, family }: Listing): Promise<RoutingEntry[]> {
  const args = ['-N', '-j', `-${family}`, ...listArgs(place, tag)];
  const outcome = await tools.run('ip', args);
  if (!succeeded(outcome)) {
    // The instance's own table does not exist before its first route; a kernel may be without IPv6.
    if (/table does not exist|Address family not supported/i.test(outcome.stderr)) return [];
    throw toolFailure('ip', outcome);
  }
  const found = records(outcome.stdout);
  if (found === undefined) throw toolFailure('ip', { ...outcome, failure: 'no JSON' });
  return found.flatMap((record) => entryOf(record, place, family, tag) ?? []);
}

function listArgs(place: Place, tag: number): readonly string[] {
  switch (place) {
    case 'private-routes':
      return ['route', 'show', 'table', 'local', 'proto', ROUTE_PROTOCOL];
    case 'own-table':
      return ['route', 'show', 'table', String(tag)];
    case 'backend-tables':
      return ['route', 'show', 'table', 'all', 'proto', ROUTE_PROTOCOL];
    case 'addresses':
      return ['addr', 'show', 'dev', 'lo'];
    case 'rules':
      return ['rule', 'show'];
  }
}

function entryOf(
  record: Record<string, unknown>,
  place: Place,
  family: 4 | 6,
  tag: number,
): RoutingEntry | undefined {
  const mine = record['metric'] === tag;
  switch (place) {
    case 'private-routes':
      return mine ? anyIpRoute(family, String(record['dst']), tag) : undefined;
    case 'own-table':
      return record['dst'] === 'default' ? everythingLocalRoute(family, tag) : undefined;
    case 'backend-tables': {
      const table = Number(record['table']);
      const { gateway } = record;
      if (!isBackendTable(tag, table) || typeof gateway !== 'string') return undefined;
      return backendRoute(family, gateway, table);
    }
    case 'addresses':
      return mine ? loopbackAddress(family, String(record['local']), tag) : undefined;
    case 'rules': {
      const table = Number(record['table']);
      if (isBackendTable(tag, table)) return backendRule(family, Number(record['fwmark']), table);
      const mark = `${String(record['fwmark'])}/${String(record['fwmask'])}`;
      return record['table'] === String(tag) ? markRule(family, mark, tag) : undefined;
    }
  }
}

function placeOf({ object, args }: RoutingEntry): Place {
  if (object === 'addr') return 'addresses';
  if (object === 'rule') return 'rules';
  if (!args.includes('table')) return 'private-routes';
  return args.includes('via') ? 'backend-tables' : 'own-table';
}

/** What `ip -j` prints: a list, of devices with lists of addresses for `addr`. Nothing at all where there is nothing. */
function records(json: string): Record<string, unknown>[] | undefined {
  const parsed = json.trim() === '' ? [] : parseJson(json);
  if (!Array.isArray(parsed)) return undefined;
  const items: unknown[] = parsed;
  return items.filter(isRecord).flatMap((item) => {
    const addresses: unknown = item['addr_info'];
    return Array.isArray(addresses) ? (addresses as unknown[]).filter(isRecord) : [item];
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}
