import type { ApplyReport } from '../dataplane/data-plane.js';
import type { Configuration } from '../model/configuration.js';
import type { ForwardingState, PoolView } from '../model/forwarding-state.js';
import type { KernelReport } from '../model/kernel-report.js';
import { tableInUse } from '../selection/picker.js';
import type { ViewSamples } from './traffic-view.js';

/** A revision that the data plane would not take. */
export interface Refusal {
  readonly revision: number;
  readonly message: string;
}

export interface ProblemInputs {
  /** Undefined before the first apply. */
  readonly state: ForwardingState | undefined;
  readonly report: ApplyReport | undefined;
  readonly stopping: boolean;
  readonly samples: ViewSamples;
  /** Why there are no counters of now; absent: there are. */
  readonly silence?: string;
  /** The last revision, where it was refused. */
  readonly refusal?: Refusal;
  /** What the plane keeps in the kernel; absent: nothing. */
  readonly kernel?: KernelReport;
}

/** Why the balancer is not ready or not healthy, for people, the worst first; empty: all is well. Pure. */
export function statusProblems(inputs: ProblemInputs): readonly string[] {
  const { state, report, stopping, samples, silence, refusal, kernel } = inputs;
  const problems: string[] = [];
  if (stopping) problems.push('The process is stopping');
  if (silence !== undefined) problems.push(`Data plane gives no counters: ${silence}`);
  if (refusal !== undefined)
    problems.push(`Data plane refused revision ${refusal.revision}: ${refusal.message}`);
  if (state === undefined) return [...problems, 'No forwarding state has been applied yet'];
  if (report === undefined || report.listeners.tcp + report.listeners.udp === 0) {
    problems.push('No listener is open');
  } else {
    problems.push(...deafFrontends(samples));
  }
  if (kernel !== undefined) problems.push(...kernelProblems(kernel));
  for (const view of state.views) problems.push(...poolProblems(state, view));
  return [...problems, ...workerProblems(state.configuration, samples), ...fullTables(samples)];
}

function deafFrontends({ latest }: ViewSamples): readonly string[] {
  return Object.entries(latest?.counters.listeners ?? {})
    .filter(([, { open, wanted }]) => open < wanted)
    .map(([name, { open, wanted }]) => `Frontend "${name}": ${open} of ${wanted} listeners are open`);
}

/** Nothing is steered to the listeners then, however many are open. */
function kernelProblems({ state, table, lastFailure }: KernelReport): readonly string[] {
  if (state === 'in-place') return [];
  const what = state === 'absent' ? 'is not in the kernel' : 'cannot be put in the kernel';
  return [`Table ${table} ${what}${lastFailure === undefined ? '' : `: ${lastFailure.text}`}`];
}

function poolProblems(state: ForwardingState, view: PoolView): readonly string[] {
  const { rules, backendPools } = state.configuration;
  const name =
    view.probe === undefined ? `Pool "${view.pool}"` : `Pool "${view.pool}" by probe "${view.probe}"`;
  const serving = view.backends.filter((member) => member.serving).length;
  if (serving === 0) {
    const failsOpen = rules.some(
      (rule, index) =>
        state.views[state.viewOfRule[index] ?? -1] === view && tableInUse(rule, view)?.failOpen === true,
    );
    return [`${name}: no backend serves${failsOpen ? ', new flows fail open' : ''}`];
  }
  const minimum = backendPools.find((pool) => pool.name === view.pool)?.minimumHealthy ?? 1;
  return serving < minimum ? [`${name}: ${serving} of at least ${minimum} backends serve`] : [];
}

/** A worker that serves has a delay of its event loop; one that is being replaced has none, or not a number. */
function workerProblems({ workers }: Configuration, { latest }: ViewSamples): readonly string[] {
  if (latest === undefined) return [];
  const delays = latest.counters.eventLoopDelaySeconds;
  return Array.from({ length: Math.max(workers, delays.length) }, (_, worker) => worker)
    .filter((worker) => Number.isNaN(delays[worker] ?? Number.NaN))
    .map((worker) => `Data worker ${worker} is being replaced`);
}

function fullTables({ latest }: ViewSamples): readonly string[] {
  return Object.entries(latest?.counters.table ?? {})
    .filter(([, { used, limit }]) => limit > 0 && used >= limit)
    .map(([table, { limit }]) => `Flow table ${table} is full: ${limit} flows`);
}
