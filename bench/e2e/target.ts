import { eventually } from '../../test/support/deadline.js';
import type { Bench, Pass } from './bench.js';
import { tail, type OwnProcess } from './own-processes.js';
import { portsOf, type Peer, type ServeSpec } from './peers/peer.js';
import { boundSockets } from './process-facts.js';

const READY_WITHIN_MS = 30_000;

/** A peer that serves. */
export interface Target {
  readonly peer: Peer;
  /** Where clients connect: its frontend, or the first backend for direct. */
  readonly host: string;
  /** Undefined for direct. */
  readonly process: OwnProcess | undefined;
  /** From its start until it had bound all ports, in milliseconds; 0 for direct. */
  readonly startMs: number;
}

export type SpecWithoutFrontend = Omit<ServeSpec, 'frontend'>;

/** Starts a peer and waits until it has bound everything. Rejects with what it said when it does not. */
export async function startTarget(
  bench: Bench,
  pass: Pass,
  peer: Peer,
  spec: SpecWithoutFrontend,
): Promise<Target> {
  const frontend = bench.lab.frontend(bench.nextNumber());
  const full = { ...spec, frontend, ...(peer.udp ? {} : { udpPorts: [] }) };
  const folder = await bench.folder(peer.label);
  const startedAtMs = performance.now();
  const own = await peer.start(full, { processes: bench.processes, cores: pass.cores, folder });
  if (own === undefined) return { peer, host: spec.backends[0] ?? '', process: undefined, startMs: 0 };
  try {
    await bound(own, frontend, {
      tcp: portsOf(full.tcpPorts).length,
      udp: portsOf(full.udpPorts).length,
    });
  } catch (error) {
    await own.stop();
    throw error;
  }
  return { peer, host: frontend, process: own, startMs: performance.now() - startedAtMs };
}

/** Resolves once so many sockets are bound to the address, in the network of the process. */
export async function bound(
  own: OwnProcess,
  address: string,
  counts: { readonly tcp?: number; readonly udp?: number },
): Promise<void> {
  await eventually(
    async () => {
      if (own.ended) return true;
      const { tcp = 0, udp = 0 } = counts;
      if (tcp > 0 && (await boundSockets(own.pid, 'tcp', address)) < tcp) return false;
      return udp === 0 || (await boundSockets(own.pid, 'udp', address)) >= udp;
    },
    READY_WITHIN_MS,
    `${own.name} to listen on ${address}: ${tail(own)}`,
  );
  if (own.ended) throw new Error(`${own.name} ended at once: ${tail(own)}`);
}

/** Starts all peers of a pass; those that do not start are recorded as failed, once for each variant. */
export async function startTargets(
  bench: Bench,
  pass: Pass,
  plan: { readonly spec: SpecWithoutFrontend; readonly failed: (peer: Peer, error: string) => void },
): Promise<readonly Target[]> {
  const started = await Promise.all(
    pass.peers.map((peer) =>
      startTarget(bench, pass, peer, plan.spec).catch((error: unknown) => {
        plan.failed(peer, messageOf(error));
        return undefined;
      }),
    ),
  );
  return started.filter((target) => target !== undefined);
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
