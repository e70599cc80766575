import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { doctorMachine } from './app/doctor.js';
import { kernelOperations, loadConfigurationFile, startBalancer } from './app/start.js';
import type { CliDeps } from './cli/deps.js';
import { processDeps, runCli } from './cli/program.js';
import { predecessorChannel } from './runtime/peer.js';

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
