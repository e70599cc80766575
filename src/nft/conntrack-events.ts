import type { FlowOrigin, OriginFeed, OriginFollower } from '../model/flow-origin.js';
import { Backoff } from '../runtime/backoff.js';
import type { Clock } from '../runtime/clock.js';
import { ConntrackLines } from './conntrack-line.js';
import type { Tools } from './tools.js';

/** The kernel doubles it. An event takes about 700 bytes there: a second of 20,000 new flows has room. */
const BUFFER_BYTES = 8_388_608;

/** conntrack says that it has set its buffer, once events come; if it does not, they come after that at the latest. */
const READY_MS = 500;
const READY = 'buffer size has been set';
const LOST = 'ENOBUFS';

/** Meanwhile nobody hears of entries that go. */
const FIRST_RESTART_MS = 100;
const MOST_RESTART_MS = 2000;
/** A run as long as that was a good one. */
const GOOD_RUN_MS = 1000;

/** A full table of a million entries takes about that long. */
const LIST_TIMEOUT_MS = 10_000;

/** UDP origins as `conntrack -E` tells of them, run again whenever it ends. */
export class ConntrackEvents implements OriginFeed {
  readonly #clock: Clock;
  readonly #tools: Tools;
  readonly #lines = new ConntrackLines();

  constructor({ clock, tools }: { readonly clock: Clock; readonly tools: Tools }) {
    this.#clock = clock;
    this.#tools = tools;
  }

  follow(port: number, follower: OriginFollower): () => void {
    const backoff = new Backoff({ firstMs: FIRST_RESTART_MS, maxMs: MOST_RESTART_MS });
    let stopped = false;
    let stopRun = (): void => undefined;
    let cancelTimer = (): void => undefined;
    const run = (): void => {
      const startedMs = this.#clock.monotonicMs();
      const ready = once(() => follower.onGap());
      cancelTimer = this.#clock.setTimer(READY_MS, ready, { unref: true });
      stopRun = this.#tools.follow('conntrack', eventsOf(port), {
        onLines: (lines) => {
          if (!stopped) for (const line of lines) this.#tell(line, follower);
        },
        onComplaint: (line) => {
          if (stopped) return;
          if (line.includes(READY)) ready();
          else if (line.includes(LOST)) follower.onGap();
        },
        onEnd: () => {
          cancelTimer();
          if (stopped) return;
          if (this.#clock.monotonicMs() - startedMs >= GOOD_RUN_MS) backoff.reset();
          cancelTimer = this.#clock.setTimer(backoff.nextMs(), run, { unref: true });
        },
      });
    };
    run();
    return () => {
      stopped = true;
      cancelTimer();
      stopRun();
    };
  }

  async list(port: number): Promise<readonly FlowOrigin[] | undefined> {
    // Without a family, some versions tell of IPv4 alone.
    const outcomes = await Promise.all(
      ['ipv4', 'ipv6'].map((family) =>
        this.#tools.run('conntrack', ['-L', '-f', family, ...filterOf(port)], { timeoutMs: LIST_TIMEOUT_MS }),
      ),
    );
    if (outcomes.some(({ exitCode }) => exitCode !== 0)) return undefined;
    return outcomes.flatMap(({ stdout }) =>
      stdout.split('\n').flatMap((line) => this.#lines.parse(line) ?? []),
    );
  }

  #tell(line: string, follower: OriginFollower): void {
    const kind = line.charAt(line.indexOf('[') + 1);
    if (kind !== 'N' && kind !== 'D') return;
    const origin = this.#lines.parse(line);
    if (origin === undefined) return;
    if (kind === 'N') follower.onNew(origin);
    else follower.onGone(origin);
  }
}

function filterOf(port: number): readonly string[] {
  return ['-p', 'udp', '--reply-port-src', `${port}`, '-o', 'id'];
}

function eventsOf(port: number): readonly string[] {
  return ['-E', ...filterOf(port), '-e', 'NEW,DESTROY', '-b', `${BUFFER_BYTES}`];
}

function once(callback: () => void): () => void {
  let called = false;
  return () => {
    if (called) return;
    called = true;
    callback();
  };
}
