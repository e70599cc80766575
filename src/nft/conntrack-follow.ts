import { Backoff } from '../runtime/backoff.js';
import type { Clock } from '../runtime/clock.js';
import type { Tools } from './tools.js';

/**
 * The kernel doubles it. conntrack 1.4.7 gives it to another of its sockets than that of the events, which keeps
 * net.core.rmem_default: 166 events fit into 208 KiB. More at once are lost if it does not get to run in time: a gap.
 */
const BUFFER_BYTES = 8_388_608;

/** conntrack says that it has set its buffer, once events come; if it does not, they come after that at the latest. */
const READY_MS = 3000;
const READY = 'buffer size has been set';
const LOST = 'ENOBUFS';

/** Meanwhile nobody hears of entries that go. */
const FIRST_RESTART_MS = 100;
const MOST_RESTART_MS = 2000;
/** A run as long as that was a good one. */
const GOOD_RUN_MS = 1000;

export interface ConntrackFollower {
  /** Lines of events, in batches as they come. */
  onLines(lines: readonly string[]): void;
  /** What is known may be wrong: events were lost. Also once at the start of a run, when events have begun to come. */
  onGap(): void;
}

export interface ConntrackDeps {
  readonly clock: Clock;
  readonly tools: Tools;
}

/** Follows entries that come and go, until the returned function is called; begins again whenever conntrack ends. */
export function followConntrack(
  { clock, tools }: ConntrackDeps,
  filter: readonly string[],
  follower: ConntrackFollower,
): () => void {
  const backoff = new Backoff({ firstMs: FIRST_RESTART_MS, maxMs: MOST_RESTART_MS });
  const args = ['-E', ...filter, '-e', 'NEW,DESTROY', '-b', `${BUFFER_BYTES}`];
  let stopped = false;
  let stopRun = (): void => undefined;
  let cancelTimer = (): void => undefined;
  const run = (): void => {
    const startedMs = clock.monotonicMs();
    const ready = once(() => follower.onGap());
    cancelTimer = clock.setTimer(READY_MS, ready, { unref: true });
    stopRun = tools.follow('conntrack', args, {
      onLines: (lines) => {
        if (!stopped) follower.onLines(lines);
      },
      onComplaint: (line) => {
        if (stopped) return;
        if (line.includes(READY)) ready();
        else if (line.includes(LOST)) follower.onGap();
      },
      onEnd: () => {
        cancelTimer();
        if (stopped) return;
        if (clock.monotonicMs() - startedMs >= GOOD_RUN_MS) backoff.reset();
        cancelTimer = clock.setTimer(backoff.nextMs(), run, { unref: true });
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

function once(callback: () => void): () => void {
  let called = false;
  return () => {
    if (called) return;
    called = true;
    callback();
  };
}
