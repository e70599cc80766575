import { errorMessage } from '../model/errors.js';
import type { Clock } from '../runtime/clock.js';

/** Something that must answer for the process to count as alive: the control loop, a data worker. */
export interface LivenessCheck {
  /** `control loop`, `data plane`. */
  readonly name: string;
  /** Resolves when it answers; a rejection counts as no. */
  answer(): Promise<unknown>;
}

/** What readiness is made of. */
export interface Readiness {
  /** A revision has been applied. */
  readonly applied: boolean;
  readonly openListeners: number;
  readonly stopping: boolean;
  /** Why nothing reaches the listeners; absent: they are reached. */
  readonly unsteered?: string;
}

/** Why not; empty: all is well. */
export type Reasons = readonly string[];

/** Asks and gives `timeoutMs`: not to know is not to be ready. Never rejects. */
export async function readinessReasons(
  ask: () => Readiness | Promise<Readiness>,
  timeoutMs: number,
  clock: Clock,
): Promise<Reasons> {
  const reasons: string[] = [];
  const answer = async () => {
    const readiness = await ask();
    if (!readiness.applied) reasons.push('No forwarding state has been applied yet');
    if (readiness.openListeners === 0) reasons.push('No listener is open');
    if (readiness.unsteered !== undefined) reasons.push(readiness.unsteered);
    if (readiness.stopping) reasons.push('The process is stopping');
  };
  const silence = await livenessReason({ name: 'data plane', answer }, timeoutMs, clock);
  return silence === undefined ? reasons : [silence];
}

/** Asks all at once and gives each `timeoutMs`. Never rejects. */
export async function livenessReasons(
  checks: readonly LivenessCheck[],
  timeoutMs: number,
  clock: Clock,
): Promise<Reasons> {
  const reasons = await Promise.all(checks.map((check) => livenessReason(check, timeoutMs, clock)));
  return reasons.filter((reason) => reason !== undefined);
}

async function livenessReason(
  check: LivenessCheck,
  timeoutMs: number,
  clock: Clock,
): Promise<string | undefined> {
  let cancel: (() => void) | undefined;
  const timeout = new Promise<string>((resolve) => {
    cancel = clock.setTimer(timeoutMs, () =>
      resolve(`The ${check.name} has not answered in ${timeoutMs} ms`),
    );
  });
  const answer = check.answer().then(
    () => undefined,
    (error: unknown) => `The ${check.name} failed: ${errorMessage(error)}`,
  );
  try {
    return await Promise.race([answer, timeout]);
  } finally {
    cancel?.();
  }
}
