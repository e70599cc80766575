import type { Answer, OperationName, Request, Routes } from './contract.js';

/** One request, as it goes over the wire. */
export interface ApiRequest {
  readonly method: 'GET' | 'PUT' | 'POST' | 'DELETE';
  /** With the query, escaped. */
  readonly path: string;
  /** JSON text. */
  readonly body?: string;
  readonly signal?: AbortSignal;
}

/** Resolves with the body of an answer of status 2xx, parsed; rejects with everything else. */
export type SendRequest = (request: ApiRequest) => Promise<unknown>;

type Keys = Readonly<Record<string, unknown>> & { readonly configuration?: string };

interface CallOptions {
  readonly signal?: AbortSignal;
}

/** The request may be left out where it needs no key. */
type Asking<R> = object extends R
  ? [request?: R, options?: CallOptions]
  : [request: R, options?: CallOptions];

/** A method for each route of the contract. Answers are trusted to have the shape that the contract describes. */
export type ApiClient<N extends OperationName = OperationName> = {
  readonly [Name in N]: (...asking: Asking<Request<Name>>) => Answer<Name>;
};

/** Where routes are: those of the contract, or the ones that a client needs where zod cannot be loaded. */
export type RoutePlaces<N extends OperationName> = {
  readonly [Name in N]: Pick<Routes[Name], 'method' | 'path'>;
};

/**
 * A client of these routes. Of a request, what the path names goes there, `configuration` is the body as it is, and the
 * rest is the query, or the JSON body of a PUT or POST.
 */
export function createApiClient<N extends OperationName>(
  routes: RoutePlaces<N>,
  send: SendRequest,
): ApiClient<N> {
  const methods: Record<string, (request?: Keys, options?: CallOptions) => Promise<unknown>> = {};
  for (const [name, { method, path }] of Object.entries<Pick<ApiRequest, 'method' | 'path'>>(routes)) {
    methods[name] = (request = {}, { signal } = {}) => {
      const { configuration, ...rest } = request;
      const filled = path.replaceAll(/\{(\w+)\}/g, (_, key: string) => encodeURIComponent(String(rest[key])));
      const keys = Object.entries(rest).filter(
        ([key, value]) => value !== undefined && !path.includes(`{${key}}`),
      );
      const isJson = (method === 'PUT' || method === 'POST') && configuration === undefined;
      return isJson
        ? send({ method, path: filled, body: JSON.stringify(Object.fromEntries(keys)), signal })
        : send({ method, path: `${filled}${queryText(keys)}`, body: configuration, signal });
    };
  }
  return methods as unknown as ApiClient<N>;
}

function queryText(keys: readonly (readonly [string, unknown])[]): string {
  const search = new URLSearchParams();
  for (const [key, value] of keys) search.set(key, String(value));
  return keys.length === 0 ? '' : `?${search.toString()}`;
}

/**
 * The data of each event of a text/event-stream, as the HTML standard, section 9.2.6 has it. Comments (heartbeats) give
 * nothing, and neither do ids and types: the data holds both.
 */
export async function* eventData(pieces: AsyncIterable<string>): AsyncGenerator<string, void> {
  let rest = '';
  let data: string[] = [];
  for await (const piece of pieces) {
    // A CR at the very end may be the first half of CRLF.
    const lines = `${rest}${piece}`.split(/\r\n|\n|\r(?=[^])/);
    rest = lines.pop() ?? '';
    for (const line of lines) {
      const [, value] = /^data(?:$|: ?)(.*)$/s.exec(line) ?? [];
      if (value !== undefined) data.push(value);
      if (line !== '' || data.length === 0) continue;
      yield data.join('\n');
      data = [];
    }
  }
}
