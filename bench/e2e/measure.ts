import type { CorePlan } from './core-plan.js';
import type { Numbers } from './results.js';
import { coreTicks, treeCpuSeconds } from './process-facts.js';
import type { Target } from './target.js';

/** What a piece of work cost. */
export interface Cost {
  /** Of the balancer's processes; undefined for direct. */
  readonly cpuSeconds: number | undefined;
  readonly wallSeconds: number;
  /** How busy the cores were, 0-1; undefined where balancer and load share them. */
  readonly busy: Numbers;
}

/** Does the work and tells what the balancer spent on it. */
export async function costOf<T>(
  target: Target,
  cores: CorePlan,
  work: () => Promise<T>,
): Promise<{ readonly result: T; readonly cost: Cost }> {
  const pid = target.process?.pid;
  const ticksBefore = await coreTicks();
  const cpuBefore = pid === undefined ? undefined : await treeCpuSeconds(pid);
  const startMs = performance.now();
  const result = await work();
  const wallSeconds = (performance.now() - startMs) / 1000;
  const cpuAfter = pid === undefined ? undefined : await treeCpuSeconds(pid);
  const ticksAfter = await coreTicks();
  const busyOf = (list: string): number => {
    const chosen = coresOf(list);
    const sum = (key: 'busy' | 'total'): number =>
      chosen.reduce((all, core) => all + (ticksAfter[core]?.[key] ?? 0) - (ticksBefore[core]?.[key] ?? 0), 0);
    return sum('busy') / Math.max(1, sum('total'));
  };
  return {
    result,
    cost: {
      cpuSeconds: cpuBefore === undefined || cpuAfter === undefined ? undefined : cpuAfter - cpuBefore,
      wallSeconds,
      busy: cores.shared ? {} : { balancerCore: busyOf(cores.balancer), loadCore: busyOf(cores.load) },
    },
  };
}

/** CPU time of the balancer for one unit, in `scale`ths of a second; nothing for direct. */
export function cpuPer(cost: Cost, name: string, units: number, scale: number): Numbers {
  return cost.cpuSeconds === undefined || units === 0 ? {} : { [name]: (cost.cpuSeconds * scale) / units };
}

function coresOf(list: string): readonly number[] {
  const [first = 0, last = first] = list.split('-').map(Number);
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}
