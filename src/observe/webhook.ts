import { errorMessage } from '../model/errors.js';
import type { HealthEvent } from '../model/health-event.js';
import { Backoff } from '../runtime/backoff.js';
import type { Clock } from '../runtime/clock.js';
import type { Logger } from '../runtime/logger.js';
import { fetchFromAnywhere, type WebhookFetch } from './webhook-post.js';
import { webhookBody } from './webhook-body.js';

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
