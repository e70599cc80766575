import type { HttpProbe, Probe, ProbeResult, TcpProbe } from '../../../src/model/configuration.js';
import { ipAddress } from '../../../src/model/address.js';
import { createProbeRunner } from '../../../src/health/probes.js';
import { systemClock } from '../../../src/runtime/clock.js';

const BASE = {
  name: 'alive',
  port: 1,
  intervalMs: 5000,
  timeoutMs: 2000,
  upThreshold: 2,
  downThreshold: 2,
  sendProxy: 'none',
} as const;

export function tcpProbe(fields: Partial<TcpProbe> = {}): TcpProbe {
  return { ...BASE, protocol: 'tcp', ...fields };
}

export function httpProbe(fields: Partial<HttpProbe> = {}): HttpProbe {
  return {
    ...BASE,
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
