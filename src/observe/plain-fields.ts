import { errorMessage } from '../model/errors.js';

/** Deeper than any field of a log line; what is below is left out. */
const MAX_DEPTH = 6;

/** A copy that JSON can hold: addresses and errors as text, no functions, no cycles. */
export function plainFields(fields: object): Record<string, unknown> {
  return plainObject(fields, MAX_DEPTH);
}

function plainObject(value: object, depth: number): Record<string, unknown> {
  const entries: [string, unknown][] = [];
  for (const [key, member] of Object.entries(value) as [string, unknown][]) {
    const plain = plainValue(member, depth - 1);
    if (plain !== undefined) entries.push([key, plain]);
  }
  return Object.fromEntries(entries);
}

function plainValue(value: unknown, depth: number): unknown {
  switch (typeof value) {
    case 'string':
    case 'number':
    case 'boolean':
      return value;
    case 'bigint':
      return value.toString();
    case 'undefined':
    case 'function':
    case 'symbol':
      return undefined;
    case 'object': {
      if (value === null) return null;
      if (value instanceof Error) return errorMessage(value);
      if (isAddress(value)) return value.text;
      if (depth <= 0) return undefined;
      if (Array.isArray(value)) return value.map((member) => plainValue(member, depth - 1) ?? null);
      return plainObject(value, depth);
    }
  }
}

function isAddress(value: object): value is { readonly text: string } {
  return 'family' in value && 'bytes' in value && 'text' in value && typeof value.text === 'string';
}
