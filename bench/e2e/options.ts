import { resolve } from 'node:path';
import { parseArgs } from 'node:util';

export const CASE_NAMES = [
  'requests',
  'connections',
  'bulk',
  'latency',
  'udp',
  'memory',
  'start',
  'growth',
  'capture',
  'kernel',
] as const;
/** `before`: another build of haports, where `--against` names one. */
export const PEER_NAMES = ['direct', 'haports', 'before', 'haproxy', 'nginx'] as const;

export type CaseName = (typeof CASE_NAMES)[number];
export type PeerName = (typeof PEER_NAMES)[number];

/** What a run of the bench does. */
export interface BenchOptions {
  readonly quick: boolean;
  readonly cases: readonly CaseName[];
  readonly peers: readonly PeerName[];
  /** Worker counts that are run: 1, 2 or both. */
  readonly workers: readonly number[];
  readonly rounds: number;
  /** How long one measured run lasts, in seconds. */
  readonly seconds: number;
  readonly netns: boolean;
  /** The `main.js` that haports is started from. @default dist/main.js of this tree */
  readonly main: string;
  /** Another `main.js` that takes turns with it, as the peer `before`. @default none */
  readonly against: string | undefined;
  /** Whether the cases that were run take their place in `latest.json` and in docs/benchmarks.md. */
  readonly publish: boolean;
}

export const USAGE = `npm run bench -- [options]
  --quick                    every case, short: some three minutes, one worker each
  --only requests,bulk       cases: ${CASE_NAMES.join(', ')}
  --peers haports,haproxy    peers: ${PEER_NAMES.join(', ')}
  --workers 1,2              worker counts (default 1,2; quick: 1)
  --rounds N                 interleaved rounds (default 5; quick: 1)
  --seconds N                length of one measured run (default 4; quick: 1)
  --netns                    in three network namespaces instead of on loopback; needs root
  --main PATH                the dist/main.js to measure as haports
  --against PATH             another dist/main.js that takes turns with it, as the peer "before", to compare versions
  --publish                  also write bench/results/latest.json, latest.svg and docs/benchmarks.md, for the cases that were run
`;

/** Throws an Error with one line when the arguments are not understood. */
export function parseOptions(args: readonly string[]): BenchOptions {
  const { values } = parseArgs({
    args: [...args],
    strict: true,
    allowPositionals: false,
    options: {
      quick: { type: 'boolean', default: false },
      only: { type: 'string' },
      peers: { type: 'string' },
      workers: { type: 'string' },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      main: { type: 'string', default: 'dist/main.js' },
      against: { type: 'string' },
      netns: { type: 'boolean', default: false },
      publish: { type: 'boolean', default: false },
    },
  });
  const { quick, only } = values;
  return {
    quick,
    netns: values.netns,
    main: resolve(values.main),
    against: values.against === undefined ? undefined : resolve(values.against),
    publish: values.publish,
    cases: chosen('--only', only, CASE_NAMES),
    peers: chosen('--peers', values.peers, PEER_NAMES),
    workers: chosen('--workers', values.workers ?? (quick ? '1' : undefined), ['1', '2']).map(Number),
    rounds: count('--rounds', values.rounds, quick ? 1 : 5),
    seconds: count('--seconds', values.seconds, quick ? 1 : 4),
  };
}

function chosen<T extends string>(option: string, text: string | undefined, all: readonly T[]): readonly T[] {
  if (text === undefined) return all;
  const words = text.split(',');
  const unknown = words.find((word) => !all.some((name) => name === word));
  if (unknown !== undefined) {
    throw new Error(`${option} "${unknown}" must be one of ${all.join(', ')}`);
  }
  return all.filter((name) => words.includes(name));
}

function count(option: string, text: string | undefined, fallback: number): number {
  if (text === undefined) return fallback;
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > 100) {
    throw new Error(`${option} "${text}" must be a whole number from 1 to 100`);
  }
  return value;
}
