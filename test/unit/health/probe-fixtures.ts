import { ipAddress } from '../../../src/model/address.js';
import type { HttpProbe, Probe, ProbeResult, TcpProbe } from '../../../src/model/configuration.js';
import { createProbeRunner, type ProbeRunner } from '../../../src/health/probes.js';
import { systemClock } from '../../../src/runtime/clock.js';
import type { FakeClock } from '../../support/fake-clock.js';

export function tcpProbe(fields: Partial<TcpProbe> = {}): TcpProbe {
  return {
    name: 'alive',
    protocol: 'tcp',
    port: 1,
    intervalMs: 5000,
    timeoutMs: 2000,
    upThreshold: 2,
    downThreshold: 2,
    sendProxy: 'none',
    ...fields,
  };
}

export function httpProbe(fields: Partial<HttpProbe> = {}): HttpProbe {
  return {
    ...tcpProbe(),
    protocol: 'http',
    path: '/healthz',
    expectStatus: [{ first: 200, last: 200 }],
    skipVerify: false,
    explicitAnswerFlips: true,
    ...fields,
  };
}

/** Runs one probe over real sockets, with its timeout, as the scheduler does. */
export function ask(probe: Probe, address = '127.0.0.1'): Promise<ProbeResult> {
  const runner = createProbeRunner({ clock: systemClock });
  return runner.run(probe, ipAddress(address), AbortSignal.timeout(probe.timeoutMs));
}

/** The same, as `verdict answer evidence`. */
export async function outcome(probe: Probe, address?: string): Promise<string> {
  const { verdict, answer, evidence } = await ask(probe, address);
  return `${verdict} ${answer} ${evidence}`;
}

export const UP: ProbeResult = {
  ...{ verdict: 'success', answer: 'explicit', evidence: 'HTTP 200', durationMs: 1 },
};
export const SICK: ProbeResult = { ...UP, verdict: 'failure', evidence: 'HTTP 503' };

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
