import type { IpAddress } from '../model/address.js';
import type { Probe, ProbeResult } from '../model/probe.js';
import type { Clock } from '../runtime/clock.js';
import { probeHttp } from './http-probe.js';
import { failed } from './evidence.js';
import { probeTcp } from './tcp-probe.js';

/** Asks one backend once. */
export interface ProbeRunner {
  /**
   * Never rejects: whatever goes wrong is a result with evidence. The timeout is the caller's: when `signal` aborts,
   * every socket is destroyed and the promise resolves soon after. Sockets never outlive the promise.
   */
  run(probe: Probe, address: IpAddress, signal: AbortSignal): Promise<ProbeResult>;
}

/** Probes over real sockets. */
export function createProbeRunner(deps: { readonly clock: Clock }): ProbeRunner {
  const { clock } = deps;
  return {
    async run(probe, address, signal) {
      const startedMs = clock.monotonicMs();
      try {
        if (probe.protocol === 'tcp') return await probeTcp(probe, address, signal, clock);
        return await probeHttp(probe, address, signal, clock);
      } catch (error) {
        // What Node refuses before anything is sent: a header, path, certificate or address it cannot take.
        return { ...failed(error, probe), durationMs: clock.monotonicMs() - startedMs };
      }
    },
  };
}
