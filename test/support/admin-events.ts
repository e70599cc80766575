import { request, type ClientRequest } from 'node:http';
import type { FeedEvent } from '../../src/api/views.js';
import { within } from './deadline.js';

/** A reader of `/v1/events`; whoever opens it closes it. */
export class AdminEvents {
  /** In the order in which they came. */
  readonly events: FeedEvent[] = [];
  readonly #call: ClientRequest;

  private constructor(call: ClientRequest) {
    this.#call = call;
  }

  /** Resolves once the stream is open; with `lastEventId` as a browser that comes back. */
  static async open(socketPath: string, lastEventId?: number): Promise<AdminEvents> {
    const headers = {
      host: 'localhost',
      ...(lastEventId === undefined ? {} : { 'last-event-id': String(lastEventId) }),
    };
    const call = request({ socketPath, path: '/v1/events', headers });
    const reader = new AdminEvents(call);
    const opened = new Promise<void>((resolve, reject) => {
      call.on('error', reject);
      call.on('response', (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (part: string) => {
          const blocks = (text + part).split('\n\n');
          text = blocks.pop() ?? '';
          reader.events.push(...blocks.flatMap(parseBlock));
        });
        response.on('error', () => undefined);
        if (response.statusCode === 200) resolve();
        else reject(new Error(`/v1/events: HTTP ${response.statusCode}`));
      });
    });
    call.end();
    await within(opened, 10_000, '/v1/events to open');
    return reader;
  }

  close(): void {
    this.#call.destroy();
  }
}

/** The WHATWG event stream format, as far as it is used: one `data:` an event; comments are none. */
function parseBlock(block: string): readonly FeedEvent[] {
  const field = (name: string): string | undefined =>
    block
      .split('\n')
      .find((line) => line.startsWith(`${name}: `))
      ?.slice(name.length + 2);
  const data = field('data');
  if (data === undefined) return [];
  const event = JSON.parse(data) as FeedEvent;
  if (String(event.id) !== field('id') || event.type !== field('event')) {
    throw new Error(`Event stream contradicts itself: ${block}`);
  }
  return [event];
}
