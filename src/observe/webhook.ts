import { lookup } from 'node:dns/promises';
import { request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import { ipAddress, type IpAddress } from '../model/address.js';
import { errorCode, errorMessage } from '../model/errors.js';
import type { ControlEvent, HealthEvent } from '../model/events.js';
import { Backoff } from '../runtime/backoff.js';
import type { Clock } from '../runtime/clock.js';
import { fromAnyAddress } from '../runtime/machine.js';

/** Posts a JSON body, resolves with the status of the answer, and rejects with the system's error. */
export type Post = (url: string, body: string, signal: AbortSignal) => Promise<number>;

export interface WebhookDeps {
  readonly clock: Clock;
  readonly onEvent: (event: ControlEvent) => void;
  /** @default postJson */
  readonly post?: Post;
}

const TIMEOUT_MS = 5000;
const RETRIES = 5;
const FIRST_RETRY_MS = 1000;
const MAX_RETRY_MS = 30_000;
const MAX_QUEUED = 100;
const FLUSH_MS = 2000;

/**
 * Posts health events to a URL, one after another, in order. Nothing waits for it and it never throws: an event that
 * cannot be delivered is logged and given up after five retries; while that lasts, up to 100 wait, and beyond that
 * the oldest are dropped.
 */
export class Webhook {
  readonly #deps: Required<WebhookDeps>;
  readonly #url: string;
  #queue: HealthEvent[] = [];
  /** Since the queue was empty. */
  #isDropping = false;
  #work: Promise<void> | undefined;
  #isStopping = false;
  /** Ends the request or the wait between two, whichever there is. */
  readonly #abort = new AbortController();
  #wake: () => void = () => undefined;

  constructor(deps: WebhookDeps, options: { readonly url: string }) {
    this.#deps = { post: postJson, ...deps };
    this.#url = options.url;
  }

  post(event: HealthEvent): void {
    if (this.#isStopping) return;
    this.#queue.push(event);
    if (this.#queue.length > MAX_QUEUED) {
      this.#queue.shift();
      const url = this.#origin();
      if (!this.#isDropping) this.#deps.onEvent({ type: 'webhook-dropped', url, limit: MAX_QUEUED });
      this.#isDropping = true;
    }
    this.#work ??= this.#deliverAll();
  }

  /** Tries each waiting event once more, for at most 2 s in all, then gives up what is left. Idempotent. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#wake();
    const cancel = this.#deps.clock.setTimer(FLUSH_MS, () => this.#abort.abort());
    while (this.#work !== undefined) await this.#work;
    cancel();
  }

  async #deliverAll(): Promise<void> {
    // The first turn of the loop must not run inside post().
    await Promise.resolve();
    for (let event = this.#queue.shift(); event !== undefined; event = this.#queue.shift()) {
      await this.#deliver(event);
      if (!this.#abort.signal.aborted) continue;
      const count = this.#queue.length;
      this.#queue = [];
      if (count > 0) this.#deps.onEvent({ type: 'webhook-failed', url: this.#origin(), count });
    }
    this.#isDropping = false;
    // In the same turn as the last look at the queue: an event that comes later starts anew.
    this.#work = undefined;
  }

  async #deliver(event: HealthEvent): Promise<void> {
    const { name, phase, subject } = event;
    const body = JSON.stringify(webhookBody(event));
    const backoff = new Backoff({ firstMs: FIRST_RETRY_MS, maxMs: MAX_RETRY_MS });
    for (let retry = 0; ; retry++) {
      const failure = await this.#attempt(body);
      if (failure === undefined) return;
      const { evidence } = failure;
      if (failure.isFinal || retry === RETRIES || this.#isStopping) {
        this.#deps.onEvent({ type: 'webhook-failed', url: this.#origin(), name, phase, subject, evidence });
        return;
      }
      await this.#wait(backoff.nextMs());
    }
  }

  /** Undefined: delivered. `isFinal`: trying again would not help. */
  async #attempt(
    body: string,
  ): Promise<{ readonly isFinal: boolean; readonly evidence: string } | undefined> {
    const timeout = new AbortController();
    const cancel = this.#deps.clock.setTimer(TIMEOUT_MS, () =>
      timeout.abort(new Error(`no answer in ${TIMEOUT_MS} ms`)),
    );
    const signal = AbortSignal.any([timeout.signal, this.#abort.signal]);
    try {
      const status = await this.#deps.post(this.#url, body, signal);
      if (status >= 200 && status < 300) return undefined;
      // RFC 9110, 15.5.9 and RFC 6585, 4: these ask for another try; other 4xx will be the same next time.
      return { isFinal: status < 500 && status !== 408 && status !== 429, evidence: `HTTP ${status}` };
    } catch (error) {
      const cause: unknown = signal.aborted ? signal.reason : error;
      // Where several addresses failed, the text of the error is empty.
      return { isFinal: false, evidence: errorMessage(cause) || (errorCode(cause) ?? 'no connection') };
    } finally {
      cancel();
    }
  }

  async #wait(delayMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const cancel = this.#deps.clock.setTimer(delayMs, resolve, { unref: true });
      this.#wake = () => {
        cancel();
        resolve();
      };
    });
    this.#wake = () => undefined;
  }

  /** Paths and queries of webhooks are often secrets. */
  #origin(): string {
    return URL.canParse(this.#url) ? new URL(this.#url).origin : '';
  }
}

/**
 * What is posted: the event as haports has it, and the same under the names of Azure's table ALBHealthEvent, so that
 * what reads those can read this. Documented in docs/health-events.md.
 */
function webhookBody(event: HealthEvent): object {
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

/**
 * Does not follow redirects: a redirected POST would turn into a GET somewhere else. Where the kernel has no port for a
 * socket without an address (EADDRNOTAVAIL: every port has a listener) it leaves from one of the machine's own addresses.
 */
export function postJson(
  url: string,
  body: string,
  signal: AbortSignal,
  send: typeof sendOnce = sendOnce,
): Promise<number> {
  const destination = async (): Promise<IpAddress> => {
    const { address } = await lookup(new URL(url).hostname.replace(/^\[|\]$/g, ''));
    return ipAddress(address);
  };
  return fromAnyAddress(destination, (source) => send(url, body, signal, source?.text));
}

/** One POST, from this local address if there is one. Resolves with the status. */
export function sendOnce(
  url: string,
  body: string,
  signal: AbortSignal,
  localAddress?: string,
): Promise<number> {
  const request = url.startsWith('https:') ? requestHttps : requestHttp;
  return new Promise((resolve, reject) => {
    const headers = {
      ...{ 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
      ...{ 'user-agent': 'haports' },
    };
    const sent = request(url, { method: 'POST', headers, localAddress, agent: false, signal }, (response) => {
      // The end of the answer's body frees the connection.
      response.on('error', () => undefined);
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    sent.on('error', reject);
    sent.end(body);
  });
}
