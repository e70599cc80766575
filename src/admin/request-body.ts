import { BalancerError } from '../model/errors.js';
import { usageError } from './error-problem.js';

/** Of a request: a configuration of 5,000 backends and 1,500 rules takes a tenth of it. */
export const MAX_BODY_BYTES = 4 * 1024 * 1024;

/** Read and thrown away: a client that is still sending when the connection closes never sees why. */
const MAX_IGNORED_BYTES = 4 * MAX_BODY_BYTES;

/** The body as text. Throws `LB_TOO_LARGE`, or `LB_USAGE` where it is not UTF-8. */
export async function readText(request: Request, maxBytes = MAX_BODY_BYTES): Promise<string> {
  if (Number(request.headers.get('content-length') ?? 0) > MAX_IGNORED_BYTES) throw tooLarge(maxBytes);
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of bytesOf(request)) {
    size += chunk.byteLength;
    if (size <= maxBytes) chunks.push(chunk);
    else chunks.length = 0;
    // Cancels what is left.
    if (size > MAX_IGNORED_BYTES) break;
  }
  if (size > maxBytes) throw tooLarge(maxBytes);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks));
  } catch {
    throw usageError('The body is not UTF-8');
  }
}

/** The body as a JSON object. Throws as readText, and `LB_USAGE` where it is none. */
export async function readObject(request: Request): Promise<Readonly<Record<string, unknown>>> {
  const text = await readText(request);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw usageError('The body is not JSON: it must be a JSON object');
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return value as Readonly<Record<string, unknown>>;
  }
  throw usageError('The body must be a JSON object');
}

function bytesOf(request: Request): AsyncIterable<Uint8Array> | Iterable<Uint8Array> {
  return (request.body as AsyncIterable<Uint8Array> | null) ?? [];
}

function tooLarge(maxBytes: number): BalancerError {
  return new BalancerError(`The body must be at most ${maxBytes} bytes`, {
    code: 'LB_TOO_LARGE',
    source: 'usage',
  });
}
