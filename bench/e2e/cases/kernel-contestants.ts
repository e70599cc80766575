import type { Bench, Pass } from '../bench.js';
import { DIRECT } from '../kernel-lab.js';
import { directPeer } from '../peers/direct.js';
import { frontendOf, startKernel, stopKernel, type BenchedMode } from '../peers/haports-kernel.js';
import { haportsPeer } from '../peers/haports.js';
import type { Peer } from '../peers/peer.js';
import { messageOf, startTarget, type SpecWithoutFrontend, type Target } from '../target.js';
import { HTTP_PORTS } from './http-load.js';

export const IPERF_PORT = 5201;

/** Where the load goes: flows anywhere for HTTP, all of a client to one backend for iperf3. */
export interface Serving {
  readonly http: Target;
  readonly iperf: Target;
}

/** One of those that are measured in turn. */
export interface Contestant {
  readonly label: string;
  readonly udp: boolean;
  /** Whether what is closed leaves something in its kernel, so that churn says something. */
  readonly churns: boolean;
  /** Serves until `down`. */
  up(): Promise<Serving>;
  down(): Promise<void>;
}

/** Peers with sockets are started once and stay, since those that wait cost nothing; the kernel's come and go. */
export async function openContestants(
  bench: Bench,
  pass: Pass,
  backends: readonly string[],
): Promise<readonly Contestant[]> {
  const wanted = bench.peers.filter(({ peer }) => peer.workers === 1).map(({ peer }) => peer);
  const contestants: Contestant[] = [];
  for (const peer of wanted) {
    if (peer.name === 'direct') contestants.push(direct());
    if (peer.name === 'haports') {
      contestants.push(kernel(bench, pass, 'nat', backends), kernel(bench, pass, 'floating-l2', backends));
    }
    if (peer.name !== 'direct') contestants.push(await withSockets(bench, pass, peer, backends));
  }
  return contestants;
}

function direct(): Contestant {
  const target: Target = { peer: directPeer(), host: DIRECT, process: undefined, startMs: 0 };
  return {
    ...{ label: 'direct', udp: true, churns: true },
    up: () => Promise.resolve({ http: target, iperf: target }),
    down: () => Promise.resolve(),
  };
}

function kernel(bench: Bench, pass: Pass, mode: BenchedMode, backends: readonly string[]): Contestant {
  const { main } = bench.options;
  let target: Target | undefined;
  return {
    ...{ label: mode === 'nat' ? 'kernel' : 'kernel floating', udp: true, churns: true },
    up: async () => {
      const startedAtMs = performance.now();
      const folder = await bench.folder(mode);
      const cores = pass.cores.balancer;
      const own = await startKernel(bench.processes, { mode, main, cores, folder, backends });
      const startMs = performance.now() - startedAtMs;
      target = { peer: haportsPeer(1, main), host: frontendOf(mode), process: own, startMs };
      return { http: target, iperf: target };
    },
    down: async () => {
      if (target?.process !== undefined) await stopKernel(target.process);
      target = undefined;
    },
  };
}

async function withSockets(
  bench: Bench,
  pass: Pass,
  peer: Peer,
  backends: readonly string[],
): Promise<Contestant> {
  const http: SpecWithoutFrontend = {
    ...{ backends, udpPorts: [], distribution: 'per-flow' },
    tcpPorts: [[HTTP_PORTS[0]!, HTTP_PORTS.at(-1)!]],
  };
  const iperf: SpecWithoutFrontend = {
    ...{ backends, distribution: 'source-ip' },
    ...{ tcpPorts: [[IPERF_PORT, IPERF_PORT]], udpPorts: [[IPERF_PORT, IPERF_PORT]] },
  };
  const started = await Promise.all(
    [http, iperf].map((spec) =>
      startTarget(bench, pass, peer, spec).catch((error: unknown) => messageOf(error)),
    ),
  );
  return {
    ...{ label: peer.label, udp: peer.udp, churns: false },
    up: () => {
      const [first, second] = started;
      for (const each of started) if (typeof each === 'string') return Promise.reject(new Error(each));
      return Promise.resolve({ http: first as Target, iperf: second as Target });
    },
    down: () => Promise.resolve(),
  };
}
