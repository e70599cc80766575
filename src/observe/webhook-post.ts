import { lookup } from 'node:dns/promises';
import { request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import { ipAddress } from '../model/address.js';
import { errorCode } from '../model/errors.js';
import { localCandidates } from '../runtime/local-candidates.js';

/** What is used of an answer to a POST. */
export interface WebhookAnswer {
  readonly status: number;
  /** Its connection is held until this is read or cancelled. */
  readonly body: { cancel(): Promise<void> } | null;
}

export type WebhookFetch = (
  url: string,
  request: {
    readonly method: 'POST';
    readonly headers: Record<string, string>;
    readonly body: string;
    readonly redirect: 'manual';
    readonly signal: AbortSignal;
  },
) => Promise<WebhookAnswer>;

/**
 * As `fetch`, but where the kernel has no port for a socket without an address (EADDRNOTAVAIL: every port has a
 * listener) it leaves from one of the machine's own addresses, which fetch cannot be told.
 */
export function fetchFromAnywhere(first: WebhookFetch = fetch): WebhookFetch {
  return async (url, request) => {
    try {
      return await first(url, request);
    } catch (error) {
      if (!(error instanceof Error) || errorCode(error.cause) !== 'EADDRNOTAVAIL') throw error;
      const answer = await postFromAny(url, request);
      if (answer === undefined) throw error;
      return answer;
    }
  };
}

async function postFromAny(
  url: string,
  request: Parameters<WebhookFetch>[1],
): Promise<WebhookAnswer | undefined> {
  const host = new URL(url).hostname.replace(/^\[|\]$/g, '');
  const { address } = await lookup(host);
  for (const { text } of localCandidates(ipAddress(address))) {
    try {
      return await post(url, text, request);
    } catch (error) {
      // A frontend's own address has no port either.
      if (errorCode(error) !== 'EADDRINUSE' && errorCode(error) !== 'EADDRNOTAVAIL') throw error;
    }
  }
  return undefined;
}

function post(
  url: string,
  localAddress: string,
  { method, headers, body, signal }: Parameters<WebhookFetch>[1],
): Promise<WebhookAnswer> {
  const request = url.startsWith('https:') ? requestHttps : requestHttp;
  return new Promise((resolve, reject) => {
    const sent = request(url, { method, headers, localAddress, agent: false, signal }, (response) => {
      // Nobody wants the answer's body; its end gives the connection back.
      response.on('error', () => undefined);
      response.resume();
      resolve({ status: response.statusCode ?? 0, body: null });
    });
    sent.on('error', reject);
    sent.end(body);
  });
}
