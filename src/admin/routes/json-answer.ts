import { plainJson } from '../../model/plain-json.js';

/** Plain data as JSON, addresses as text. */
export function jsonAnswer(value: object, status = 200): Response {
  return new Response(`${plainJson(value)}\n`, { status, headers: { 'content-type': 'application/json' } });
}

/** Done, and nothing to say. */
export function noContent(): Response {
  return new Response(null, { status: 204 });
}
