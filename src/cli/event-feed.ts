import type { IncomingMessage } from 'node:http';
import type { FeedEvent } from '../model/feed-event.js';
import { Backoff } from '../runtime/backoff.js';
import type { Clock } from '../runtime/clock.js';
import type { AdminClient } from './admin-client.js';
import { problemOf } from './admin-problem.js';
import { readBody, sendRequest } from './admin-transport.js';
import { queryOf } from './admin-client.js';
import { EventStreamParser } from './event-stream.js';
import { pause } from './interrupt.js';

/** The server sends a comment every 15 s: three of them missing is a connection that is gone. */
const SILENCE_MS = 45_000;

const FIRST_RETRY_MS = 250;
const MAXIMUM_RETRY_MS = 5000;

export interface FollowOptions {
  /** Remembered events with an id above this come first; absent: only new ones. */
  readonly since?: number;
  readonly signal: AbortSignal;
  /** Told when the connection is lost, and when it is there again. */
  readonly onConnection?: (change: 'lost' | 'restored' | 'restarted') => void;
}

/**
 * Events as they happen, until aborted. A connection that breaks is made again and goes on after the last event; a
 * process that was started anew counts its events from 1 again and is followed from its first. Throws if the first
 * connection fails, as AdminClient does.
 */
export async function* followEvents(
  client: AdminClient,
  clock: Clock,
  options: FollowOptions,
): AsyncGenerator<FeedEvent, void> {
  const { signal, onConnection } = options;
  const backoff = new Backoff({ firstMs: FIRST_RETRY_MS, maxMs: MAXIMUM_RETRY_MS });
  const isOver = (): boolean => signal.aborted;
  let server = await client.status(signal);
  let last = options.since;
  let connection = await connect(client, last, signal);
  for (;;) {
    try {
      for await (const event of eventsOf(connection)) {
        last = event.id;
        backoff.reset();
        yield event;
      }
    } catch (error) {
      if (!isOver() && error instanceof SyntaxError) throw error;
    } finally {
      connection.destroy();
    }
    if (isOver()) return;
    onConnection?.('lost');
    for (;;) {
      await pause(clock, backoff.nextMs(), signal);
      if (isOver()) return;
      try {
        const now = await client.status(signal);
        const isAnother = now.pid !== server.pid || now.startedAtMs !== server.startedAtMs;
        server = now;
        if (isAnother) last = 0;
        connection = await connect(client, last, signal);
        onConnection?.(isAnother ? 'restarted' : 'restored');
        break;
      } catch {
        // Not there yet.
      }
    }
  }
}

/**
 * Events that the process remembers with an id above `since`, oldest first: what comes before `quietMs` of silence, or
 * ten times that where events never cease.
 */
export async function rememberedEvents(
  client: AdminClient,
  clock: Clock,
  options: { readonly since: number; readonly quietMs: number; readonly signal: AbortSignal },
): Promise<readonly FeedEvent[]> {
  const connection = await connect(client, options.since, options.signal);
  const events: FeedEvent[] = [];
  const quiet = (): void => void connection.destroy();
  let cancel = clock.setTimer(options.quietMs, quiet);
  const cancelLimit = clock.setTimer(options.quietMs * 10, quiet);
  try {
    for await (const event of eventsOf(connection)) {
      events.push(event);
      cancel();
      cancel = clock.setTimer(options.quietMs, quiet);
    }
  } catch (error) {
    if (!connection.destroyed) throw error;
  } finally {
    cancel();
    cancelLimit();
    connection.destroy();
  }
  return events;
}

async function connect(
  client: AdminClient,
  since: number | undefined,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  const response = await sendRequest(client.target, {
    method: 'GET',
    path: `/v1/events${queryOf({ since })}`,
    headers: {
      accept: 'text/event-stream',
      ...(since === undefined ? {} : { 'last-event-id': String(since) }),
    },
    timeoutMs: SILENCE_MS,
    signal,
  });
  if (response.statusCode === 200) return response;
  throw problemOf(response.statusCode ?? 0, await readBody(client.target, response));
}

async function* eventsOf(response: IncomingMessage): AsyncGenerator<FeedEvent, void> {
  const parser = new EventStreamParser();
  response.setEncoding('utf8');
  for await (const piece of response) {
    for (const { data } of parser.feed(String(piece))) yield JSON.parse(data) as FeedEvent;
  }
}
