/** Which cores a run may use, as `taskset -c` takes them. */
export interface CorePlan {
  readonly balancer: string;
  readonly load: string;
  /** The balancer shares a core with the load: only CPU time per unit says something. */
  readonly shared: boolean;
}

/**
 * The balancer gets the first core for each of its workers, load and backends all others. Where there are not enough
 * cores, everything runs on all of them.
 */
export function corePlan(cores: number, workers: number): CorePlan {
  if (cores <= workers) {
    const all = range(0, cores - 1);
    return { balancer: all, load: all, shared: true };
  }
  return { balancer: range(0, workers - 1), load: range(workers, cores - 1), shared: false };
}

function range(first: number, last: number): string {
  return first === last ? String(first) : `${first}-${last}`;
}
