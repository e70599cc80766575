import type { FeedEvent } from '../model/feed-event.js';
import type { CliDeps } from './cli-deps.js';
import { followEvents, rememberedEvents } from './event-feed.js';
import { EXIT, type ExitCode } from './exit-codes.js';
import { interruptible } from './interrupt.js';
import { clientFor, printJsonLine, printLines, type LiveOptions } from './live-options.js';
import { printable } from './table.js';

/** Remembered events come in one go; a pause this long is their end. */
const QUIET_MS = 300;

export interface EventsOptions extends LiveOptions {
  readonly follow: boolean;
  readonly since?: number;
}

/** `haports events`: what happened, as the log has it; with --follow as it happens. `--json`: one event a line. */
export async function eventsCommand(deps: CliDeps, options: EventsOptions): Promise<ExitCode> {
  const client = await clientFor(deps, options);
  const interrupt = interruptible(deps);
  const { signal } = interrupt;
  const print = (event: FeedEvent): void =>
    options.json ? printJsonLine(deps, event) : printLines(deps, [formatEvent(event)]);
  try {
    if (!options.follow) {
      const since = options.since ?? 0;
      for (const event of await rememberedEvents(client, deps.clock, { since, quietMs: QUIET_MS, signal })) {
        print(event);
      }
      return EXIT.fine;
    }
    const onConnection = (change: 'lost' | 'restored' | 'restarted'): void =>
      deps.err(`haports: ${CONNECTION[change]}\n`);
    const since = options.since === undefined ? {} : { since: options.since };
    for await (const event of followEvents(client, deps.clock, { ...since, signal, onConnection }))
      print(event);
    return EXIT.fine;
  } catch (error) {
    if (signal.aborted) return EXIT.fine;
    throw error;
  } finally {
    interrupt.release();
  }
}

const CONNECTION = {
  lost: 'The connection is lost, trying again',
  restored: 'The connection is there again',
  restarted: 'Another haports process answers now; its events from the first on',
} as const;

/** `2026-11-20T12:03:04.123Z  17 warn  health-changed  nva-1 is down: HTTP 503`. */
export function formatEvent({ id, atMs, level, type, message }: FeedEvent): string {
  return printable(`${new Date(atMs).toISOString()}  ${id} ${level.padEnd(5)} ${type}  ${message}`);
}
