import type { Probe, ProbeResult } from '../../../src/model/configuration.js';
import type { ProbeRunner } from '../../../src/health/probes.js';
import type { FakeClock } from '../../support/fake-clock.js';

export const UP: ProbeResult = {
  verdict: 'success',
  answer: 'explicit',
  evidence: 'HTTP 200',
  durationMs: 1,
};
export const SICK: ProbeResult = {
  verdict: 'failure',
  answer: 'explicit',
  evidence: 'HTTP 503',
  durationMs: 1,
};

export interface Call {
  readonly atMs: number;
  readonly address: string;
  readonly probe: Probe;
  readonly signal: AbortSignal;
}

/** Answers each probe with what `answer` says at that moment; `hang`: only when aborted, as a dead backend does. */
export class ScriptedRunner implements ProbeRunner {
  readonly calls: Call[] = [];
  answer: ProbeResult | 'hang' = UP;
  inFlight = 0;
  mostInFlight = 0;
  readonly #clock: FakeClock;

  constructor(clock: FakeClock) {
    this.#clock = clock;
  }

  async run(probe: Probe, address: { readonly text: string }, signal: AbortSignal): Promise<ProbeResult> {
    this.calls.push({ atMs: this.#clock.monotonicMs(), address: address.text, probe, signal });
    const { answer } = this;
    this.inFlight++;
    this.mostInFlight = Math.max(this.mostInFlight, this.inFlight);
    if (answer === 'hang' && !signal.aborted) {
      await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    }
    this.inFlight--;
    return answer === 'hang'
      ? { verdict: 'failure', answer: 'silence', evidence: 'no answer', durationMs: probe.timeoutMs }
      : answer;
  }

  /** When probes were started, less the calls before. */
  takeTimes(): readonly number[] {
    return this.calls.splice(0).map(({ atMs }) => atMs);
  }
}
