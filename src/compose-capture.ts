import { kernelRuleset } from './compose-kernel.js';
import type { HandOverPlane } from './dataplane/hand-over.js';
import { captureInputs } from './dataplane/capture/capture-inputs.js';
import {
  decideCapture,
  type DecidedCapture,
  type HandedTcpSocket,
} from './dataplane/capture/capture-plan.js';
import { CapturedPlane } from './dataplane/capture/captured-plane.js';
import { InstanceLock } from './dataplane/capture/instance-lock.js';
import { setupText } from './dataplane/capture/setup-text.js';
import type { CaptureOptions, CapturePlan } from './model/capture.js';
import type { Configuration } from './model/configuration.js';
import { BalancerError, type ErrorCode } from './model/errors.js';
import { captureSetup } from './nft/capture-setup.js';
import { flushInstance } from './nft/flush.js';
import { Reconciler } from './nft/reconciler.js';
import { systemTools } from './nft/runner.js';
import type { Tool } from './nft/tools.js';
import { toolFailure } from './nft/tool-failure.js';
import { systemClock as clock } from './runtime/clock.js';
import { readChunks, readLinks, systemFiles } from './runtime/files.js';
import { handedDescriptors, handedListeners } from './runtime/handed-sockets.js';
import { portsInUse } from './runtime/listening-ports.js';
import type { Logger } from './runtime/logger.js';
import { ownSockets } from './runtime/own-sockets.js';

/** What `fallback: bind` is for. Anything else is a mistake, or may pass. */
const IMPOSSIBLE: readonly ErrorCode[] = [
  'LB_KERNEL_DENIED',
  'LB_KERNEL_TOOL_MISSING',
  'LB_KERNEL_UNSUPPORTED',
];

/**
 * How this process captures; undefined: it does not, since nobody asked for it, or since it is impossible and the
 * configuration says to bind then. Rejects with a BalancerError where it is impossible otherwise.
 */
export async function decideCaptureHere(
  configuration: Configuration,
  logger: Logger,
): Promise<DecidedCapture | undefined> {
  const { capture } = configuration;
  if (capture === undefined) return undefined;
  const decided = decideCapture({
    options: capture,
    families: familiesOf(configuration),
    handed: await handedSockets(),
  });
  try {
    await assertPossible(configuration, decided.plan);
    return decided;
  } catch (error) {
    if (!(error instanceof BalancerError) || !isPassable(error, capture)) throw error;
    logger.warn(
      { event: 'capture-impossible', code: error.code },
      `Ports are bound one by one, for capture is impossible: ${error.message}`,
    );
    return undefined;
  }
}

/** `inner` has the same plan. */
export function createCapturedPlane(
  { instance, workers }: Configuration,
  inner: HandOverPlane,
  decided: DecidedCapture,
): CapturedPlane {
  const tools = systemTools();
  return new CapturedPlane(
    {
      ...{ clock, inner },
      createKeeper: (onChange) => new Reconciler({ clock, tools, onChange }, { instance }),
      lock: new InstanceLock({ clock }, { instance }),
      portsInUse: () => portsInUse(readChunks),
      ownSockets: () =>
        ownSockets({ readText: (path) => systemFiles.readText(path), readLinks }, process.pid),
    },
    { ...decided, workers },
  );
}

/** What operators do about the kernel from the command line. */
export const kernelOperations = {
  /** What a start would write, as text. Rejects with `LB_USAGE` where nothing is written. */
  ruleset(configuration: Configuration, { full }: { readonly full: boolean }): string | Promise<string> {
    const { capture, kernel } = configuration;
    if (kernel !== undefined) return kernelRuleset(configuration, { full });
    if (capture === undefined) {
      throw new BalancerError('Nothing is captured: dataPlane.capture is not there, must be', {
        code: 'LB_USAGE',
        source: 'usage',
      });
    }
    const { udp, port, block, mode } = capture;
    const plan: CapturePlan = { tcp: mode === 'tproxy' ? mode : 'dnat-map', udp, port, block };
    return setupText(captureSetup(captureInputs(configuration, plan, []).input), { full });
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

function isPassable({ code }: BalancerError, { fallback }: CaptureOptions): boolean {
  return fallback === 'bind' && IMPOSSIBLE.includes(code);
}

function familiesOf({ frontends }: Configuration): ReadonlySet<4 | 6> {
  return new Set(frontends.map(({ address }) => address.family));
}

async function handedSockets(): Promise<readonly HandedTcpSocket[]> {
  const handed = handedDescriptors(process.env, process.pid);
  if (handed.length === 0) return [];
  return handedListeners(handed, await readLinks('/proc/self/fd'), await portsInUse(readChunks));
}

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
