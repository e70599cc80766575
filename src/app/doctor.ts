import type { DoctorMachine } from '../doctor/machine.js';
import { connectOnce } from '../health/probes.js';
import { errorMessage } from '../model/errors.js';
import { neededSysctls, ownInterfaces, sysctlText, wrongSysctls } from '../planes/kernel/machine.js';
import { setupOf } from '../planes/kernel/plane.js';
import { compileProgram } from '../planes/kernel/program.js';
import { flowShortageAdvice } from '../planes/userspace/descriptors.js';
import { shortageAdvice } from '../planes/userspace/listen-plan.js';
import { checkTransaction } from '../planes/netfilter/nft.js';
import { replaceTableText } from '../planes/netfilter/setup.js';
import { systemTools } from '../planes/netfilter/tools.js';
import { systemFiles } from '../runtime/files.js';
import { allUp, budgetFor } from './planes.js';

/** SYN is sent again after one second: a lost one is no verdict. */
const CONNECT_TIMEOUT_MS = 2500;

/** What `haports doctor` examines. */
export function doctorMachine(): DoctorMachine {
  const tools = systemTools();
  return {
    monotonicMs: () => performance.now(),
    run: (tool, args) => tools.run(tool, args),
    readText: (path) => systemFiles.readText(path).catch(() => undefined),
    connect: (target) => connectOnce(target, CONNECT_TIMEOUT_MS),
    async wrongSettings(configuration) {
      const needed = neededSysctls(compileProgram(await allUp(configuration)), ownInterfaces());
      const wrong = await wrongSysctls(tools, needed);
      return wrong.map((one) => ({ text: sysctlText(one), fatal: one.fatal }));
    },
    async refusal(configuration) {
      try {
        const setup = setupOf(compileProgram(await allUp(configuration)), []);
        await checkTransaction(tools, replaceTableText(setup));
        return undefined;
      } catch (error) {
        return errorMessage(error);
      }
    },
    descriptorShortages(configuration) {
      const { shortage, flowShortage } = budgetFor(configuration, configuration.capture);
      return [
        ...(shortage === undefined ? [] : [`Not all ports can be listened on: ${shortageAdvice(shortage)}`]),
        ...(flowShortage === undefined
          ? []
          : [`Descriptors do not suffice for all flows: ${flowShortageAdvice(flowShortage)}`]),
      ];
    },
  };
}
