import type { Tools } from '../../nft/tools.js';
import type { KernelInput } from './kernel-input.js';
import { neededSysctls, setSysctls, sysctlError, sysctlText, wrongSysctls } from './sysctls.js';

export interface MachineDeps {
  readonly tools: Tools;
  /** Names of the machine's links. */
  readonly interfaces: () => readonly string[];
  /** What people should know about this machine. */
  readonly onWarning: (text: string) => void;
}

/** Settings of the machine: set where that is allowed, else told of. Rejects where nothing could be forwarded. */
export async function prepareMachine(
  { tools, interfaces, onWarning }: MachineDeps,
  input: KernelInput,
): Promise<void> {
  let wrong = await wrongSysctls(tools, neededSysctls(input, interfaces()));
  if (input.options.manageSysctls) {
    const left = await setSysctls(tools, wrong);
    for (const one of wrong) {
      if (left.some(({ key }) => key === one.key)) continue;
      onWarning(`${one.key} was ${one.found} and is ${one.value} now, as manageSysctls asks`);
    }
    wrong = left;
  }
  const error = sysctlError(wrong);
  if (error !== undefined) throw error;
  // Whoever tells of flows says what he misses of these.
  for (const one of wrong) if (!one.key.startsWith('net.netfilter.')) onWarning(sysctlText(one));
}
