import { REFUSALS, ROUTES, successStatus, type Route } from '../src/api/contract.js';
import { openApiDocument, type OpenApiOperation, type Schema } from '../src/api/openapi.js';

const INTRODUCTION = `# Admin API

<!-- Written by \`npm run generate\` from src/api/contract.ts and src/api/views.ts; edit those, and tools/admin-api-page.ts. -->

What the commands and the dashboard use, on the Unix socket \`admin.socket\` (mode 0600: its owner and root) and, where
configured, on the address \`admin.http\`: with a bearer token where \`admin.token\` is set, and off loopback only with a
token and TLS. \`GET /v1/openapi.json\` gives the same as this page as OpenAPI 3.1.

    curl --unix-socket haports.sock http://localhost/v1/status
    curl --unix-socket haports.sock http://localhost/v1/reload -H 'content-type: application/json' -d @config.json

- Requests and answers are JSON. A request with a key that the API does not know is refused.
- Durations in requests are text with a unit (\`500ms\`, \`30s\`, \`10m\`, \`1h\`); times are milliseconds since the epoch,
  and keys that end in \`Ms\` are milliseconds.
- A backend is \`{pool}/{backend}\`, the latter its name or address.
- A write needs \`content-type: application/json\`. From a browser, only pages of the same origin may call.
- A body may have 4 MiB.
- An error is a problem document (RFC 9457) whose \`code\` is stable; match on that, never on the text. Any operation may
  answer \`LB_USAGE\`, \`LB_UNAUTHORIZED\`, \`LB_FORBIDDEN\` or \`LB_INTERNAL\`, one with a body \`LB_TOO_LARGE\`; further ones
  are listed with it. All codes are [at the end](#codes).
`;

/** docs/reference/admin-api.md: each operation, object and code of the contract. */
export function adminApiPage(): string {
  const { paths, components } = openApiDocument();
  const operations = Object.values<Route>(ROUTES).map((route) => {
    const place = `${route.method} ${route.path}`;
    const operation = paths[route.path]?.[route.method.toLowerCase()];
    return { place, route, text: operation === undefined ? '' : operationText(place, route, operation) };
  });
  const objects = Object.entries(components.schemas).sort(([a], [b]) => (a < b ? -1 : 1));
  return [
    INTRODUCTION,
    '## Operations',
    table(
      ['operation', 'what it does'],
      operations.map(({ place, route }) => [`[\`${place}\`](#${anchorOf(place)})`, route.summary]),
    ),
    ...operations.map(({ text }) => text),
    '## Objects',
    ...objects.map(([name, schema]) => objectText(name, schema)),
    '## Codes',
    table(
      ['status', 'code', 'title'],
      Object.entries(REFUSALS).map(([code, { status, title }]) => [String(status), `\`${code}\``, title]),
    ),
  ].join('\n\n');
}

