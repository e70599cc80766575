import type { z } from 'zod';
import type { Path } from './findings.js';
import type { ProbeInput } from './schema-probe.js';
import {
  LIST_SCHEMAS,
  configSchema,
  kernelSchema,
  type BackendPoolInput,
  type ConfigInput,
  type FrontendInput,
  type KernelInput,
  type RuleInput,
} from './schema.js';

/** A part of the configuration and the place it came from. */
export interface Located<T> {
  readonly path: Path;
  readonly value: T;
}

export type ListName = keyof typeof LIST_SCHEMAS;

/**
 * As much of a configuration as has the right shape. Elements of lists that are wrong are left out, so that the
 * checks after the schema can go on with the rest and all issues are told at once.
 */
export interface Draft {
  /** Everything but the lists; what was wrong has its default. */
  readonly root: Omit<ConfigInput, ListName>;
  readonly frontends: readonly Located<FrontendInput>[];
  readonly probes: readonly Located<ProbeInput>[];
  readonly pools: readonly Located<BackendPoolInput>[];
  readonly rules: readonly Located<RuleInput>[];
  /** Every name that was given, those of wrong elements included. */
  readonly declared: Readonly<Record<ListName, readonly Located<string>[]>>;
  /** Every name that something was called by, by wrong elements too. */
  readonly references: readonly Reference[];
  /** The data plane that was asked for, even where something about it is wrong. */
  readonly plane: PlaneDraft;
  /** Whether what is at a place was written there, not left to its default. */
  readonly given: (path: Path) => boolean;
}

/** `kernel` has no options where those that were given are wrong: then nothing can be said about its mode. */
export type PlaneDraft =
  { readonly kind: 'userspace' } | { readonly kind: 'kernel'; readonly options?: KernelInput };

/** Where a name stands that something in `list` should bear. */
export interface Reference extends Located<string> {
  readonly list: ListName;
  /** The name is a key. */
  readonly atKey: boolean;
}

/** Slots of a table on the data plane that was asked for. */
export function tableSizeOf({ root, plane }: Pick<Draft, 'root' | 'plane'>): number {
  return (plane.kind === 'kernel' ? plane.options?.tableSize : undefined) ?? root.tableSize;
}

/** Undefined if `raw` is no object at all. */
export function draftOf(raw: unknown): Draft | undefined {
  if (!isObject(raw)) return undefined;
  const declared = (list: ListName) =>
    elements(raw, list).flatMap((element, index) => {
      const name = isObject(element) ? element['name'] : undefined;
      return typeof name === 'string' ? [{ path: [list, index, 'name'], value: name }] : [];
    });
  const root = rootOf(raw);
  return {
    root,
    frontends: rightOnes(raw, 'frontends', LIST_SCHEMAS.frontends),
    probes: rightOnes(raw, 'probes', LIST_SCHEMAS.probes),
    pools: rightOnes(raw, 'backendPools', LIST_SCHEMAS.backendPools),
    rules: rightOnes(raw, 'rules', LIST_SCHEMAS.rules),
    declared: {
      frontends: declared('frontends'),
      probes: declared('probes'),
      backendPools: declared('backendPools'),
      rules: declared('rules'),
    },
    references: [...ruleReferences(raw), ...aliasReferences(raw)],
    plane: planeOf(raw, root),
    given: (path) => isGiven(raw, path),
  };
}

type JsonObject = Readonly<Record<string, unknown>>;

const REFERENCE_KEYS: readonly (readonly [string, ListName])[] = [
  ['frontend', 'frontends'],
  ['backendPool', 'backendPools'],
  ['probe', 'probes'],
];

function ruleReferences(raw: JsonObject): Reference[] {
  return elements(raw, 'rules').flatMap((rule, index) =>
    REFERENCE_KEYS.flatMap(([key, list]): Reference[] => {
      const value = isObject(rule) ? rule[key] : undefined;
      return typeof value === 'string' ? [{ path: ['rules', index, key], value, list, atKey: false }] : [];
    }),
  );
}

function aliasReferences(raw: JsonObject): Reference[] {
  return elements(raw, 'backendPools').flatMap((pool, poolIndex) => {
    const backends = isObject(pool) ? pool['backends'] : undefined;
    return (Array.isArray(backends) ? backends : []).flatMap((backend: unknown, index) => {
      const aliases = isObject(backend) ? backend['floatingAddresses'] : undefined;
      return Object.keys(isObject(aliases) ? aliases : {}).map((value): Reference => {
        const path = ['backendPools', poolIndex, 'backends', index, 'floatingAddresses', value];
        return { path, value, list: 'frontends', atKey: true };
      });
    });
  });
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isGiven(raw: unknown, [key, ...rest]: Path): boolean {
  if (key === undefined) return true;
  const holder = Array.isArray(raw) || isObject(raw) ? (raw as JsonObject) : {};
  return Object.hasOwn(holder, key) && isGiven(holder[key], rest);
}

/** What is wrong in `dataPlane` has made all of it default. */
function planeOf(raw: JsonObject, { dataPlane }: Pick<ConfigInput, 'dataPlane'>): PlaneDraft {
  if (dataPlane.kind === 'kernel') {
    return { kind: 'kernel', options: dataPlane.kernel ?? kernelSchema.parse({}) };
  }
  const asked = raw['dataPlane'];
  return isObject(asked) && asked['kind'] === 'kernel' ? { kind: 'kernel' } : { kind: 'userspace' };
}

function elements(raw: JsonObject, list: ListName): readonly unknown[] {
  const value = raw[list];
  return Array.isArray(value) ? value : [];
}

function rightOnes<S extends z.ZodType>(raw: JsonObject, list: ListName, schema: S): Located<z.output<S>>[] {
  return elements(raw, list).flatMap((element, index) => {
    const result = schema.safeParse(element);
    return result.success ? [{ path: [list, index], value: result.data }] : [];
  });
}

function rootOf(raw: JsonObject): ConfigInput {
  const lists = { frontends: [], probes: [], backendPools: [], rules: [] };
  const root = { ...raw, ...lists };
  const first = configSchema.safeParse(root);
  if (first.success) return first.data;
  const wrong = new Set<unknown>(
    first.error.issues.flatMap((issue) =>
      issue.code === 'unrecognized_keys' && issue.path.length === 0 ? issue.keys : [issue.path[0]],
    ),
  );
  const right = Object.entries(root).filter(([key]) => !wrong.has(key));
  return configSchema.parse(Object.fromEntries(right));
}
