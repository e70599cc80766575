/** A JSON Schema (2020-12), as OpenAPI 3.1 has it. */
export type Schema = Readonly<Record<string, unknown>>;

export const TEXT: Schema = { type: 'string' };
export const FLAG: Schema = { type: 'boolean' };
export const NUMBER: Schema = { type: 'number' };
export const INTEGER: Schema = { type: 'integer', minimum: 0 };
export const SHARE: Schema = { type: 'number', minimum: 0, maximum: 1 };
export const TIME: Schema = { type: 'integer', description: 'Milliseconds since the epoch' };
export const PROTOCOL = oneOf('tcp', 'udp');
export const DURATION: Schema = {
  type: 'string',
  pattern: '^[0-9]{1,9}(ms|s|m|h)$',
  examples: ['30s', '10m'],
};

export function oneOf(...words: readonly string[]): Schema {
  return { type: 'string', enum: words };
}

export function integer(minimum: number, maximum: number): Schema {
  return { type: 'integer', minimum, maximum };
}

export function list(items: Schema): Schema {
  return { type: 'array', items };
}

/** Members whose key ends in `?` may be absent. */
export function object(members: Readonly<Record<string, Schema>>, more: Schema = {}): Schema {
  const properties = Object.entries(members).map(([key, schema]) => [key.replace('?', ''), schema] as const);
  const required = Object.keys(members).filter((key) => !key.endsWith('?'));
  return {
    type: 'object',
    properties: Object.fromEntries(properties),
    ...(required.length === 0 ? {} : { required }),
    ...more,
  };
}

/** A schema of components, by name. */
export function ref(name: string): Schema {
  return { $ref: `#/components/schemas/${name}` };
}

export const CLOSED: Schema = { additionalProperties: false };
export const ADMIN_STATE = oneOf('none', 'up', 'down');
export const HEALTH = oneOf('unknown', 'up', 'down');

export function byProtocol(schema: Schema): Schema {
  return object({ tcp: schema, udp: schema });
}
