/** A JSON Schema (2020-12), as far as the admin API's document uses it. */
export interface JsonSchema {
  readonly $ref?: string;
  readonly type?: string;
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly anyOf?: readonly JsonSchema[];
  readonly oneOf?: readonly JsonSchema[];
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly propertyNames?: JsonSchema;
  readonly required?: readonly string[];
  readonly additionalProperties?: boolean | JsonSchema;
  readonly items?: JsonSchema;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly maxLength?: number;
  readonly maxItems?: number;
  readonly pattern?: string;
}

const KEYWORDS: ReadonlySet<string> = new Set([
  ...['$ref', 'type', 'enum', 'const', 'anyOf', 'oneOf', 'properties', 'propertyNames', 'required'],
  ...['additionalProperties', 'items', 'minimum', 'maximum', 'maxLength', 'maxItems', 'pattern'],
  ...['description', 'default', 'examples'],
]);

/**
 * What about the value is not as the schema says, each with its path; empty: all is well. Knows nothing of how the
 * schema was made. Stricter than the standard: keys that an object's schema does not name are wrong, unless it says how
 * they are, and so are keywords that this validator does not know.
 */
export function schemaErrors(
  schema: JsonSchema,
  value: unknown,
  components: Readonly<Record<string, JsonSchema>>,
  path = '$',
): readonly string[] {
  const at = (part: JsonSchema, member: unknown, place = path): readonly string[] =>
    schemaErrors(part, member, components, place);
  const unknown = Object.keys(schema).filter((keyword) => !KEYWORDS.has(keyword));
  if (unknown.length > 0) return [`${path}: the schema has ${unknown.join(', ')}`];
  if (schema.$ref !== undefined) {
    const target = components[schema.$ref.replace('#/components/schemas/', '')];
    return target === undefined ? [`${path}: there is no ${schema.$ref}`] : at(target, value);
  }
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices !== undefined) {
    const fitting = choices.filter((choice) => at(choice, value).length === 0).length;
    const isRight = schema.oneOf === undefined ? fitting > 0 : fitting === 1;
    return isRight ? [] : [`${path}: ${JSON.stringify(value)} fits ${fitting} of ${choices.length}`];
  }
  if (schema.type !== undefined && !isOfType(schema.type, value)) {
    return [`${path}: ${JSON.stringify(value)} is no ${schema.type}`];
  }
  const wrong = (isWrong: boolean, why: string): readonly string[] =>
    isWrong ? [`${path}: ${JSON.stringify(value)} ${why}`] : [];
  const errors = [
    ...wrong('const' in schema && schema.const !== value, `is not ${String(schema.const)}`),
    ...wrong(schema.enum?.includes(value) === false, `is none of ${String(schema.enum)}`),
  ];
  if (typeof value === 'number') {
    errors.push(...wrong(value < (schema.minimum ?? -Infinity), `is below ${schema.minimum}`));
    errors.push(...wrong(value > (schema.maximum ?? Infinity), `is above ${schema.maximum}`));
  } else if (typeof value === 'string') {
    errors.push(...wrong(value.length > (schema.maxLength ?? Infinity), 'is too long'));
    errors.push(...wrong(!new RegExp(schema.pattern ?? '').test(value), `does not match ${schema.pattern}`));
  } else if (Array.isArray(value)) {
    errors.push(...wrong(value.length > (schema.maxItems ?? Infinity), 'is too long'));
    errors.push(...value.flatMap((item, index) => at(schema.items ?? {}, item, `${path}[${index}]`)));
  } else if (typeof value === 'object' && value !== null) {
    const { properties = {}, required = [], additionalProperties: others, propertyNames } = schema;
    for (const key of required) errors.push(...wrong(!Object.hasOwn(value, key), `has no "${key}"`));
    for (const [key, member] of Object.entries(value)) {
      const place = `${path}.${key}`;
      if (propertyNames !== undefined) errors.push(...at(propertyNames, key, `${place}, the key`));
      if (Object.hasOwn(properties, key)) errors.push(...at(properties[key] ?? {}, member, place));
      else if (typeof others === 'object') errors.push(...at(others, member, place));
      else
        errors.push(
          ...wrong(schema.type === 'object' && others !== true, `has "${key}", which is not described`),
        );
    }
  }
  return errors;
}

function isOfType(type: string, value: unknown): boolean {
  switch (type) {
    case 'integer':
      return Number.isInteger(value);
    case 'array':
      return Array.isArray(value);
    case 'object':
      return typeof value === 'object' && value !== null && !Array.isArray(value);
    case 'null':
      return value === null;
    default:
      return typeof value === type;
  }
}
