import { PerformanceObserver } from 'node:perf_hooks';
import type { Measurement, MicroBench, Prepared } from './micro-bench.js';

export interface MeasureOptions {
  readonly runs: number;
  /** A run takes about this long, unless the work sets a limit. */
  readonly runMs: number;
}

/** Runs that warm up the compiler: the first are interpreted. */
const WARM_UP_RUNS = 5;

/**
 * Needs --expose-gc. Times runs after a warm-up, then counts bytes in a run of its own. Times are the processor's, of
 * all threads of the process: other work on the machine adds little, and garbage collection is not left out.
 */
export async function measure(bench: MicroBench, options: MeasureOptions): Promise<Measurement> {
  const work = await bench.prepare();
  let checksum = 0;
  const timed = (iterations: number): number => {
    work.before?.();
    const started = process.cpuUsage();
    checksum = (checksum + work.run(iterations)) % Number.MAX_SAFE_INTEGER;
    const { user, system } = process.cpuUsage(started);
    return (user + system) * 1000;
  };
  const warmUpIterations = work.iterations ?? calibrate(timed, options.runMs);
  for (let run = 0; run < WARM_UP_RUNS; run++) timed(warmUpIterations);
  const iterations = work.iterations ?? calibrate(timed, options.runMs);
  const samples: number[] = [];
  for (let run = 0; run < options.runs; run++) {
    collectGarbage();
    samples.push(timed(iterations) / iterations);
  }
  samples.sort((a, b) => a - b);
  return {
    name: bench.name,
    medianNs: samples[samples.length >> 1] ?? NaN,
    leastNs: samples[0] ?? NaN,
    mostNs: samples.at(-1) ?? NaN,
    runs: samples.length,
    iterations,
    allocatedBytes: await allocatedBytes(work, iterations),
    checksum,
  };
}

/** How many iterations take `runMs`, by doubling. */
function calibrate(timed: (iterations: number) => number, runMs: number): number {
  let iterations = 1;
  for (;;) {
    const tookMs = timed(iterations) / 1e6;
    if (tookMs >= runMs / 2) return Math.ceil((iterations * runMs) / tookMs);
    iterations *= tookMs < runMs / 8 ? 4 : 2;
  }
}

/**
 * Growth of the heap over a run in which nothing was collected; shorter runs are tried until one is found. Where the
 * length is fixed, what of it was collected is missing.
 */
async function allocatedBytes(work: Prepared, iterations: number): Promise<number> {
  let collections = 0;
  const observer = new PerformanceObserver((list) => (collections += list.getEntries().length));
  observer.observe({ entryTypes: ['gc'] });
  try {
    for (let count = iterations; ; count = Math.ceil(count / 4)) {
      work.before?.();
      collectGarbage();
      // Entries of the collection above come late.
      await turnOfEventLoop();
      collections = 0;
      const before = heapBytes();
      work.run(count);
      const bytes = heapBytes() - before;
      await turnOfEventLoop();
      if (collections === 0 || count === 1 || work.iterations !== undefined) return bytes / count;
    }
  } finally {
    observer.disconnect();
  }
}

function heapBytes(): number {
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

function collectGarbage(): void {
  if (globalThis.gc === undefined) throw new TypeError('Must be run with --expose-gc');
  globalThis.gc();
}

async function turnOfEventLoop(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
}
