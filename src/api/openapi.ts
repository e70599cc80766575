import { z } from 'zod';
import { VERSION } from '../model/version.js';
import { REFUSALS, ROUTES, partsOf, successStatus, type RefusalCode, type Route } from './contract.js';
import { problem } from './views.js';

/** A JSON Schema (2020-12), as OpenAPI 3.1 has it. */
export interface Schema {
  readonly type?: string;
  readonly description?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly [keyword: string]: unknown;
}

export interface Parameter {
  readonly name: string;
  readonly in: 'path' | 'query' | 'header';
  readonly required?: boolean;
  readonly description?: string;
  readonly schema: Schema;
}

type Content = Readonly<Record<string, { readonly schema: Schema }>>;

export interface OpenApiOperation {
  readonly operationId: string;
  readonly summary: string;
  readonly parameters?: readonly Parameter[];
  readonly requestBody?: { readonly required: true; readonly content: Content };
  readonly responses: Readonly<Record<string, { readonly description: string; readonly content?: Content }>>;
}

export interface OpenApiDocument {
  readonly openapi: string;
  readonly info: Readonly<Record<'title' | 'version' | 'description', string>>;
  readonly security: readonly object[];
  readonly paths: Readonly<Record<string, Readonly<Record<string, OpenApiOperation>>>>;
  readonly components: {
    readonly schemas: Readonly<Record<string, Schema>>;
    readonly securitySchemes: object;
  };
}

const ANY_ERROR: readonly RefusalCode[] = ['LB_USAGE', 'LB_UNAUTHORIZED', 'LB_FORBIDDEN', 'LB_INTERNAL'];

const CONFIGURATION: Schema = {
  type: 'object',
  description: 'A whole configuration, as `haports schema` describes it',
};

/** The OpenAPI 3.1 document of the admin API, made from the contract. Plain data. */
export function openApiDocument(): OpenApiDocument {
  const components: Record<string, Schema> = {};
  const schemaOf = (schema: z.ZodType): Schema => jsonSchema(schema, components);
  const paths: Record<string, Record<string, OpenApiOperation>> = {};
  for (const [name, route] of Object.entries<Route>(ROUTES)) {
    const methods = (paths[route.path] ??= {});
    methods[route.method.toLowerCase()] = operation(name, route, schemaOf);
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'haports admin API',
      version: VERSION,
      description:
        'On a Unix socket for its owner; on an address with a bearer token where one is configured. Durations are texts with a unit.',
    },
    security: [{}, { token: [] }],
    paths,
    components: { schemas: components, securitySchemes: { token: { type: 'http', scheme: 'bearer' } } },
  };
}

function operation(name: string, route: Route, schemaOf: (schema: z.ZodType) => Schema): OpenApiOperation {
  const { summary, answer, answerType, configuration, errors = [] } = route;
  const { body, ...places } = partsOf(route);
  const parameters = Object.entries(places).flatMap(([place, keys]): readonly Parameter[] => {
    const { properties = {}, required = [] } = schemaOf(keys);
    return Object.entries(properties).map(([key, { description, ...schema }]) => ({
      name: key,
      in: place as keyof typeof places,
      ...(required.includes(key) && { required: true }),
      ...(description !== undefined && { description }),
      schema,
    }));
  });
  const sent = configuration ? CONFIGURATION : body && schemaOf(body);
  const codes = [...ANY_ERROR, ...errors, ...(sent === undefined ? [] : (['LB_TOO_LARGE'] as const))];
  const described = answer && schemaOf(answer);
  const content =
    described &&
    (answerType === undefined
      ? { 'application/json': { schema: described } }
      : { [answerType]: { schema: { type: 'string', 'x-event-data': described } } });
  return {
    operationId: name,
    summary,
    ...(parameters.length > 0 && { parameters }),
    ...(sent && { requestBody: { required: true, content: { 'application/json': { schema: sent } } } }),
    responses: {
      [successStatus(route)]: { description: 'Done', ...(content && { content }) },
      ...failures(codes, schemaOf(problem)),
    },
  };
}

/** By status, each with the codes that it stands for. */
function failures(codes: readonly RefusalCode[], schema: Schema): OpenApiOperation['responses'] {
  const content = { 'application/problem+json': { schema } };
  const statuses = new Set(codes.map((code) => REFUSALS[code].status));
  return Object.fromEntries(
    [...statuses].map((status) => {
      const same = codes.filter((code) => REFUSALS[code].status === status);
      const titles = new Set(same.map((code) => REFUSALS[code].title));
      const texts = [...titles].map(
        (title) => `${title} (${same.filter((code) => REFUSALS[code].title === title).join(', ')})`,
      );
      return [status, { description: texts.join('; '), content }];
    }),
  );
}

/** The JSON Schema of what is sent over the wire; schemas with an id go to `components` and are referred to. */
function jsonSchema(schema: z.ZodType, components: Record<string, Schema>): Schema {
  const json = z.toJSONSchema(z.object({ it: schema }), {
    io: 'input',
    override: ({ jsonSchema: found }) => {
      // Bounds of every whole number say nothing.
      if (found.minimum === Number.MIN_SAFE_INTEGER) delete found.minimum;
      if (found.maximum === Number.MAX_SAFE_INTEGER) delete found.maximum;
    },
  });
  const text = JSON.stringify(json).replaceAll('#/$defs/', '#/components/schemas/');
  const { properties, $defs } = JSON.parse(text) as {
    readonly properties: { readonly it: Schema };
    readonly $defs?: Readonly<Record<string, Schema>>;
  };
  Object.assign(components, $defs);
  return properties.it;
}
