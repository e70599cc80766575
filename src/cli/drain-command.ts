import type { AdminClient, DrainWishes } from './admin-client.js';
import type { DrainJson } from './admin-json.js';
import { AdminProblem } from './admin-problem.js';
import type { CliDeps } from './cli-deps.js';
import { drainEnd, drainSummary, formatDrain } from './drain-text.js';
import { EXIT, type ExitCode } from './exit-codes.js';
import { interruptible, type Interrupt } from './interrupt.js';
import { clientFor, printJson, printJsonLine, printLines, type LiveOptions } from './live-options.js';
import { parseBackendRef, usageError, type BackendRef } from './option-parsers.js';

const WATCH_MS = 1000;

/** Where lines cannot be replaced, they are worth a look this often, or when the phase changes. */
const LINE_MS = 10_000;

export interface DrainOptions extends LiveOptions, DrainWishes {
  readonly watch: boolean;
  readonly cancel: boolean;
  /** Shows the drain that is under way instead of starting one. */
  readonly show: boolean;
}

/** `haports drain`: no new flows for a backend, and what becomes of those that it has. */
export async function drainCommand(deps: CliDeps, name: string, options: DrainOptions): Promise<ExitCode> {
  const backend = parseBackendRef(name);
  if (options.cancel && (options.watch || options.show)) {
    throw usageError('Cannot combine --cancel with --watch or --show');
  }
  const client = await clientFor(deps, options);
  if (options.cancel) {
    await client.cancelDrain(backend);
    if (options.json) printJson(deps, { backend: name, cancelled: true });
    else printLines(deps, [`${name} gets new flows again; flows that were left stay`]);
    return EXIT.fine;
  }
  // Before the drain starts: Ctrl-C in between must not leave anybody in doubt whether it did.
  const interrupt = interruptible(deps);
  try {
    const { deadline, then, spread, force } = options;
    const drain = options.show
      ? await client.drainStatus(backend)
      : await client.drain(backend, { deadline, then, spread, force });
    if (options.watch) return await watchDrain({ deps, client, backend, interrupt }, drain, options);
    if (options.json) printJson(deps, drain);
    else printLines(deps, formatDrain(drain, placing(deps)));
    return EXIT.fine;
  } finally {
    interrupt.release();
  }
}

interface Watching {
  readonly deps: CliDeps;
  readonly client: AdminClient;
  readonly backend: BackendRef;
  readonly interrupt: Interrupt;
}

async function watchDrain(watching: Watching, first: DrainJson, { json }: LiveOptions): Promise<ExitCode> {
  const { deps, client, backend, interrupt } = watching;
  const shown = progress(deps, json);
  let drain = first;
  for (;;) {
    shown.update(drain);
    if (drain.phase === 'done') {
      if (!json) printLines(deps, [drainEnd(drain, deps.clock.wallMs())]);
      return EXIT.fine;
    }
    await interrupt.pause(WATCH_MS);
    try {
      if (!interrupt.signal.aborted) drain = await client.drainStatus(backend, interrupt.signal);
    } catch (error) {
      if (error instanceof AdminProblem && error.code === 'LB_NOT_FOUND') {
        if (!json) printLines(deps, [`${backend.text} is not being drained any more: somebody cancelled it`]);
        return EXIT.failed;
      }
      if (!interrupt.signal.aborted) throw error;
    }
    if (interrupt.signal.aborted) {
      if (!json) {
        printLines(deps, [
          `The drain goes on; "haports drain ${backend.text} --show --watch" shows it again, --cancel ends it`,
        ]);
      }
      return EXIT.fine;
    }
  }
}

/** Shows a drain again and again: in place on a terminal, else now and then in one line. */
function progress(deps: CliDeps, json: boolean): { update(drain: DrainJson): void } {
  if (json) return { update: (drain) => printJsonLine(deps, drain) };
  if (deps.terminal.isInteractive) {
    let height = 0;
    return {
      update(drain) {
        const lines = formatDrain(drain, placing(deps)).slice(0, Math.max(1, deps.terminal.size().rows - 2));
        const up = height === 0 ? '' : `\u001b[${height}A`;
        deps.out(`${up}\r\u001b[J${lines.join('\n')}\n`);
        height = lines.length;
      },
    };
  }
  let told: { readonly phase: string; readonly atMs: number } | undefined;
  return {
    update(drain) {
      const atMs = deps.clock.monotonicMs();
      if (told?.phase === drain.phase && atMs - told.atMs < LINE_MS) return;
      told = { phase: drain.phase, atMs };
      if (drain.phase !== 'done') printLines(deps, [drainSummary(drain, deps.clock.wallMs())]);
    },
  };
}

function placing(deps: CliDeps): { readonly nowMs: number; readonly width: number } {
  return { nowMs: deps.clock.wallMs(), width: deps.terminal.size().columns };
}
