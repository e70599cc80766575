import type { z } from 'zod';
import { error, type Issue, type Path } from './findings.js';
import { configJsonSchema, configSchema } from './schema.js';
import { nearestWord } from './text.js';

type ZodIssue = z.core.$ZodIssue;

const TYPE_WORDS: Readonly<Record<string, string>> = {
  string: 'text in quotes',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'an object',
  record: 'an object',
};

/** Everything that is wrong with the shape of `raw`, all at once. */
export function schemaIssues(raw: unknown): readonly Issue[] {
  const result = configSchema.safeParse(raw, { error: expectedText });
  return result.success ? [] : result.error.issues.flatMap((issue) => translate(issue, raw, []));
}

/** What must be, for the issues whose field does not say it itself. */
function expectedText(issue: z.core.$ZodRawIssue): string | undefined {
  if (issue.code === 'invalid_type') return TYPE_WORDS[issue.expected] ?? issue.expected;
  if (issue.code === 'invalid_value') {
    return `one of ${issue.values.map((value) => JSON.stringify(value)).join(', ')}`;
  }
  return undefined;
}

function translate(issue: ZodIssue, raw: unknown, above: Path): readonly Issue[] {
  const path: Path = [
    ...above,
    ...issue.path.map((step) => (typeof step === 'symbol' ? String(step) : step)),
  ];
  if (issue.code === 'unrecognized_keys') return issue.keys.map((key) => unknownKey(path, key));
  if (issue.code === 'invalid_key') {
    const expected = issue.issues[0]?.message ?? 'another key';
    return [error('LB_VALUE', path, `Expected ${expected} as key`, { atKey: true, expected })];
  }
  if (issue.code === 'invalid_union') {
    // The branch that took the type of the value and stumbled inside it knows best.
    const inside = issue.errors.find(
      (branch) => !branch.some((inner) => inner.path.length === 0 && isType(inner)),
    );
    if (inside !== undefined) return inside.flatMap((inner) => translate(inner, raw, path));
  }
  return [wrongValue(issue, path, raw)];
}

function isType(issue: ZodIssue): boolean {
  return issue.code === 'invalid_type' || issue.code === 'invalid_value';
}

function unknownKey(parent: Path, key: string): Issue {
  const keys = knownKeys(parent);
  const meant = nearestWord(key, keys);
  const hint = meant === undefined ? '' : `; did you mean "${meant}"`;
  return error('LB_UNKNOWN_KEY', [...parent, key], `Unknown key ${JSON.stringify(key)}${hint}`, {
    atKey: true,
    found: JSON.stringify(key),
    expected: meant === undefined ? `one of ${keys.join(', ')}` : JSON.stringify(meant),
  });
}

function wrongValue(issue: ZodIssue, path: Path, raw: unknown): Issue {
  const expected = issue.message;
  const { present, value } = valueAt(raw, path);
  const key = path.at(-1);
  if (!present && typeof key === 'string') {
    return error('LB_MISSING_KEY', path, `Missing key "${key}", expected ${expected}`, {
      found: 'nothing',
      expected,
    });
  }
  const found = SECRETS.has(path.join('.')) ? withoutWords(value) : inWords(value);
  const code = issue.code === 'invalid_type' ? 'LB_TYPE' : 'LB_VALUE';
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

function withoutWords(value: unknown): string {
  return typeof value === 'string' ? `text of ${value.length} characters` : `a value of type ${typeof value}`;
}

/** A value as JSON, cut short. */
function inWords(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object' && value !== null) return 'an object';
  const text = value === undefined ? 'nothing' : JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

/** The keys that the schema knows for the object at `path`; empty where it knows none, or any. */
export function knownKeys(path: Path): readonly string[] {
  let nodes: readonly unknown[] = [configJsonSchema()];
  for (const step of path) {
    nodes = nodes.flatMap(alternatives).flatMap((node) => {
      if (typeof step === 'number') return [member(node, 'items')];
      return [member(member(node, 'properties'), step) ?? member(node, 'additionalProperties')];
    });
  }
  return nodes.flatMap(alternatives).flatMap((node) => {
    const properties = member(node, 'properties');
    return typeof properties === 'object' && properties !== null ? Object.keys(properties) : [];
  });
}

function alternatives(node: unknown): readonly unknown[] {
  const anyOf = member(node, 'anyOf');
  return Array.isArray(anyOf) ? anyOf : [node];
}

function member(node: unknown, key: string): unknown {
  return typeof node === 'object' && node !== null && Object.hasOwn(node, key)
    ? (node as Readonly<Record<string, unknown>>)[key]
    : undefined;
}
