import { Bench } from './bench.js';
import type { Lab } from './lab.js';
import type { CaseName } from './options.js';
import { OwnProcesses } from './own-processes.js';

/**
 * Runs a case in a lab of its own, with a bench whose processes live there; what it measures is recorded by `bench`.
 * Says so and does nothing without root, which namespaces need.
 */
export async function inPrivateLab<T extends Lab>(
  bench: Bench,
  name: CaseName,
  open: () => Promise<T>,
  work: (inside: Bench, lab: T) => Promise<void>,
): Promise<void> {
  if (process.getuid?.() !== 0) {
    bench.say(`left out: ${name}, which needs root for its network namespaces`);
    return;
  }
  const lab = await open();
  const processes = new OwnProcesses(lab);
  const close = async (): Promise<void> => {
    await processes.close();
    await lab.close();
  };
  bench.atEnd(close);
  try {
    const { peers, say, options } = bench;
    const folder = await bench.folder(name);
    await work(new Bench({ lab, processes, peers, say }, { ...options, folder }), lab);
  } finally {
    await close();
  }
}
