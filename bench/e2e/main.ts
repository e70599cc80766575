import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { runCommand } from '../../test/support/commands.js';
import { Bench } from './bench.js';
import { ALL_CASES } from './cases/all-cases.js';
import { corePlan } from './core-plan.js';
import { loopbackLab } from './lab.js';
import { machineFacts } from './machine-facts.js';
import { openNetnsLab } from './netns-lab.js';
import { parseOptions, USAGE, type BenchOptions } from './options.js';
import { OwnProcesses } from './own-processes.js';
import { findPeers } from './peers/all-peers.js';
import { missingTools } from './required-tools.js';
import { writeReport } from './report/write-report.js';

// A reader that left must not end the run: its processes would stay behind.
process.stdout.on('error', () => undefined);
const say = (line: string): void => void process.stdout.write(`${line}\n`);

try {
  process.exitCode = await main(parseOptions(process.argv.slice(2)));
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n\n${USAGE}`);
  process.exitCode = 2;
}

/** 0 when every run gave a number, 1 when any failed. */
async function main(options: BenchOptions): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), 'haports-bench-'));
  const lab = options.netns ? await openNetnsLab() : loopbackLab();
  const processes = new OwnProcesses(lab);
  let bench: Bench | undefined;
  const clean = async (): Promise<void> => {
    await bench?.close();
    await processes.close();
    await lab.close();
    await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => void clean().finally(() => process.kill(process.pid, signal)));
  }
  try {
    // The bench itself must not run where the balancer does.
    await runCommand('taskset', ['-acp', corePlan(cpus().length, 1).load, String(process.pid)]);
    const peers = await findPeers(options, say);
    const facts = await machineFacts(peers);
    bench = new Bench({ lab, processes, peers, say }, { ...options, folder });
    for (const benchCase of ALL_CASES.filter(({ name }) => options.cases.includes(name))) {
      const missing = await missingTools(benchCase.name);
      if (missing.length > 0) {
        say(`left out: ${benchCase.name}, for want of ${missing.join(', ')} (see bench/README.md)`);
        continue;
      }
      const startedAtMs = performance.now();
      try {
        await benchCase.run(bench);
      } catch (error) {
        bench.record({ case: benchCase.name, variant: 'all', peer: 'all', round: 0, error: String(error) });
      }
      await processes.stopAll();
      say(`${benchCase.name} took ${Math.round((performance.now() - startedAtMs) / 1000)} s`);
    }
    await writeReport({ options, facts, samples: bench.samples, lab: lab.kind }, say);
    return bench.samples.some(({ error }) => error !== undefined) ? 1 : 0;
  } finally {
    await clean();
  }
}
