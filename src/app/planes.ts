import { ALL_UP } from '../cli/deps.js';
import type { CapturePlan } from '../model/capture.js';
import type { Configuration } from '../model/configuration.js';
import { BalancerError, type ErrorCode } from '../model/errors.js';
import type { ForwardingState } from '../model/forwarding.js';
import { CapturedPlane } from '../planes/capture/plane.js';
import { captureInputs, ownSockets, portsInUse } from '../planes/capture/ports-in-use.js';
import { captureSetup } from '../planes/capture/table.js';
import type { DataPlane, HandOverPlane, WorkerOptions } from '../planes/contract.js';
import { ConntrackFlows } from '../planes/kernel/nat/kernel-flows.js';
import { ownInterfaces, ownNetworks } from '../planes/kernel/machine.js';
import { KernelPlane, setupOf } from '../planes/kernel/plane.js';
import { compileProgram } from '../planes/kernel/program.js';
import { Conntrack, conntrackOrigins } from '../planes/netfilter/conntrack.js';
import { InstanceLock } from '../planes/netfilter/instance-lock.js';
import { flushInstance } from '../planes/netfilter/nft.js';
import { Reconciler } from '../planes/netfilter/reconciler.js';
import { setupText } from '../planes/netfilter/setup.js';
import { systemTools, toolFailure, type Tool } from '../planes/netfilter/tools.js';
import { flowShortage, type FlowShortage } from '../planes/userspace/descriptors.js';
import {
  mostListeners,
  ownAddresses,
  rendezvousOwner,
  socketBudget,
  tcpOwner,
  type SocketBudget,
} from '../planes/userspace/listen-plan.js';
import { UserspacePlane, type UserspacePlaneDeps } from '../planes/userspace/plane.js';
import { tryTcpPort } from '../planes/userspace/sockets/net.js';
import { WorkerGroup } from '../planes/workers/group.js';
import { forkSharingWorker, forkWorker, parentChannel } from '../planes/workers/process.js';
import { PlaneHost } from '../planes/workers/host.js';
import { systemClock as clock } from '../runtime/clock.js';
import { installedFile, readChunks, readLinks, systemFiles, systemFiles as files } from '../runtime/files.js';
import { descriptorLimit } from '../runtime/machine.js';
import { ForwardingCompiler } from '../selection/compiler.js';
import { createHasher, type Hash32 } from '../selection/flow-hash.js';
import { Picker } from '../selection/picker.js';

/** What listening takes of a process, and what that leaves for flows. */
interface ProcessBudget extends SocketBudget {
  /** Absent: descriptors suffice for what `limits` allows. */
  readonly flowShortage?: FlowShortage | undefined;
}

/** What listening takes of the processes, and how workers have TCP ports. To be asked before there are sockets. */
export function budgetFor(configuration: Configuration, capture?: CapturePlan): ProcessBudget {
  const { workers, kernel } = configuration;
  if (kernel !== undefined) return { tcpPorts: 'shared', sockets: 0 };
  const limit = descriptorLimit();
  const budget = socketBudget({ configuration, workers, limit, ownAddresses, capture });
  const listeners = Math.min(budget.sockets, mostListeners(limit));
  return {
    ...budget,
    flowShortage: limit === undefined ? undefined : flowShortage({ limit, configuration }, listeners),
  };
}

/**
 * The data plane that a configuration asks for: the kernel, or in this process, in one worker, or in several.
 * `capture`: how ports are captured; absent: they are bound.
 */
export function createPlane(
  configuration: Configuration,
  hash: Hash32,
  {
    tcpPorts,
    capture,
    onWarning,
  }: Pick<SocketBudget, 'tcpPorts'> & {
    readonly capture?: CapturePlan | undefined;
    /** Called with faults of the machine that the kernel plane tolerates. */
    readonly onWarning: (warning: string) => void;
  },
): DataPlane {
  if (configuration.kernel !== undefined) return createKernelPlane(configuration, hash, onWarning);
  const serving = createServingPlane(configuration, hash, { tcpPorts, capture });
  return capture === undefined ? serving : createCapturedPlane(configuration, serving, capture);
}

function createServingPlane(
  configuration: Configuration,
  hash: Hash32,
  { tcpPorts, capture }: Pick<SocketBudget, 'tcpPorts'> & { readonly capture: CapturePlan | undefined },
): HandOverPlane {
  const { workers } = configuration;
  const flowEvents = configuration.flowLog !== undefined;
  if (workers === 0) {
    const options = { flowEvents, worker: 0, workers: 1, capture };
    return createUserspacePlane({ hash, limit: descriptorLimit() }, options);
  }
  const script = installedFile('dist/worker.js');
  const ownerOf = rendezvousOwner(hash, workers);
  const deps =
    workers > 1 && tcpPorts === 'shared'
      ? { launch: () => forkSharingWorker(script) }
      : { launch: () => forkWorker(script), tcpOwnerOf: tcpOwner(ownerOf) };
  return new WorkerGroup({ clock, tryTcpPort, ownerOf, ...deps }, { flowEvents, workers, tcpPorts, capture });
}

