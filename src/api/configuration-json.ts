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
