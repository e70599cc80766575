#!/usr/bin/env node
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { CliDeps, ProcessSignal } from './cli/cli-deps.js';
import { runCli } from './cli/program.js';
import { loadConfigurationFile, startBalancer } from './compose.js';

const SIGNALS: readonly ProcessSignal[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];

// A reader that leaves early (`| head`, a dead log collector) is no reason to fail, let alone to stop balancing.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);

const deps: CliDeps = {
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  load: loadConfigurationFile,
  startBalancer,
  onSignal(listener) {
    for (const signal of SIGNALS) process.on(signal, listener);
    return () => {
      for (const signal of SIGNALS) process.off(signal, listener);
    };
  },
};

const bundledConfig = relative('', fileURLToPath(new URL('../config.json', import.meta.url)));
process.exitCode = await runCli(deps, process.argv.slice(2), bundledConfig);
