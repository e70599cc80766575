/** One server-sent event. */
export interface ServerSentEvent {
  readonly id?: string;
  /** @default 'message' */
  readonly event: string;
  readonly data: string;
}

/**
 * Turns pieces of a text/event-stream into events, as the HTML standard, section 9.2.6 has it. Comments (heartbeats)
 * give nothing. Feed it decoded text in any pieces.
 */
export class EventStreamParser {
  #rest = '';
  #id: string | undefined;
  #event = '';
  #data: string[] = [];

  feed(piece: string): readonly ServerSentEvent[] {
    const events: ServerSentEvent[] = [];
    const text = this.#rest + piece;
    let from = 0;
    for (;;) {
      const end = /\r\n|\n|\r/g;
      end.lastIndex = from;
      const match = end.exec(text);
      // A CR at the very end may be the first half of CRLF.
      if (match === null || (match[0] === '\r' && match.index === text.length - 1)) break;
      const done = this.#line(text.slice(from, match.index));
      if (done !== undefined) events.push(done);
      from = match.index + match[0].length;
    }
    this.#rest = text.slice(from);
    return events;
  }

  #line(line: string): ServerSentEvent | undefined {
    if (line === '') return this.#dispatch();
    const colon = line.indexOf(':');
    const field = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === 'data') this.#data.push(value);
    else if (field === 'event') this.#event = value;
    else if (field === 'id' && !value.includes('\0')) this.#id = value;
    return undefined;
  }

  #dispatch(): ServerSentEvent | undefined {
    const data = this.#data;
    const event = this.#event === '' ? 'message' : this.#event;
    this.#data = [];
    this.#event = '';
    if (data.length === 0) return undefined;
    return { event, data: data.join('\n'), ...(this.#id === undefined ? {} : { id: this.#id }) };
  }
}
