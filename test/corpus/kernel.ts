import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { resolve } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { leaves } from './compare.js';
import { STORIES, type Story } from './kernel-stories.js';
import { normaliseRuleset, type Observation } from './observe.js';
import { Lab, type Host } from '../support/lab.js';

/*
 * What a build does to a real kernel, in a network namespace of its own: after each step of a story the tables, routes,
 * addresses and conntrack entries. The commands and transactions that led there do not count.
 */

const DEVICE = 'corpus0';
const SIDE_BY_SIDE = 3;
/** A state that has not changed for so long is final, when recording. */
const SETTLED_MS = 3_000;
const POLL_MS = 200;
const DEADLINE_MS = 15_000;

/** Flows of `send`. */
const CLIENTS = / udp .* sport=200\d\d /;
const SEPARATOR = '----';
const VIEWS = [
  'nft -s list ruleset',
  'ip rule',
  'ip -6 rule',
  'ip route show table all',
  'ip -6 route show table all',
  'ip -o address show',
  'conntrack -L -o extended 2>/dev/null',
];

const BACKENDS = [11, 12, 13, 14];
const neighbour = (network: string, host: number | string): string =>
  `neigh add ${network}${host} lladdr 02:00:00:00:00:${host} dev ${DEVICE} nud permanent`;

/** A machine with one link, whose neighbours' MAC addresses are known. */
const TOPOLOGY = {
  machine: {
    forwards: true,
    // Frontends of the capture story.
    loopback: ['10.9.0.20/32', 'fd09::20/128'],
    ip: [
      `link add ${DEVICE} address 02:00:00:00:00:01 type veth peer name peer address 02:00:00:00:00:02`,
      ...[DEVICE, 'peer'].flatMap((link) => [`link set ${link} addrgenmode none`, `link set ${link} up`]),
      `address add 10.2.0.1/24 dev ${DEVICE}`,
      'route add default via 10.2.0.254',
      neighbour('10.2.0.', 254).replace(':254', ':fe'),
      ...BACKENDS.map((host) => neighbour('10.2.0.', host)),
      `-6 address add fd02::1/64 dev ${DEVICE} nodad`,
      '-6 route add default via fd02::fe',
      ...['fe', ...BACKENDS].map((host) => `-6 ${neighbour('fd02::', host)}`),
    ],
  },
} as const;

/**
 * Tells stories, all of them if none are given, some side by side.
 * @param recorded - ends the wait for a state as soon as it is there; without it, a state must be still for a while.
 */
export async function measureKernel(
  main: string,
  recorded?: ReadonlyMap<string, unknown>,
  stories: readonly Story[] = STORIES,
): Promise<Map<string, Observation>> {
  const told: [string, Observation][] = [];
  const waiting = [...stories];
  const takeNext = async (): Promise<void> => {
    for (let story = waiting.shift(); story !== undefined; story = waiting.shift()) {
      const lab = new Lab(TOPOLOGY);
      try {
        await lab.open();
        told.push(...(await tell(story, lab.hosts.machine, main, recorded)));
      } catch (error) {
        told.push([`kernel/${story.name} failed`, { facts: String(error), wording: [] }]);
      } finally {
        await lab.close();
      }
    }
  };
  await Promise.all(Array.from({ length: SIDE_BY_SIDE }, takeNext));
  return new Map([...told, [TOOLS_ID, { facts: toolVersions(), wording: [] }]]);
}

/** How tools print what they find differs between versions, so states are compared by the recorded ones only. */
export const TOOLS_ID = 'kernel/tools';

export function toolVersions(): string {
  return ['nft -v', 'ip -V', 'conntrack -V']
    .map((command) => spawnSync('sh', ['-c', command], { encoding: 'utf8' }).stdout.trim())
    .join(', ');
}

async function tell(
  { name, configuration, steps }: Story,
  machine: Host,
  main: string,
  recorded: ReadonlyMap<string, unknown> | undefined,
): Promise<[string, Observation][]> {
  const told: [string, Observation][] = [];
  const stage = new Stage(machine);
  const note = async (what: string): Promise<void> => {
    const id = `kernel/${name} ${told.length}, ${what}`;
    told.push([id, { facts: await stage.settled(id, recorded), wording: [] }]);
  };
  const haports = await machine.haports(configuration, { main: resolve(main) });
  try {
    await note('started');
    for (const { what, call, reload, datagrams } of steps) {
      if (datagrams !== undefined) await stage.send(datagrams);
      if (call !== undefined) await haports.must(...call);
      if (reload !== undefined) await haports.must('POST', '/v1/reload', haports.withSocket(reload));
      await note(what);
    }
  } finally {
    await haports.stop();
  }
  await note('stopped');
  await machine.must([process.execPath, resolve(main), 'kernel', 'flush']);
  await note('flushed');
  return told;
}

