import { mkdir } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { corePlan, type CorePlan } from './core-plan.js';
import type { Lab } from './lab.js';
import type { BenchOptions, CaseName } from './options.js';
import type { OwnProcesses } from './own-processes.js';
import type { FoundPeer } from './peers/all-peers.js';
import type { Peer } from './peers/peer.js';
import type { Sample } from './results.js';

/** One run of the bench: what its cases share. */
export class Bench {
  readonly options: BenchOptions;
  readonly lab: Lab;
  readonly processes: OwnProcesses;
  readonly peers: readonly FoundPeer[];
  readonly samples: Sample[] = [];
  readonly say: (line: string) => void;
  readonly #folder: string;
  readonly #atEnd: (() => Promise<void>)[] = [];
  #count = 0;

  constructor(
    deps: {
      readonly lab: Lab;
      readonly processes: OwnProcesses;
      readonly peers: readonly FoundPeer[];
      readonly say: (line: string) => void;
    },
    options: BenchOptions & { readonly folder: string },
  ) {
    this.lab = deps.lab;
    this.processes = deps.processes;
    this.peers = deps.peers;
    this.say = deps.say;
    this.options = options;
    this.#folder = options.folder;
  }

  /**
   * Load before the first measured run: a just-in-time compiler needs some thousand rounds of all code. The others
   * get as much, but for a quick run.
   */
  warmUpSeconds(peer: Peer): number {
    return this.options.quick && !['haports', 'before'].includes(peer.name) ? 0 : this.options.seconds;
  }

  /** A number of its own for each balancer started, 1 to 200, for its frontend address. */
  nextNumber(): number {
    this.#count = (this.#count % 200) + 1;
    return this.#count;
  }

  /** What a case has opened besides its processes; closed at the end of the bench, also after a signal. */
  atEnd(close: () => Promise<void>): void {
    this.#atEnd.push(close);
  }

  async close(): Promise<void> {
    for (const close of this.#atEnd.splice(0)) await close();
  }

  async folder(name: string): Promise<string> {
    const path = join(this.#folder, `${this.nextNumber()}-${name.replaceAll(' ', '-')}`);
    await mkdir(path, { recursive: true });
    return path;
  }

  record(sample: Sample): void {
    this.samples.push(sample);
    const text =
      sample.error === undefined
        ? Object.entries(sample.numbers ?? {})
            .map(([name, value]) => `${name} ${Number(value.toPrecision(4))}`)
            .join('  ')
        : `FAILED: ${sample.error}`;
    this.say(`${sample.case} | ${sample.variant} | ${sample.peer} | ${text}`);
  }

  /** The peers by worker count, each with its cores; peers of one pass are interleaved. */
  passes(accepts: (peer: Peer) => boolean = () => true): readonly Pass[] {
    return this.options.workers
      .map((workers) => ({
        workers,
        cores: corePlan(cpus().length, workers),
        peers: this.peers.map(({ peer }) => peer).filter((peer) => peer.workers === workers && accepts(peer)),
      }))
      .filter(({ peers }) => peers.length > 0);
  }
}

export interface Pass {
  readonly workers: number;
  readonly cores: CorePlan;
  readonly peers: readonly Peer[];
}

/** One of the things that are measured. */
export interface BenchCase {
  readonly name: CaseName;
  readonly run: (bench: Bench) => Promise<void>;
}
