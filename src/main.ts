#!/usr/bin/env node
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { CliDeps } from './cli/cli-deps.js';
import { processDeps } from './cli/process-deps.js';
import { runCli } from './cli/program.js';
import { kernelOperations, loadConfigurationFile, startBalancer } from './compose.js';
import { doctorMachine } from './compose-doctor.js';
import { predecessorChannel } from './runtime/peer-process.js';

// A reader that leaves early (`| head`, a dead log collector) is no reason to fail, let alone to stop balancing.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);

const bundledConfig = relative('', fileURLToPath(new URL('../config.json', import.meta.url)));
const predecessor = predecessorChannel();
const deps: CliDeps = {
  ...processDeps(),
  load: loadConfigurationFile,
  kernel: kernelOperations,
  doctor: doctorMachine(),
  startBalancer: (configuration, origin) => startBalancer(configuration, origin, predecessor),
};
process.exitCode = await runCli(deps, process.argv.slice(2), bundledConfig);
