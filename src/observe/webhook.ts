import { lookup } from 'node:dns/promises';
import { request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import { ipAddress } from '../model/address.js';
import { errorCode, errorMessage } from '../model/errors.js';
import type { HealthEvent } from '../model/events.js';
import { Backoff } from '../runtime/backoff.js';
import type { Clock } from '../runtime/clock.js';
import type { Logger } from '../runtime/logger.js';
import { localCandidates } from '../runtime/machine.js';

export interface WebhookDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  /** @default the global fetch, or what stands in for it where there is a listener on every port */
  readonly fetch?: WebhookFetch;
}

const TIMEOUT_MS = 5000;
const RETRIES = 5;
const FIRST_RETRY_MS = 1000;
const MAX_RETRY_MS = 30_000;
const MAX_QUEUED = 100;
const FLUSH_MS = 2000;

type Attempt =
  | { readonly kind: 'delivered' }
  /** `isFinal`: trying again would not help. */
  | { readonly kind: 'failed'; readonly isFinal: boolean; readonly evidence: string };

/**
 * Posts health events to a URL, one after another, in order. Nobody waits for it and it never throws: an event that
 * cannot be delivered is logged and given up after five retries; while that lasts, up to 100 wait, and beyond that
 * the oldest are dropped.
 */
export class Webhook {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #fetch: WebhookFetch;
  readonly #url: string;
  #queue: HealthEvent[] = [];
  #dropped = 0;
  /** Since the queue was empty. */
  #isDropping = false;
  #work: Promise<void> | undefined;
  #stopping = false;
  /** Ends the request or the wait between two, whichever there is. */
  readonly #abort = new AbortController();
  #wake: () => void = () => undefined;

  constructor(deps: WebhookDeps, options: { readonly url: string }) {
    this.#clock = deps.clock;
    this.#logger = deps.logger;
    this.#fetch = deps.fetch ?? fetchFromAnywhere();
    this.#url = options.url;
  }

  /** Events dropped since the start because too many were waiting. */
  get dropped(): number {
    return this.#dropped;
  }

  post(event: HealthEvent): void {
    if (this.#stopping) return;
    this.#queue.push(event);
    if (this.#queue.length > MAX_QUEUED) {
      this.#queue.shift();
      this.#dropped++;
      if (!this.#isDropping) {
        this.#isDropping = true;
        this.#logger.warn(
          { event: 'webhook-dropped', url: this.#origin() },
          `More than ${MAX_QUEUED} health events wait for the webhook: the oldest are dropped`,
        );
      }
    }
    this.#start();
  }

  /** Tries each waiting event once more, for at most 2 s in all, then gives up what is left. Idempotent. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#wake();
    const cancel = this.#clock.setTimer(FLUSH_MS, () => this.#abort.abort());
    while (this.#work !== undefined) await this.#work;
    cancel();
  }

  #start(): void {
    this.#work ??= this.#deliverAll().finally(() => {
      this.#work = undefined;
      // Posted after the loop had looked for the last time.
      if (this.#queue.length > 0) this.#start();
    });
  }

  async #deliverAll(): Promise<void> {
    // The first turn of the loop must not run inside post().
    await Promise.resolve();
    for (let event = this.#queue.shift(); event !== undefined; event = this.#queue.shift()) {
      await this.#deliver(event);
      if (this.#abort.signal.aborted) this.#giveUpRest();
    }
    this.#isDropping = false;
  }

  async #deliver(event: HealthEvent): Promise<void> {
    const backoff = new Backoff({ firstMs: FIRST_RETRY_MS, maxMs: MAX_RETRY_MS });
    for (let retry = 0; ; retry++) {
      const attempt = await this.#attempt(event);
      if (attempt.kind === 'delivered') return;
      if (attempt.isFinal || retry === RETRIES || this.#stopping) {
        this.#giveUp(event, attempt.evidence);
        return;
      }
      await this.#wait(backoff.nextMs());
    }
  }

  async #attempt(event: HealthEvent): Promise<Attempt> {
    const timeout = new AbortController();
    const cancel = this.#clock.setTimer(TIMEOUT_MS, () =>
      timeout.abort(new Error(`no answer in ${TIMEOUT_MS} ms`)),
    );
    try {
      const answer = await this.#fetch(this.#url, {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'user-agent': 'haports' },
        body: JSON.stringify(webhookBody(event)),
        // A redirected POST would turn into a GET somewhere else.
        redirect: 'manual',
        signal: AbortSignal.any([timeout.signal, this.#abort.signal]),
      });
      await answer.body?.cancel().catch(() => undefined);
      return outcomeOf(answer.status);
    } catch (error) {
      return { kind: 'failed', isFinal: false, evidence: reason(error) };
    } finally {
      cancel();
    }
  }

  async #wait(delayMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const cancel = this.#clock.setTimer(delayMs, resolve, { unref: true });
      this.#wake = () => {
        cancel();
        resolve();
      };
    });
    this.#wake = () => undefined;
  }

  #giveUp({ name, phase, subject }: HealthEvent, evidence: string): void {
    this.#logger.warn(
      { event: 'webhook-failed', url: this.#origin(), name, phase, subject, evidence },
      `Cannot post health event ${name} of "${subject}" to the webhook: ${evidence}`,
    );
  }

  #giveUpRest(): void {
    const count = this.#queue.length;
    this.#queue = [];
    if (count === 0) return;
    this.#logger.warn(
      { event: 'webhook-failed', url: this.#origin(), count },
      `Cannot post ${count} more health events to the webhook: there was no time left`,
    );
  }

  /** Paths and queries of webhooks are often secrets. */
  #origin(): string {
    return URL.canParse(this.#url) ? new URL(this.#url).origin : '';
  }
}

function outcomeOf(status: number): Attempt {
  if (status >= 200 && status < 300) return { kind: 'delivered' };
  // RFC 9110, 15.5.9 and RFC 6585, 4: these ask for another try; other 4xx will be the same next time.
  const mayHelp = status >= 500 || status === 408 || status === 429;
  return { kind: 'failed', isFinal: !mayHelp, evidence: `HTTP ${status}` };
}

/** undici's "fetch failed" says why only in its cause. */
function reason(error: unknown): string {
  return errorMessage(error instanceof Error && error.cause !== undefined ? error.cause : error);
}

/**
 * What is posted: the event as haports has it, and the same under the names of Azure's table ALBHealthEvent, so that
 * what reads those can read this. Documented in docs/health-events.md.
 */
export function webhookBody(event: HealthEvent): object {
  const { name, severity, subject, evidence, atMs } = event;
  return {
    ...event,
    Type: 'ALBHealthEvent',
    SourceSystem: 'haports',
    TimeGenerated: new Date(atMs).toISOString(),
    operationName: 'LoadBalancerHealthEvent',
    HealthEventType: name,
    Severity: severity === 'critical' ? 'Critical' : 'Warning',
    Description: `${subject}: ${evidence}`,
  };
}

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
