import { z } from 'zod';
import { configSchema } from './schema.js';

/**
 * The JSON Schema (2020-12) of the configuration, descriptions and defaults included: what `haports schema` prints
 * and what `config.schema.json` holds. Plain JSON, a new object on every call.
 */
export function configJsonSchema(): Record<string, unknown> {
  const { $schema, ...rest } = z.toJSONSchema(configSchema, { io: 'input', target: 'draft-2020-12' });
  return { $schema, title: 'haports configuration', ...rest };
}

/** Text of `config.schema.json`. */
export function configJsonSchemaText(): string {
  return `${JSON.stringify(configJsonSchema(), null, 2)}\n`;
}
