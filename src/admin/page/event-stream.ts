// Server-sent events over fetch: with the token, and resumed by Last-Event-ID.

import { eventData } from '../../api/client.js';
import type { FeedEvent } from '../../api/views.js';

/** Nothing, not even a heartbeat (every 15 s), for so long: the stream is dead. */
const SILENCE_MS = 40_000;
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 10_000;
/** The longest that a timer can run. */
const FOREVER_MS = 2 ** 31 - 1;

export type StreamState =
  | { readonly kind: 'connecting' | 'live' | 'resting' }
  | { readonly kind: 'cut'; readonly attempts: number; readonly why: string };

/** Rejects where the answer is no stream. */
export type OpenStream = (
  path: string,
  headers: Readonly<Record<string, string>>,
  signal: AbortSignal,
) => Promise<Response>;

export interface EventFollower {
  /** Forgets the last id: another process counts from one again. */
  restart(): void;
  /** Ends a pause between two attempts, or a rest. */
  retry(): void;
  /** Closes the connection until `retry`: a browser has only six of them for all its tabs. */
  rest(): void;
}

/** Follows `v1/events` until `signal` aborts, and resumes after each cut with the last id. */
export function followEvents(options: {
  readonly open: OpenStream;
  readonly onEvent: (event: FeedEvent) => void;
  readonly onState: (state: StreamState) => void;
  readonly signal: AbortSignal;
}): EventFollower {
  const { open, onEvent, onState, signal } = options;
  let lastId: number | undefined;
  let connection = new AbortController();
  let wake = (): void => undefined;
  let resting = false;
  const reconnect = (): void => {
    connection.abort();
    wake();
  };
  signal.addEventListener('abort', reconnect);

  function pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  async function once(): Promise<void> {
    connection = new AbortController();
    const watch = () => setTimeout(() => connection.abort(), SILENCE_MS);
    let watchdog = watch();
    async function* pieces(response: Response): AsyncGenerator<string> {
      const body: ReadableStream<Uint8Array> | null = response.body;
      const reader = body?.getReader();
      const decoder = new TextDecoder();
      for (;;) {
        const { done, value } = (await reader?.read()) ?? { done: true };
        if (done) return;
        clearTimeout(watchdog);
        watchdog = watch();
        yield decoder.decode(value, { stream: true });
      }
    }
    try {
      const response = await (lastId === undefined
        ? open('v1/events?since=0', {}, connection.signal)
        : open('v1/events', { 'last-event-id': String(lastId) }, connection.signal));
      onState({ kind: 'live' });
      for await (const data of eventData(pieces(response))) {
        const event = JSON.parse(data) as FeedEvent;
        lastId = event.id;
        onEvent(event);
      }
    } finally {
      clearTimeout(watchdog);
    }
  }

  const isEnded = (): boolean => signal.aborted;
  async function run(): Promise<void> {
    let attempts = 0;
    onState({ kind: 'connecting' });
    while (!isEnded()) {
      const startedAtMs = Date.now();
      const why = await once().then(
        () => 'the stream ended',
        (error: unknown) => (error instanceof Error ? error.message : String(error)),
      );
      if (isEnded()) return;
      if (resting) {
        onState({ kind: 'resting' });
        await pause(FOREVER_MS);
        continue;
      }
      // A connection that lasted was a good one.
      attempts = Date.now() - startedAtMs > LONGEST_RETRY_MS ? 1 : attempts + 1;
      onState({ kind: 'cut', attempts, why });
      await pause(Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** (attempts - 1)));
    }
  }

  void run();
  return {
    restart() {
      lastId = undefined;
      reconnect();
    },
    retry() {
      resting = false;
      wake();
    },
    rest() {
      resting = true;
      reconnect();
    },
  };
}
