import { Agent } from 'node:http';
import { resolve } from 'node:path';
import { ask as askApi } from '../support/admin-api.js';
import { HaportsProcess } from '../support/haports-process.js';
import type { Observation } from './observe.js';
import type { Wanted } from './recorded.js';

/*
 * Which backend a running process gives thousands of flows: a character a flow, the backend's place in its pool, `-` for
 * none. Its rules have no probe, so every backend counts as up and none needs to be there.
 */

const FRONTEND = { 4: '127.77.7.1', 6: '::1' } as const;
const FIRST_PORT = 7801;
const PORTS_EACH = 4;
/** A case holds that many picks. */
const CHUNK = 100;
const CHUNKS_EACH = 12;

/** By name: what a rule is beside its frontend and ports. */
const RULES: Readonly<Record<string, object>> = {
  'five-tuple': {},
  'source-ip': { distribution: 'source-ip' },
  'source-ip-protocol': { distribution: 'source-ip-protocol' },
  symmetric: { symmetric: true },
  'symmetric-source-ip': { symmetric: true, distribution: 'source-ip' },
  weighted: { backendPool: 'weighted' },
  prioritised: { backendPool: 'prioritised' },
  many: { backendPool: 'many' },
};

const pool = (name: string, ...changes: readonly object[]) => ({
  name,
  backends: changes.map((change, index) => ({
    name: `b${index}`,
    address: `127.77.8.${index + 1}`,
    ...change,
  })),
});

const FAMILIES = [4, 6] as const;

function configuration(seed: number): object {
  return {
    seed,
    dataPlane: { workers: 0 },
    frontends: FAMILIES.map((family) => ({ name: `hub${family}`, address: FRONTEND[family] })),
    backendPools: [
      pool('plain', {}, {}, {}),
      pool('weighted', { weight: 1 }, { weight: 3 }, { weight: 9 }),
      pool('prioritised', { priority: 2 }, { priority: 1 }, { priority: 1 }, { priority: 1, weight: 0 }),
      pool('many', ...Array.from({ length: 30 }, () => ({}))),
    ],
    rules: FAMILIES.flatMap((family) =>
      Object.entries(RULES).map(([name, change], index) => ({
        name: `${name}-${family}`,
        ...{ frontend: `hub${family}`, backendPool: 'plain', haPorts: true },
        listenPorts: `${firstPort(index)}-${firstPort(index) + PORTS_EACH - 1}`,
        ...change,
      })),
    ),
  };
}

const firstPort = (rule: number): number => FIRST_PORT + rule * PORTS_EACH;

/** What operators do, one after the other; after each, some flows of every rule are asked about again. */
const STEPS: readonly (readonly [what: string, method: 'PUT' | 'POST', path: string, body?: object])[] = [
  ['plain/b0 down', 'PUT', '/v1/backends/plain/b0/admin-state', { adminState: 'down' }],
  ['plain/b1 weight 7', 'PUT', '/v1/backends/plain/b1/weight', { weight: 7 }],
  ['prioritised/b1 down', 'PUT', '/v1/backends/prioritised/b1/admin-state', { adminState: 'down' }],
  ['many/b3 drained', 'POST', '/v1/backends/many/b3/drain', { deadline: '10m' }],
];

/** Of more than 20,000 picks of both families and protocols, over all distributions. A case is a hundred flows of one rule. */
export async function measurePicks(main: string, wanted: Wanted): Promise<Map<string, Observation>> {
  const observed = new Map<string, Observation>();
  for (const seed of [0, 77]) {
    const haports = await HaportsProcess.start(configuration(seed), { main: resolve(main) });
    const agent = new Agent({ keepAlive: true, maxSockets: 4 });
    const explain = (flow: string) => askApi({ socketPath: haports.socket, agent }, `/v1/explain?${flow}`);
    try {
      const ask = async (what: string, chunks: number): Promise<void> => {
        for (const family of FAMILIES) {
          for (const [index, name] of Object.keys(RULES).entries()) {
            const next = flowsOf(family, index);
            for (let chunk = 0; chunk < chunks; chunk++) {
              const id = `picks/seed ${seed}, ${what}: ${name}-${family}, from ${chunk * CHUNK}`;
              const flows = Array.from({ length: CHUNK }, next);
              if (!wanted(id)) continue;
              const answers = await Promise.all(flows.map(explain));
              observed.set(id, { facts: answers.map(({ json }) => letterOf(json)).join(''), wording: [] });
            }
          }
        }
      };
      await ask('at first', seed === 0 ? CHUNKS_EACH : 1);
      if (seed !== 0) continue;
      for (const [what, method, path, body] of STEPS) {
        await haports.must(method, path, body);
        await ask(what, 1);
      }
    } finally {
      agent.destroy();
      await haports.stop();
    }
  }
  return observed;
}

/** Queries for `/v1/explain` about one rule, always the same ones. */
function flowsOf(family: 4 | 6, rule: number): () => string {
  const random = generator(rule * 10 + family);
  const to = family === 4 ? FRONTEND[4] : `[${FRONTEND[6]}]`;
  return () => {
    const bytes = Array.from({ length: 4 }, () => random(254) + 1);
    const source =
      family === 4 ? bytes.join('.') : `[2001:db8::${bytes.map((b) => b.toString(16)).join(':')}]`;
    return new URLSearchParams({
      protocol: random(2) === 0 ? 'tcp' : 'udp',
      source: `${source}:${random(65_535) + 1}`,
      destination: `${to}:${firstPort(rule) + random(PORTS_EACH)}`,
    }).toString();
  };
}

function letterOf(answer: unknown): string {
  const text = JSON.stringify(answer);
  const { result } = ((answer as { explanation?: unknown }).explanation ?? answer) as {
    result?: { kind: string; backendIndex?: number };
  };
  if (result === undefined) throw new Error(`no result in ${text.slice(0, 300)}`);
  return result.kind === 'picked' ? (result.backendIndex ?? 0).toString(36) : '-';
}

/** A linear congruential generator (Numerical Recipes): whole numbers from 0 to below `limit`. */
function generator(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 0x1_0000_0000) * limit);
  };
}
