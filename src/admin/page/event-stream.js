// Server-sent events over fetch: with the token, and resumed by Last-Event-ID.

/** Nothing, not even a heartbeat (every 15 s), for so long: the stream is dead. */
const SILENCE_MS = 40_000;
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 10_000;
/** As long as a timer can be. */
const FOR_EVER_MS = 2 ** 31 - 1;

/** Parses text/event-stream (HTML standard, section 9.2.6) as it comes, in pieces cut anywhere. */
export function createEventParser(onMessage) {
  let rest = '';
  let data = [];
  let id;
  let type = 'message';

  function line(text) {
    if (text === '') {
      if (data.length > 0) onMessage({ id, type, data: data.join('\n') });
      data = [];
      type = 'message';
      return;
    }
    const colon = text.indexOf(':');
    if (colon === 0) return;
    const field = colon < 0 ? text : text.slice(0, colon);
    const value = colon < 0 ? '' : text.slice(colon + 1).replace(/^ /, '');
    if (field === 'data') data.push(value);
    else if (field === 'id') id = value;
    else if (field === 'event') type = value;
  }

  return (piece) => {
    rest += piece;
    // A carriage return at the very end may be half of a line end.
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    lines.forEach(line);
  };
}

/**
 * Follows `v1/events` until `signal` aborts, and comes back after each cut with the last id. `onState` is told
 * `connecting`, `live`, `resting`, or `cut` with the number of attempts and why. `restart()` of the result forgets the
 * id: another process counts from one again.
 */
export function followEvents({ api, onEvent, onState, signal }) {
  let lastId;
  let connection = new AbortController();
  let wake = () => undefined;
  let resting = false;
  signal.addEventListener('abort', () => (connection.abort(), wake()));

  function pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      wake = () => (clearTimeout(timer), resolve());
    });
  }

  async function once() {
    connection = new AbortController();
    const headers = lastId === undefined ? {} : { 'last-event-id': lastId };
    let watchdog = setTimeout(() => connection.abort(), SILENCE_MS);
    try {
      const path = lastId === undefined ? 'v1/events?since=0' : 'v1/events';
      const response = await api.stream(path, headers, connection.signal);
      onState({ kind: 'live' });
      const parse = createEventParser((message) => {
        if (message.id !== undefined) lastId = message.id;
        onEvent(JSON.parse(message.data));
      });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return true;
        clearTimeout(watchdog);
        watchdog = setTimeout(() => connection.abort(), SILENCE_MS);
        parse(value);
      }
    } finally {
      clearTimeout(watchdog);
    }
  }

  async function run() {
    let attempts = 0;
    onState({ kind: 'connecting' });
    while (!signal.aborted) {
      let why = 'the stream ended';
      const began = Date.now();
      try {
        await once();
      } catch (error) {
        why = error.message;
      }
      if (signal.aborted) return;
      if (resting) {
        onState({ kind: 'resting' });
        await pause(FOR_EVER_MS);
        continue;
      }
      // A connection that lasted was a good one.
      attempts = Date.now() - began > LONGEST_RETRY_MS ? 1 : attempts + 1;
      onState({ kind: 'cut', attempts, why });
      await pause(Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** (attempts - 1)));
    }
  }

  void run();
  return {
    restart() {
      lastId = undefined;
      connection.abort();
      wake();
    },
    /** Ends a pause between two attempts, or a rest. */
    retry() {
      resting = false;
      wake();
    },
    /** Gives the connection up until `retry`: a browser has but six of them for all its tabs. */
    rest() {
      resting = true;
      connection.abort();
      wake();
    },
  };
}