/** The data worker's process: serves the process that forked it, and ends when that says so or is gone. */
export async function serveAsWorker(): Promise<void> {
  // Signals of the terminal reach the whole process group; what to do about them is the control process's decision.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR2'] as const)
    process.on(signal, () => undefined);
  // Now, for with sockets in this process the question takes seconds: see descriptorLimit.
  const limit = descriptorLimit();
  // The first message may come at any time from now on, and waits for the hasher.
  const channel = parentChannel();
  const hash = await createHasher();
  new PlaneHost({
    channel,
    clock,
    createPlane: (options, tcpGate) => createUserspacePlane({ hash, limit, tcpGate }, options),
    onStopped: () => {
      if (process.connected) process.disconnect();
    },
  });
}

function createUserspacePlane(
  { limit, ...deps }: Pick<UserspacePlaneDeps, 'hash' | 'tcpGate'> & { readonly limit: number | undefined },
  options: WorkerOptions,
): UserspacePlane {
  const origins = conntrackOrigins(new Conntrack({ clock, tools: systemTools() }));
  return new UserspacePlane({ clock, ownAddresses, descriptorLimit: limit, origins, ...deps }, options);
}

/** Of a configuration that asks for it. */
function createKernelPlane(
  { instance, flowLog }: Configuration,
  hash: Hash32,
  onWarning: (warning: string) => void,
): KernelPlane {
  const tools = systemTools();
  const flows = new ConntrackFlows(
    { clock, tools, files, picker: new Picker(hash) },
    { flowEvents: flowLog !== undefined },
  );
  const lock = new InstanceLock({ clock }, { instance });
  return new KernelPlane(
    { clock, tools, lock, flows, networks: ownNetworks, interfaces: ownInterfaces, onWarning },
    { instance },
  );
}

/** The state of a configuration where all probes say up. */
export async function allUp(configuration: Configuration): Promise<ForwardingState> {
  return new ForwardingCompiler(await createHasher()).compile(configuration, ALL_UP);
}

/** What `fallback: bind` is for. Anything else is a mistake, or may pass. */
const IMPOSSIBLE: readonly ErrorCode[] = [
  'LB_KERNEL_DENIED',
  'LB_KERNEL_TOOL_MISSING',
  'LB_KERNEL_UNSUPPORTED',
];

/**
 * How this process captures; undefined: it is not asked to. An error: capture is impossible, and the configuration says
 * to bind then. Rejects with a BalancerError where it is impossible otherwise.
 */
export async function decideCaptureHere(
  configuration: Configuration,
): Promise<CapturePlan | BalancerError | undefined> {
  const { capture } = configuration;
  if (capture === undefined) return undefined;
  const { udp, port, block, fallback } = capture;
  const plan: CapturePlan = { udp, port, block };
  try {
    await assertPossible(configuration, plan);
    return plan;
  } catch (error) {
    const isPassable = error instanceof BalancerError && IMPOSSIBLE.includes(error.code);
    if (!isPassable || fallback !== 'bind') throw error;
    return error;
  }
}

/** `inner` has the same plan. */
function createCapturedPlane(
  { instance, workers }: Configuration,
  inner: HandOverPlane,
  plan: CapturePlan,
): CapturedPlane {
  const tools = systemTools();
  return new CapturedPlane(
    {
      ...{ clock, inner },
      createReconciler: (onChange) => new Reconciler({ clock, tools, onChange }, { instance }),
      lock: new InstanceLock({ clock }, { instance }),
      portsInUse: () => portsInUse(readChunks),
      ownSockets: () =>
        ownSockets({ readText: (path) => systemFiles.readText(path), readLinks }, process.pid),
    },
    { plan, workers },
  );
}

/** What operators do about the kernel from the command line. */
export const kernelOperations = {
  /**
   * What a start would write where all probes say up, as text. Not `full`: the first elements of each set. Rejects with
   * `LB_USAGE` where nothing is written.
   */
  async ruleset(configuration: Configuration, { full }: { readonly full: boolean }): Promise<string> {
    const { capture, kernel } = configuration;
    if (kernel !== undefined) {
      return setupText(setupOf(compileProgram(await allUp(configuration)), ownNetworks()), { full });
    }
    if (capture === undefined) {
      throw new BalancerError('Nothing is captured: dataPlane.capture is not there, must be', {
        code: 'LB_USAGE',
        source: 'usage',
      });
    }
    return setupText(captureSetup(captureInputs(configuration, capture, []).input), { full });
  },

  /** Takes away what an instance has left. Rejects with `LB_INSTANCE_RUNNING` where it runs. */
  async flush(instance: string): Promise<readonly string[]> {
    const lock = new InstanceLock({ clock }, { instance });
    await lock.take();
    try {
      return await flushInstance(systemTools(), instance);
    } finally {
      lock.release();
    }
  },
};

/** Tries everything but the elements, which are many. */
async function assertPossible(configuration: Configuration, plan: CapturePlan): Promise<void> {
  const tools = systemTools();
  const needed: readonly Tool[] = plan.udp === 'redirect' ? ['ip', 'conntrack'] : ['ip'];
  for (const tool of needed) {
    const outcome = await tools.run(tool, [tool === 'ip' ? '-V' : '--version']);
    if (outcome.exitCode !== 0) throw toolFailure(tool, outcome);
  }
  const setup = captureSetup(captureInputs(configuration, plan, []).input);
  const { instance } = configuration;
  const trial = new Reconciler({ clock, tools, onChange: () => undefined }, { instance });
  await trial.check({ ...setup, sets: new Map() });
}
