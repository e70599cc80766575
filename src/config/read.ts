import { z } from 'zod';
import { error, type Issue, type Path } from './findings.js';
import {
  LIST_SCHEMAS,
  configSchema,
  rootSchema,
  type BackendPoolInput,
  type FrontendInput,
  type ProbeInput,
  type RootInput,
  type RuleInput,
} from './schema.js';
import { nearestWord } from './text.js';

/** A part of the configuration and the place it came from. */
export interface Located<T> {
  readonly at: Path;
  readonly value: T;
}

export type ListName = keyof typeof LIST_SCHEMAS;
export const LISTS = Object.keys(LIST_SCHEMAS) as readonly ListName[];

/** A name of something in `list`, or where something in it is called by a name. */
export interface Name extends Located<string> {
  readonly list: ListName;
  /** It is a key. */
  readonly atKey?: boolean;
}

/**
 * As much of a configuration as has the right shape. Elements of lists that are wrong are left out, and wrong keys have
 * their defaults, so that the checks can look at the rest and all issues are reported at once.
 */
export interface Written {
  /** Everything but the lists. */
  readonly root: RootInput;
  readonly frontends: readonly Located<FrontendInput>[];
  readonly probes: readonly Located<ProbeInput>[];
  readonly backendPools: readonly Located<BackendPoolInput>[];
  readonly rules: readonly Located<RuleInput>[];
  /** Whether none is left out: one that cannot be read may use anything. */
  readonly hasAllRules: boolean;
  /** Every name that was given, those of wrong elements included. */
  readonly names: readonly Name[];
  /** Every name that something was called by, by wrong elements too. */
  readonly references: readonly Name[];
  /** Whether the kernel data plane was asked for, even where something about it is wrong. */
  readonly asksForKernel: boolean;
  /** All of it, as JSON. */
  readonly raw: JsonObject;
  /** Whether what is at a place was written there, not left to its default. */
  readonly given: (path: Path) => boolean;
  /** What was written at a place, in words; undefined: nothing, a list or an object. */
  readonly found: (path: Path) => string | undefined;
}

export type JsonObject = Readonly<Record<string, unknown>>;

/** Nothing is `written` if there is no object at all. */
export interface Shape {
  readonly written?: Written;
  readonly issues: readonly Issue[];
}

/** Reads every key and every element once, by its schema. */
export function readShape(raw: unknown): Shape {
  const issues: Issue[] = [];
  /** The value, or undefined where it has issues, which are collected. */
  const read = <T>(schema: z.ZodType<T>, path: Path, value: unknown): T | undefined => {
    const result = schema.safeParse(value, { error: expectedText });
    if (result.success) return result.data;
    issues.push(...result.error.issues.flatMap((issue) => toIssues(issue, raw, path)));
    return undefined;
  };
  if (!isObject(raw)) {
    read(configSchema, [], raw);
    return { issues };
  }
  const root = Object.entries(rootSchema.shape).flatMap(([key, schema]: [string, z.ZodType]) => {
    const written = Object.hasOwn(raw, key) ? read(schema, [key], raw[key]) : undefined;
    const value = written ?? schema.safeParse(undefined).data;
    return value === undefined ? [] : [[key, value] as const];
  });
  const list = <T>(key: ListName, schema: z.ZodType<T>): Located<T>[] => {
    const isOptional = key === 'probes' && !Object.hasOwn(raw, key);
    if (!isOptional) read(z.array(z.unknown()), [key], raw[key]);
    return elements(raw, key).flatMap((element, index) => {
      const at = [key, index];
      const value = read(schema, at, element);
      return value === undefined ? [] : [{ at, value }];
    });
  };
  // Findings at one place stay in this order.
  const lists = {
    frontends: list('frontends', LIST_SCHEMAS.frontends),
    probes: list('probes', LIST_SCHEMAS.probes),
    backendPools: list('backendPools', LIST_SCHEMAS.backendPools),
    rules: list('rules', LIST_SCHEMAS.rules),
  };
  const written: Written = {
    root: Object.fromEntries(root) as RootInput,
    ...lists,
    hasAllRules: Array.isArray(raw['rules']) && raw['rules'].length === lists.rules.length,
    names: LISTS.flatMap((list) => objectsIn(raw, list).flatMap((one) => nameAt(one, 'name', list))),
    references: [...ruleReferences(raw), ...aliasReferences(raw)],
    asksForKernel: valueAt(raw, ['dataPlane', 'kind']).value === 'kernel',
    raw,
    given: (path) => valueAt(raw, path).present,
    found: (path) => {
      const { present, value } = valueAt(raw, path);
      return present && (typeof value !== 'object' || value === null) ? inWords(path, value) : undefined;
    },
  };
  const known = Object.keys(configSchema.shape);
  const unknown = Object.keys(raw).filter((key) => !known.includes(key));
  return { written, issues: [...issues, ...unknown.map((key) => unknownKey([], key, known))] };
}

const REFERENCE_KEYS = { frontend: 'frontends', backendPool: 'backendPools', probe: 'probes' } as const;

/** What is at a key, if that is text. */
function nameAt({ at, value }: Located<JsonObject>, key: string, list: ListName): readonly Name[] {
  const name = value[key];
  return typeof name === 'string' ? [{ list, at: [...at, key], value: name }] : [];
}

