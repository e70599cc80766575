import type { HealthState } from '../../model/probe.js';
import type { FindingStatus } from './alarm-book.js';

/** Conservative on purpose: a window and a minimum volume, so that one error says nothing. */
export interface ProbeTruthOptions {
  /** @default 60000 */
  readonly windowMs: number;
  /** Attempts, or answers, in the window below which nothing is said. @default 20 */
  readonly minimumVolume: number;
  /** Share of failed attempts from which traffic fails. @default 0.5 */
  readonly failingShare: number;
  /** Share of failed attempts below which it is fine again. @default 0.25 */
  readonly fineShare: number;
}

export const PROBE_TRUTH_DEFAULTS: ProbeTruthOptions = {
  windowMs: 60_000,
  minimumVolume: 20,
  failingShare: 0.5,
  fineShare: 0.25,
};

/** One backend as one probe sees it, and what its traffic did meanwhile. */
export interface TruthWindow {
  readonly probe: string;
  readonly health: HealthState;
  /** How long the probe has been of this opinion. */
  readonly healthAgeMs: number;
  /** New flows that came to it: those that were opened, and those that could not be. */
  readonly attempts: number;
  readonly unconnected: number;
  /** New flows that it reset without having answered. */
  readonly reset: number;
  /** Flows that it took and never answered, where others answer theirs. */
  readonly unanswered: number;
  /** Flows that it reset in all, new or old, answered or not. */
  readonly resets: number;
  /** Datagrams or reads that came from it, and their bytes. */
  readonly answers: number;
  readonly answerBytes: number;
}

export interface TruthVerdict {
  readonly trafficFailing: FindingStatus;
  readonly trafficFine: FindingStatus;
  readonly evidence: string;
}

/** Holds a probe's verdict against the traffic since it was given, at most one window. Pure. */
export function assess(window: TruthWindow, options: ProbeTruthOptions = PROBE_TRUTH_DEFAULTS): TruthVerdict {
  const { probe, health, healthAgeMs, attempts, unconnected, reset, unanswered, answers } = window;
  const failures = Math.min(attempts, unconnected + reset + unanswered);
  const lastSeconds = `in the last ${Math.round(Math.min(options.windowMs, healthAgeMs) / 1000)} s`;
  switch (health) {
    case 'unknown':
      return { trafficFailing: 'fine', trafficFine: 'fine', evidence: `Probe "${probe}" has no verdict` };
    case 'up':
      return {
        trafficFailing: failing(attempts, failures, options),
        trafficFine: 'fine',
        evidence: `Probe "${probe}" finds it up; ${failures} of ${attempts} new flows failed ${lastSeconds}${causes(window)}`,
      };
    case 'down': {
      const failed = unconnected + unanswered + window.resets;
      const tooLittle = healthAgeMs < options.windowMs || answers < options.minimumVolume;
      return {
        trafficFailing: 'fine',
        trafficFine: failed > 0 || answers === 0 ? 'fine' : tooLittle ? 'unclear' : 'bad',
        evidence: `Probe "${probe}" finds it down; it answered ${answers} times (${window.answerBytes} bytes) and failed ${failed} times ${lastSeconds}`,
      };
    }
  }
}

function failing(attempts: number, failures: number, options: ProbeTruthOptions): FindingStatus {
  if (attempts < options.minimumVolume) return 'unclear';
  const share = failures / attempts;
  if (share >= options.failingShare) return 'bad';
  return share < options.fineShare ? 'fine' : 'unclear';
}

function causes({ unconnected, reset, unanswered }: TruthWindow): string {
  const parts = [
    ...(unconnected > 0 ? [`${unconnected} could not connect`] : []),
    ...(reset > 0 ? [`${reset} were reset without an answer`] : []),
    ...(unanswered > 0 ? [`${unanswered} got no answer where other backends answer`] : []),
  ];
  return parts.length === 0 ? '' : `: ${parts.join(', ')}`;
}
