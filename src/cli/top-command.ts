import type { AdminClient } from './admin-client.js';
import type { CliDeps } from './cli-deps.js';
import { EXIT, type ExitCode } from './exit-codes.js';
import { interruptible } from './interrupt.js';
import { clientFor, printJson, printLines, type LiveOptions } from './live-options.js';
import { TOP_START, topQuery, type TopData, type TopModel, type TopSort } from './top-model.js';
import { TopSession } from './top-session.js';
import { renderTop } from './top-view.js';

/** Flows in a snapshot that nobody can scroll. */
const SNAPSHOT_FLOWS = 20;

export interface TopOptions extends LiveOptions {
  readonly sort: TopSort;
  readonly filter: string;
}

/**
 * `haports top`: backends and flows, live, on the whole terminal. Where the output is not a terminal, and with
 * `--json`, one snapshot.
 */
export async function topCommand(deps: CliDeps, options: TopOptions): Promise<ExitCode> {
  const client = await clientFor(deps, options);
  const interrupt = interruptible(deps);
  try {
    const start: TopModel = { ...TOP_START, sort: options.sort, filter: options.filter };
    // Before the terminal is taken over: that nobody answers is said in a line.
    const model = { ...start, data: await ask(deps, client, start, interrupt.signal) };
    if (options.json) {
      const { status, pools, flows } = model.data;
      printJson(deps, { status, pools, flows });
    } else if (deps.terminal.isInteractive) {
      const { terminal, clock } = deps;
      const session = new TopSession(
        { terminal, clock, ask: (asked, signal) => ask(deps, client, asked, signal) },
        model,
      );
      await session.run(interrupt.signal);
    } else {
      snapshot(deps, model);
    }
    return EXIT.fine;
  } finally {
    interrupt.release();
  }
}

function snapshot(deps: CliDeps, model: TopModel): void {
  const { columns } = deps.terminal.size();
  const backends = model.data?.pools.reduce((lines, { backends: { length } }) => lines + length + 2, 0) ?? 0;
  // Backends get at most half: twice the longer part is room for both.
  const rows = 2 * Math.max(backends, Math.min(SNAPSHOT_FLOWS, model.data?.flows.flows.length ?? 0) + 2) + 6;
  const lines = renderTop(model, { columns, rows })
    .slice(0, -1)
    .map(({ text }) => text.trimEnd());
  printLines(deps, [...trimEnd(lines), '', 'Output is not a terminal: this is one snapshot']);
}

function trimEnd(lines: readonly string[]): readonly string[] {
  return lines.slice(0, lines.findLastIndex((line) => line !== '') + 1);
}

async function ask(
  { clock }: CliDeps,
  client: AdminClient,
  model: TopModel,
  signal: AbortSignal,
): Promise<TopData> {
  const [status, pools, flows] = await Promise.all([
    client.status(signal),
    client.pools(signal),
    client.flows(topQuery(model), signal),
  ]);
  return { status, pools, flows, atMs: clock.wallMs() };
}
