#!/usr/bin/env node
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { processDeps } from './cli/process-deps.js';
import { runCli } from './cli/program.js';
import { loadConfigurationFile, startBalancer } from './compose.js';

// A reader that leaves early (`| head`, a dead log collector) is no reason to fail, let alone to stop balancing.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);

const bundledConfig = relative('', fileURLToPath(new URL('../config.json', import.meta.url)));
const deps = { ...processDeps(), load: loadConfigurationFile, startBalancer };
process.exitCode = await runCli(deps, process.argv.slice(2), bundledConfig);
