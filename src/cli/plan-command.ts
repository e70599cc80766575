import { ForwardingCompiler } from '../control/forwarding-compiler.js';
import { planChange } from '../control/plan.js';
import type { Configuration } from '../model/configuration.js';
import { errorMessage } from '../model/errors.js';
import type { FlowRecord } from '../model/flow.js';
import type { ForwardingState } from '../model/forwarding-state.js';
import type { PlanOutcome } from '../model/plan-report.js';
import { createHasher } from '../selection/hasher.js';
import { createPicker } from '../selection/picker.js';
import type { AdminClient } from './admin-client.js';
import { AdminProblem } from './admin-problem.js';
import { ALL_UP } from './all-up.js';
import type { CliDeps } from './cli-deps.js';
import { EXIT, type ExitCode } from './exit-codes.js';
import { usageError } from './option-parsers.js';
import { formatPlan } from './plan-text.js';

export interface PlanDeps extends Pick<CliDeps, 'out' | 'load' | 'readText'> {
  /** For the running process; only asked for where one is meant. */
  readonly client: () => Promise<Pick<AdminClient, 'plan'>>;
}

export interface PlanOptions {
  /** File to compare with; absent: the running process is asked. */
  readonly against?: string;
  /** 0 to 1. Exit code 3 above it. @default no limit */
  readonly maxMoved?: number;
  readonly json: boolean;
}

/** `haports plan`: what a configuration would do to the running one, or to that of a file. Changes nothing. */
export async function planCommand(deps: PlanDeps, file: string, options: PlanOptions): Promise<ExitCode> {
  const { against, maxMoved, json } = options;
  const outcome =
    against === undefined ? await askProcess(deps, file) : await comparedWith(deps, file, against);
  const { report } = outcome;
  if (json) deps.out(`${JSON.stringify(outcome, undefined, 2)}\n`);
  else {
    const limit = maxMoved === undefined ? {} : { maxMoved };
    deps.out(formatPlan(outcome, { file, live: against === undefined, ...limit }));
  }
  if (report === undefined) return EXIT.badInput;
  return maxMoved !== undefined && report.movedShare > maxMoved ? EXIT.gateExceeded : EXIT.fine;
}

async function askProcess({ readText, client }: PlanDeps, file: string): Promise<PlanOutcome> {
  const text = await readText(file).catch((cause: unknown) => {
    throw usageError(`Configuration file "${file}" cannot be read: ${errorMessage(cause)}`);
  });
  const live = await client();
  try {
    return await live.plan(text);
  } catch (error) {
    // It cannot be used: that is an answer too.
    if (error instanceof AdminProblem && error.findings.length > 0) return { findings: error.findings };
    throw error;
  }
}

async function comparedWith({ load }: PlanDeps, file: string, against: string): Promise<PlanOutcome> {
  const before = await load(against);
  if (!before.ok) {
    throw usageError(
      `Cannot compare with "${against}": ${before.findings[0]?.message ?? 'it cannot be used'}`,
    );
  }
  const after = await load(file);
  if (!after.ok) return { findings: after.findings };
  const hash = await createHasher();
  const compiler = new ForwardingCompiler(hash);
  const compile = (configuration: Configuration): ForwardingState => compiler.compile(configuration, ALL_UP);
  const report = await planChange({
    before: compile(before.configuration),
    after: compile(after.configuration),
    flows: noFlows(),
    picker: createPicker(hash),
  });
  return { findings: after.findings, report };
}

// eslint-disable-next-line @typescript-eslint/require-await -- there are none
async function* noFlows(): AsyncGenerator<FlowRecord> {
  return;
}
