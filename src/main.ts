import { relative } from 'node:path';
import { loadConfigurationFile } from './app/configuration-file.js';
import type { CliDeps } from './cli/deps.js';
import { processDeps, runCli } from './cli/program.js';
import { installedFile } from './runtime/files.js';
import { predecessorChannel } from './runtime/peer.js';

// A reader that leaves early (`| head`, a dead log collector) is no reason to fail, let alone to stop balancing.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);

const bundledConfig = relative('', installedFile('config.json'));
const predecessor = predecessorChannel();
/** The balancer is loaded by the commands that need it: it would double the time that the others take to start. */
const balancer = () => import('./app/start.js');
const deps: CliDeps = {
  ...processDeps(),
  load: loadConfigurationFile,
  kernel: {
    ruleset: async (configuration, options) =>
      (await balancer()).kernelOperations.ruleset(configuration, options),
    flush: async (instance) => (await balancer()).kernelOperations.flush(instance),
  },
  doctor: async () => (await import('./app/doctor.js')).doctorMachine(),
  startBalancer: async (configuration, origin) =>
    (await balancer()).startBalancer(configuration, origin, predecessor),
};
process.exitCode = await runCli(deps, process.argv.slice(2), bundledConfig);