function ruleReferences(raw: JsonObject): readonly Name[] {
  return objectsIn(raw, 'rules').flatMap((rule) =>
    Object.entries(REFERENCE_KEYS).flatMap(([key, list]) => nameAt(rule, key, list)),
  );
}

function aliasReferences(raw: JsonObject): readonly Name[] {
  const backends = objectsIn(raw, 'backendPools').flatMap(({ at, value }) =>
    objectsIn(value, 'backends', at),
  );
  return backends.flatMap(({ at, value: { floatingAddresses: aliases } }) =>
    Object.keys(isObject(aliases) ? aliases : {}).map((value): Name => {
      return { list: 'frontends', at: [...at, 'floatingAddresses', value], value, atKey: true };
    }),
  );
}

/** The elements of a list that are objects. */
function objectsIn(holder: JsonObject, key: string, above: Path = []): readonly Located<JsonObject>[] {
  return elements(holder, key).flatMap((value, index) =>
    isObject(value) ? [{ at: [...above, key, index], value }] : [],
  );
}

function elements(holder: JsonObject, key: string): readonly unknown[] {
  const value = holder[key];
  return Array.isArray(value) ? value : [];
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const TYPE_WORDS: Readonly<Record<string, string>> = {
  string: 'text in quotes',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'an object',
  record: 'an object',
};

/** What must be, for the issues whose field does not say it itself; of an unknown key, the known ones. */
function expectedText(issue: z.core.$ZodRawIssue): string | undefined {
  if (issue.code === 'invalid_type') return TYPE_WORDS[issue.expected] ?? issue.expected;
  if (issue.code === 'invalid_value') {
    return `one of ${issue.values.map((value) => JSON.stringify(value)).join(', ')}`;
  }
  if (issue.code === 'unrecognized_keys' && issue.inst instanceof z.ZodObject) {
    return Object.keys(issue.inst.shape).join(' ');
  }
  return undefined;
}

function toIssues(issue: z.core.$ZodIssue, raw: unknown, above: Path): readonly Issue[] {
  const path: Path = [
    ...above,
    ...issue.path.map((step) => (typeof step === 'symbol' ? String(step) : step)),
  ];
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => unknownKey(path, key, issue.message.split(' ')));
  }
  if (issue.code === 'invalid_key') {
    const expected = issue.issues[0]?.message ?? 'another key';
    return [error('LB_VALUE', path, `Expected ${expected} as key`, { atKey: true, expected })];
  }
  if (issue.code === 'invalid_union') {
    // The branch that took the type of the value and stumbled inside it knows best.
    const inside = issue.errors.find(
      (branch) => !branch.some((inner) => inner.path.length === 0 && isType(inner)),
    );
    if (inside !== undefined) return inside.flatMap((inner) => toIssues(inner, raw, path));
  }
  return [wrongValue(issue, path, raw)];
}

function isType(issue: z.core.$ZodIssue): boolean {
  return issue.code === 'invalid_type' || issue.code === 'invalid_value';
}

/** Keys that there were, and what to use instead. */
const DROPPED: ReadonlyMap<string, string> = new Map([
  [
    'dataPlane.capture.mode',
    'no "mode"; in place of tproxy use the kernel data plane, dataPlane.kind "kernel"',
  ],
]);

function unknownKey(parent: Path, key: string, known: readonly string[]): Issue {
  const path = [...parent, key];
  const found = JSON.stringify(key);
  const instead = DROPPED.get(path.join('.'));
  if (instead !== undefined) {
    const message = `Key "${key}" no longer exists`;
    return error('LB_UNKNOWN_KEY', path, message, { atKey: true, found, expected: instead });
  }
  const meant = nearestWord(key, known);
  const hint = meant === undefined ? '' : `; did you mean "${meant}"`;
  const expected = meant === undefined ? `one of ${known.join(', ')}` : JSON.stringify(meant);
  return error('LB_UNKNOWN_KEY', path, `Unknown key ${found}${hint}`, { atKey: true, found, expected });
}

function wrongValue({ code: kind, message: expected }: z.core.$ZodIssue, path: Path, raw: unknown): Issue {
  const { present, value } = valueAt(raw, path);
  const key = path.at(-1);
  if (!present && typeof key === 'string') {
    const message = `Missing key "${key}", expected ${expected}`;
    return error('LB_MISSING_KEY', path, message, { found: 'nothing', expected });
  }
  const found = inWords(path, value);
  const code = kind === 'invalid_type' ? 'LB_TYPE' : 'LB_VALUE';
  return error(code, path, `Expected ${expected}, found ${found}`, { found, expected });
}

function valueAt(raw: unknown, path: Path): { readonly present: boolean; readonly value?: unknown } {
  let value = raw;
  for (const step of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, step)) return { present: false };
    value = (value as Readonly<Record<string | number, unknown>>)[step];
  }
  return { present: true, value };
}

/** What may hold a secret: findings are logged and sent around. */
const SECRETS: ReadonlySet<string> = new Set(['admin.token', 'events.webhook']);

/** The value at a place as JSON, cut short. */
function inWords(path: Path, value: unknown): string {
  if (SECRETS.has(path.join('.'))) {
    return typeof value === 'string'
      ? `text of ${value.length} characters`
      : `a value of type ${typeof value}`;
  }
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object' && value !== null) return 'an object';
  const text = value === undefined ? 'nothing' : JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