class Stage {
  readonly #machine: Host;
  #seen: ReadonlyMap<string, string> = new Map();

  constructor(machine: Host) {
    this.#machine = machine;
  }

  /** One datagram each from the ports from 20000 on to that address and port. */
  async send({ to, port, count }: { to: string; port: number; count: number }): Promise<void> {
    const family = to.includes(':') ? 'udp6' : 'udp4';
    const script = `const d = require('node:dgram'); for (let i = 0; i < ${count}; i++) {
      const s = d.createSocket('${family}'); s.on('error', () => s.close());
      s.bind(20000 + i, () => s.send('x', ${port}, '${to}', () => s.close())); }`;
    await this.#machine.must([process.execPath, '-e', script]);
  }

  /** What has changed since the state before, once that is as recorded, or final. */
  async settled(id: string, recorded: ReadonlyMap<string, unknown> | undefined): Promise<unknown> {
    const expected = recorded?.get(id);
    const deadline = performance.now() + DEADLINE_MS;
    let before: unknown;
    let since = 0;
    for (;;) {
      const state = leaves(await this.#state());
      const facts = changes(this.#seen, state);
      const nowMs = performance.now();
      if (!isDeepStrictEqual(facts, before)) since = nowMs;
      before = facts;
      // Every story begins with a table, however long that takes.
      const still = nowMs - since > SETTLED_MS && (this.#seen.size > 0 || !state.has('tables'));
      const settled = expected === undefined ? still : isDeepStrictEqual(facts, expected);
      if (settled || nowMs > deadline) {
        this.#seen = state;
        return facts;
      }
      await setTimeout(POLL_MS);
    }
  }

  async #state(): Promise<unknown> {
    const asked = VIEWS.map((command) => `${command}; echo ${SEPARATOR}`).join('; ');
    const views = (await this.#machine.must(['sh', '-c', asked])).split(`${SEPARATOR}\n`);
    const [tables = '', rules = '', rules6 = '', routes = '', routes6 = '', addresses = '', flows = ''] =
      views;
    return {
      tables: listedTables(tables),
      rules: lines(rules, rules6),
      routes: lines(routes, routes6),
      addresses: lines(addresses).map((line) => line.replace(/\\.*$/, '').trim()),
      // Without what counts down, and without haports' own sockets, whose ports are by chance.
      flows: lines(flows)
        .map((line) => line.replace(/^(\S+ \d+ \S+ \d+) \d+/, '$1').replace(/ use=\d+$/, ''))
        .filter((line) => CLIENTS.test(line)),
    };
  }
}

/** Path to what is there now; null: no longer anything. */
function changes(was: ReadonlyMap<string, string>, is: ReadonlyMap<string, string>): object {
  const paths = [...new Set([...was.keys(), ...is.keys()])].filter((path) => was.get(path) !== is.get(path));
  return Object.fromEntries(paths.toSorted().map((path) => [path, is.get(path) ?? null]));
}

function lines(...texts: readonly string[]): string[] {
  const all = texts.flatMap((text) => text.split('\n')).map((line) => line.replaceAll(/\s+/g, ' ').trim());
  return all.filter((line) => line !== '').toSorted();
}

/** `nft -s list ruleset` as blocks, without counters and the seal; many elements as their number and a digest. */
function listedTables(listing: string): unknown {
  const plain = listing.replaceAll(/ counter packets \d+ bytes \d+| expires \w+/g, '');
  const [, ...tables] = plain.split(/^table /m);
  return Object.fromEntries(
    tables.map((table) => {
      const name = table.slice(0, table.indexOf(' {'));
      const text = table
        .slice(table.indexOf('{') + 1)
        .replaceAll(/\tchain as-[0-9a-f]+-[0-9a-f]+ \{[^}]*\}\n/g, '')
        .replaceAll(/elements = \{([^}]*)\}/g, (_, body: string) => {
          const members = body.split(',').map((member) => member.replaceAll(/\s+/g, ' ').trim());
          return `elements ${digested(members).join(', ')}`;
        });
      return [name, normaliseRuleset(text)];
    }),
  );
}

function digested(members: readonly string[]): readonly string[] {
  const sorted = members.toSorted();
  if (sorted.length <= 8) return sorted;
  return [`${sorted.length} elements`, createHash('sha256').update(sorted.join()).digest('hex')];
}
