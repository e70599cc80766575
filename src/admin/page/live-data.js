// What the page knows of the process, kept fresh.

const STATUS_EVERY_MS = 1000;
const TOPOLOGY_EVERY_MS = 2000;
/** The charts show this much. */
export const WINDOW_S = 300;

/** Runs `task` again and again, never twice at a time. `now()` runs it at once; `stop()` ends it. */
export function repeat(task, everyMs) {
  let timer;
  let stopped = false;
  let running = false;
  async function turn() {
    clearTimeout(timer);
    if (stopped || running) return;
    running = true;
    await task();
    running = false;
    if (!stopped) timer = setTimeout(turn, everyMs);
  }
  void turn();
  return {
    now: turn,
    stop() {
      stopped = true;
      clearTimeout(timer);
    },
  };
}

/**
 * Polls status (each second) and frontends, rules and pools (every other second). `onChange` gets a new object each
 * time: `{status, frontends, rules, pools, series, error, freshAtMs}`, where `error` is why the last poll failed.
 */
export function followProcess(api, onChange) {
  let known = { series: emptySeries() };
  const set = (part) => {
    known = { ...known, ...part };
    onChange(known);
  };

  async function status() {
    if (api.locked) return;
    try {
      const answer = await api.call('GET', 'v1/status');
      set({
        status: answer,
        series: grown(known.series, answer.traffic),
        freshAtMs: Date.now(),
        error: undefined,
      });
    } catch (error) {
      set({ series: grown(known.series, undefined), error });
    }
  }

  async function topology() {
    if (api.locked || (document.hidden && known.pools !== undefined)) return;
    try {
      const [frontends, rules, pools] = await Promise.all(
        ['v1/frontends', 'v1/rules', 'v1/pools'].map((path) => api.call('GET', path)),
      );
      set({ frontends, rules, pools, topologyError: undefined });
    } catch (error) {
      set({ topologyError: error });
    }
  }

  const polls = [repeat(status, STATUS_EVERY_MS), repeat(topology, TOPOLOGY_EVERY_MS)];
  return {
    now: () => polls.forEach((poll) => void poll.now()),
    stop: () => polls.forEach((poll) => poll.stop()),
  };
}

/** Columns for the charts: seconds since the epoch, then values; null is a gap. */
function emptySeries() {
  return { at: [], toBackend: [], toClient: [], newFlows: [] };
}

function grown(series, traffic) {
  const now = Date.now() / 1000;
  const first = series.at.findIndex((at) => at >= now - WINDOW_S);
  const kept = (column, value) => [...(first < 0 ? [] : column.slice(first)), value];
  return {
    at: kept(series.at, now),
    toBackend: kept(series.toBackend, traffic?.bitsToBackendPerSecond ?? null),
    toClient: kept(series.toClient, traffic?.bitsToClientPerSecond ?? null),
    newFlows: kept(series.newFlows, traffic?.newFlowsPerSecond ?? null),
  };
}