function operationText(place: string, route: Route, operation: OpenApiOperation): string {
  const { parameters = [], requestBody, responses } = operation;
  const schema = Object.values(responses[successStatus(route)]?.content ?? {})[0]?.schema;
  const body = requestBody?.content['application/json']?.schema;
  const answer =
    schema === undefined ? 'no body' : typeOf((schema['x-event-data'] as Schema | undefined) ?? schema);
  const keys = parameters.filter((parameter) => parameter.in !== 'path');
  return [
    `### ${place}`,
    `${route.summary}.`,
    ...(keys.length === 0
      ? []
      : [
          table(
            ['parameter', 'type', 'what it is'],
            keys.map(({ name, in: where, required, schema: kind, description = '' }) => [
              `\`${name}\`${required === true ? '' : ', optional'}`,
              where === 'header' ? `${typeOf(kind)}, a header` : typeOf(kind),
              describe(kind, description),
            ]),
          ),
        ]),
    [
      ...(body === undefined
        ? []
        : [`- Body: ${route.configuration === true ? (body.description ?? '') : typeOf(body)}`]),
      `- Answer: ${successStatus(route)}, ${answer}${route.answerType === 'text/event-stream' ? ' as server-sent events' : ''}`,
      ...(route.errors === undefined
        ? []
        : [`- Errors: ${route.errors.map((code) => `\`${code}\``).join(', ')}`]),
    ].join('\n'),
  ].join('\n\n');
}

function objectText(name: string, schema: Schema): string {
  const { description, properties = {}, required = [] } = schema;
  const rows = Object.entries(properties).flatMap(([key, member]) =>
    rowsOf(key, member, required.includes(key)),
  );
  return [
    `### ${name}`,
    ...(description === undefined ? [] : [`${description}.`]),
    table(['key', 'type', 'what it is'], rows),
  ].join('\n\n');
}

/** A key, and below it the keys of an object that has no name of its own. */
function rowsOf(key: string, schema: Schema, isRequired: boolean): readonly (readonly string[])[] {
  const inner = schema.type === 'array' ? (schema['items'] as Schema) : schema;
  const path = schema.type === 'array' && inner.properties !== undefined ? `${key}[]` : key;
  const { properties = {}, required = [] } = inner;
  return [
    [`\`${path}\`${isRequired ? '' : ', optional'}`, typeOf(schema), describe(schema)],
    ...Object.entries(properties).flatMap(([name, member]) =>
      rowsOf(`${path}.${name}`, member, required.includes(name)),
    ),
  ];
}

function describe(schema: Schema, description = schema.description ?? ''): string {
  const standard = schema['default'];
  return [description, ...(standard === undefined ? [] : [`default \`${JSON.stringify(standard)}\``])]
    .filter((part) => part !== '')
    .join('; ');
}

/** In words: `list of [Flow](#flow)`, `"tcp" or "udp"`, `integer, 1 to 1000`. */
function typeOf(schema: Schema): string {
  const ref = schema['$ref'];
  if (typeof ref === 'string') {
    const name = ref.split('/').at(-1) ?? '';
    return `[${name}](#${anchorOf(name)})`;
  }
  const choices = (schema['anyOf'] ?? schema['oneOf']) as readonly Schema[] | undefined;
  if (choices !== undefined) return choices.map(variantOf).join(' or ');
  if ('const' in schema) return `\`${JSON.stringify(schema['const'])}\``;
  const words = schema['enum'] as readonly string[] | undefined;
  if (words !== undefined) return words.map((word) => `\`${word}\``).join(', ');
  if (schema.type === 'array') return `list of ${typeOf(schema['items'] as Schema)}`;
  const values = schema['additionalProperties'];
  if (typeof values === 'object' && schema.properties === undefined) {
    const { enum: words = [] } = (schema['propertyNames'] ?? {}) as { readonly enum?: readonly string[] };
    const keys = words.length === 0 ? '' : `${words.map((word) => `\`${word}\``).join(', ')} to `;
    return `object, ${keys}${variantOf(values as Schema)}`;
  }
  const { minimum, maximum } = schema as { readonly minimum?: number; readonly maximum?: number };
  const range =
    maximum === undefined
      ? minimum === undefined || minimum === 0
        ? ''
        : `, from ${minimum}`
      : `, ${minimum ?? 0} to ${maximum}`;
  if (schema['pattern'] !== undefined) return 'duration';
  return `${schema.type ?? 'anything'}${range}`;
}

/** As typeOf; an object without a name by its keys. */
function variantOf(schema: Schema): string {
  if (schema.properties === undefined) return typeOf(schema);
  const keys = Object.entries(schema.properties).map(([key, member]) => `${key}: ${typeOf(member)}`);
  return `{ ${keys.join(', ')} }`;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [head, head.map(() => '---'), ...rows];
  return lines
    .map((cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`)
    .join('\n');
}

/** As GitHub makes it of a heading. */
function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replaceAll(/[^a-z0-9 _-]/g, '')
    .replaceAll(' ', '-');
}
