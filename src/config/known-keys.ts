import { configJsonSchema } from './json-schema.js';
import type { Path } from './finding.js';

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
