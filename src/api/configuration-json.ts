import { ipAddress, parseCidr, type Cidr, type IpAddress } from '../model/address.js';
import { linkRules, type Configuration, type NamedRule, type Rule } from '../model/configuration.js';

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
  const { admin, webhook, ...rest } = configuration;
  return {
    ...rest,
    ...(admin === undefined
      ? {}
      : {
          admin: {
            ...admin,
            ...(admin.tls === undefined ? {} : { tls: { ...admin.tls, key: HIDDEN } }),
            ...(admin.token === undefined ? {} : { token: HIDDEN }),
          },
        }),
    ...(webhook === undefined ? {} : { webhook: { url: `${new URL(webhook.url).origin}/${HIDDEN}` } }),
  };
}

/** Keys of a configuration whose value is an address, a list or record of them, a block, or a list of blocks. */
const ADDRESS_KEYS: ReadonlySet<string> = new Set(['address', 'sourceAddress']);
const ADDRESS_LIST_KEYS: ReadonlySet<string> = new Set(['sourceAddresses']);
const ADDRESS_RECORD_KEYS: ReadonlySet<string> = new Set(['floatingAddresses']);
const BLOCK_KEYS: ReadonlySet<string> = new Set(['block']);
const BLOCK_LIST_KEYS: ReadonlySet<string> = new Set(['trustedSources', 'allow', 'deny', 'spokes']);

/**
 * Rebuilds what `configurationToJson` wrote. The input is trusted to be that: nothing but addresses is checked.
 * Throws TypeError on text that is no address or block, and on a rule that names something missing.
 */
export function configurationFromJson(json: Json): Configuration {
  const read = revive(json) as Omit<Configuration, 'rules'> & { readonly rules: readonly NamedRule[] };
  return { ...read, rules: linkRules(read.rules, read) };
}

function revive(json: Json): unknown {
  if (json === null || typeof json !== 'object') return json;
  if (isList(json)) return json.map(revive);
  return Object.fromEntries(Object.entries(json).map(([key, value]) => [key, reviveMember(key, value)]));
}

function reviveMember(key: string, value: Json): unknown {
  if (ADDRESS_KEYS.has(key)) return ipAddress(textOf(value));
  if (ADDRESS_LIST_KEYS.has(key) && isList(value)) return value.map((item) => ipAddress(textOf(item)));
  if (BLOCK_KEYS.has(key)) return cidr(textOf(value));
  if (BLOCK_LIST_KEYS.has(key) && isList(value)) return value.map((item) => cidr(textOf(item)));
  if (ADDRESS_RECORD_KEYS.has(key) && value !== null && typeof value === 'object') {
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, ipAddress(textOf(item))]));
  }
  return revive(value);
}

function isList(json: Json): json is readonly Json[] {
  return Array.isArray(json);
}

function textOf(json: Json): string {
  if (typeof json !== 'string') throw new TypeError(`Not an address: ${JSON.stringify(json)}`);
  return json;
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
