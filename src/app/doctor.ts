import { networkInterfaces } from 'node:os';
import { ALL_UP } from '../cli/deps.js';
import type { DoctorMachine } from '../doctor/machine.js';
import { knock } from '../health/probes.js';
import type { Configuration } from '../model/configuration.js';
import { errorMessage } from '../model/errors.js';
import type { ForwardingState } from '../model/forwarding.js';
import { neededSysctls, sysctlText, wrongSysctls } from '../planes/kernel/machine.js';
import { kernelInput } from '../planes/kernel/program.js';
import { setupOf } from '../planes/kernel/setup-of.js';
import { checkTransaction } from '../planes/netfilter/nft.js';
import { replaceTableText } from '../planes/netfilter/setup.js';
import { systemTools } from '../planes/netfilter/tools.js';
import { systemFiles } from '../runtime/files.js';
import { ForwardingCompiler } from '../selection/compiler.js';
import { createHasher } from '../selection/flow-hash.js';

/** SYN is sent again after one second: a lost one is no verdict. */
const KNOCK_TIMEOUT_MS = 2500;

/** What `haports doctor` examines. */
export function doctorMachine(): DoctorMachine {
  const tools = systemTools();
  return {
    monotonicMs: () => performance.now(),
    run: (tool, args) => tools.run(tool, args),
    readText: (path) => systemFiles.readText(path).catch(() => undefined),
    knock: (target) => knock(target, KNOCK_TIMEOUT_MS),
    async wrongSettings(configuration) {
      const needed = neededSysctls(kernelInput(await allUp(configuration)), interfaces());
      const wrong = await wrongSysctls(tools, needed);
      return wrong.map((one) => ({ text: sysctlText(one), fatal: one.fatal }));
    },
    async refusal(configuration) {
      try {
        const setup = setupOf(kernelInput(await allUp(configuration)), { networks: [] });
        await checkTransaction(tools, replaceTableText(setup));
        return undefined;
      } catch (error) {
        return errorMessage(error);
      }
    },
  };
}

/** Not those that only this machine sees. */
function interfaces(): readonly string[] {
  return Object.entries(networkInterfaces()).flatMap(([name, entries]) =>
    entries?.some(({ internal }) => internal) === true ? [] : [name],
  );
}

async function allUp(configuration: Configuration): Promise<ForwardingState> {
  return new ForwardingCompiler(await createHasher()).compile(configuration, ALL_UP);
}
