import { loadConfiguration, type ParseResult, type Surroundings } from '../config/load.js';
import { ownAddresses } from '../planes/userspace/listen-plan.js';
import { systemFiles } from '../runtime/files.js';

/** Reads and checks a configuration file against this machine. What is wrong with it is in the result. */
export function loadConfigurationFile(path: string): Promise<ParseResult> {
  return loadConfiguration(path, systemFiles, thisMachine());
}

export function thisMachine(): Surroundings {
  return { ownAddresses: [...ownAddresses(4), ...ownAddresses(6)] };
}
