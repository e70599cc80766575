import { PROTOCOL_NUMBER, formatEndpoint, type Protocol } from '../../../model/address.js';
import { fnv1a } from '../../../model/fnv1a.js';
import type { ConntrackEntry, EntrySource } from '../../netfilter/conntrack.js';
import { tableOf } from '../../netfilter/routing.js';
import { addressType, hex32, ipWord } from '../../netfilter/setup.js';
import type { Tools } from '../../netfilter/tools.js';
import { frontendGroups, type FrontendGroup } from '../nat/dispatch.js';
import type { PacketFields } from '../nat/placement.js';
import { idleSeconds } from '../nat/policies.js';
import type { KernelProgram } from '../program.js';

/*
 * Keys of the maps that packets of floating modes fill. Each is two hashes of the same fields: nft 1.0.6 takes no longer
 * keys there than 16 bytes, which IPv6 exceeds, and only hashes can be made of a packet inside an ICMP error. Maps are
 * one for each frontend address, so that it need not be in the key.
 */

/** Any two, other than those of tables: with 64 bits, a million flows share a key once in 37 million times. */
const SEEDS = [0x68617031, 0x68617032] as const;
const HASHES = 4_294_967_295;

/** How a map is declared whose keys these are. */
export const KEYED_MARKS = `typeof numgen inc mod ${HASHES} . numgen inc mod ${HASHES} : meta mark`;

/** Of a packet with ports. */
export function flowKey({ source, protocol, sourcePort, destinationPort }: PacketFields): string {
  return twoHashes([source, protocol, sourcePort, destinationPort]);
}

/** Of a packet of another protocol. */
export function pairKey({ source, protocol }: PacketFields): string {
  return twoHashes([source, protocol]);
}

/** Of all fragments of a packet. */
export function fragmentKey(family: 4 | 6): string {
  return twoHashes(
    family === 4 ? ['ip saddr', 'ip daddr', 'ip id', 'ip protocol'] : ['ip6 saddr', 'ip6 daddr', 'frag id'],
  );
}

function twoHashes(fields: readonly string[]): string {
  return SEEDS.map((seed) => `jhash ${fields.join(' . ')} mod ${HASHES} seed ${hex32(seed)}`).join(' . ');
}

/*
 * What packets of floating modes write down, since conntrack sees but one direction there and cannot follow:
 *
 *   pins-<frontend>    which backend a flow has
 *   ends-<frontend>    the same of TCP flows whose client has closed them: they go soon, and a new connection with the same
 *                      ports is placed anew
 *   flows-<frontend>   the TCP and UDP flows in pins, for people: client, ports, backend, packets and bytes to the backend
 *   parts              which backend the fragments of a packet go to (floating-l2 only: else the kernel puts them together)
 *   settling           holds tcp while pins may miss flows: after the table was made, and when a map was full. Until then TCP
 *                      packets without a pin are placed by their hash; later they are refused, as the idle policy says
 */

/** A hash table of this length takes 4 MiB from the start, and as much again and again while it fills. */
const MOST_FLOWS = 262_144;
const MOST_PARTS = 16_384;
/** A SYN without an answer, or without a further packet. */
const OPENING_SECONDS = 20;
/** What may still come of a connection that its client has closed: the other half, segments sent twice. */
const CLOSING_SECONDS = 30;
/** RFC 8200, section 4.5: 60 s. All fragments of a packet are sent at once, and identifications come again in seconds. */
const PARTS_SECONDS = 5;
const FULL_SECONDS = 60;

export const PARTS = 'parts';
export const SETTLING = 'settling';

export function pinsMap({ name }: Pick<FrontendGroup, 'name'>): string {
  return `pins-${name}`;
}

export function endsMap({ name }: Pick<FrontendGroup, 'name'>): string {
  return `ends-${name}`;
}

/** What another table of the same instance inherits. */
export function carriedSets(program: KernelProgram): readonly string[] {
  if (program.options.flowState === 'stateless') return [];
  return frontendGroups(program).flatMap((group) => [pinsMap(group), endsMap(group), flowsSet(group)]);
}

/** FLOW_SET_PREFIX + the first frontend with the address. Elements: client, protocol, its port, the frontend's port, mark. */
export function flowsSet({ name }: Pick<FrontendGroup, 'name'>): string {
  return `${FLOW_SET_PREFIX}${name}`;
}

export const FLOW_SET_PREFIX = 'flows-';

export function flowDeclarations(program: KernelProgram): string[] {
  if (program.options.flowState === 'stateless') return [];
  const map = (name: string): string =>
    `  map ${name} { ${KEYED_MARKS}; size ${MOST_FLOWS}; flags dynamic,timeout; timeout 4m; }`;
  return [
    ...frontendGroups(program).flatMap((group) => {
      const flow = `${addressType(group.address.family)} . inet_proto . inet_service . inet_service . mark`;
      return [
        map(pinsMap(group)),
        map(endsMap(group)),
        `  set ${flowsSet(group)} { type ${flow}; size ${MOST_FLOWS}; flags dynamic,timeout; timeout 4m; }`,
      ];
    }),
    `  set ${SETTLING} { type inet_proto; flags dynamic,timeout; size 2; elements = { tcp timeout ${settlingSeconds(program)}s } }`,
  ];
}

export function partsDeclaration(): string {
  return `  map ${PARTS} { ${KEYED_MARKS}; size ${MOST_PARTS}; flags dynamic,timeout; timeout ${PARTS_SECONDS}s; }`;
}

/** Statements about the maps of one frontend; `key` as in floating-keys.ts. */
export class FlowStatements {
  readonly #group: FrontendGroup;

  constructor(group: FrontendGroup) {
    this.#group = group;
  }

  /** Gives a packet the mark of its flow's backend, where it has one. */
  recall(key: string, from: 'pins' | 'ends' = 'pins'): string {
    return `meta mark set ${key} map @${this.#map(from)}`;
  }

  /** Writes the backend down, or keeps it for longer; then `next`, unless the map is full. */
  pin(key: string, seconds: number, next: string): string {
    return `update @${pinsMap(this.#group)} { ${key} timeout ${seconds}s : meta mark } ${next}`;
  }

  unpin(key: string): string {
    return `delete @${pinsMap(this.#group)} { ${key} : meta mark }`;
  }

  closing(key: string, next: string): string {
    return `update @${endsMap(this.#group)} { ${key} timeout ${CLOSING_SECONDS}s : meta mark } ${next}`;
  }

  /** For people. */
  list(seconds: number): string {
    return `update @${flowsSet(this.#group)} { ${this.#flow()} timeout ${seconds}s counter }`;
  }

  unlist(): string {
    return `delete @${flowsSet(this.#group)} { ${this.#flow()} }`;
  }

  #map(which: 'pins' | 'ends'): string {
    return which === 'pins' ? pinsMap(this.#group) : endsMap(this.#group);
  }

  #flow(): string {
    const { family } = this.#group.address;
    return `${ipWord(family)} saddr . meta l4proto . th sport . th dport . meta mark`;
  }
}

/** Rules for what follows when a map was full: from then on flows are placed by their hashes alone, for a while. */
export function whenFull(): string {
  return `update @${SETTLING} { meta l4proto timeout ${FULL_SECONDS}s }`;
}

export const OPENING = { seconds: OPENING_SECONDS } as const;

/** A flow that was there before the table is in pins once it has sent a packet, or it was idle for too long. */
function settlingSeconds({ rules }: KernelProgram): number {
  return Math.max(1, ...rules.map((rule) => idleSeconds(rule, 'tcp')));
}

/** A flow as packets have written it down: FLOW_SET_PREFIX of floating-flows.ts. */
export interface FloatingFlow {
  /** Text of an address. */
  readonly client: string;
  readonly clientPort: number;
  /** Of the frontend that the set is of. */
  readonly frontendPort: number;
  readonly protocol: Protocol;
  /** Of its backend. */
  readonly mark: number;
  /** From the client to the backend: answers do not come this way. */
  readonly packets: number;
  readonly bytes: number;
  /** Until it is forgotten if no packet comes. */
  readonly expiresMs: number;
  /** What that starts from with each packet: its idle time is the difference. */
  readonly timeoutMs: number;
}

/** `10.1.0.2 . tcp . 40000 . 443 . 0x00a10001 timeout 4m expires 3m59s990ms counter packets 3 bytes 180` */
const FLOW =
  /([0-9a-fA-F.:]+) \. (tcp|udp) \. (\d+) \. (\d+) \. (0x[0-9a-f]+)((?: (?:timeout|expires) \w+| counter packets \d+ bytes \d+)*)/g;
const TIME = /(\d+)(ms|[dhms])/g;
const UNIT_MS = new Map([
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
  ['ms', 1],
]);

/** What `nft list set inet haports flows-<frontend>` says. Elements that it does not understand are left out. */
export function floatingFlows(listing: string): readonly FloatingFlow[] {
  return Array.from(listing.matchAll(FLOW), (match): FloatingFlow => {
    const [, client = '', protocol, clientPort, frontendPort, mark, rest = ''] = match;
    const counted = / packets (\d+) bytes (\d+)/.exec(rest);
    return {
      client,
      clientPort: Number(clientPort),
      frontendPort: Number(frontendPort),
      protocol: protocol === 'udp' ? 'udp' : 'tcp',
      mark: Number(mark),
      packets: Number(counted?.[1] ?? 0),
      bytes: Number(counted?.[2] ?? 0),
      expiresMs: durationMs(/ expires (\w+)/.exec(rest)?.[1]),
      timeoutMs: durationMs(/ timeout (\w+)/.exec(rest)?.[1]),
    };
  });
}

/** `3m59s996ms`. */
function durationMs(text = ''): number {
  let sum = 0;
  for (const [, number, unit = ''] of text.matchAll(TIME)) sum += Number(number) * (UNIT_MS.get(unit) ?? 0);
  return sum;
}

/**
 * Flows of the floating modes, which packets write down in sets of the table: conntrack sees but one direction there.
 * No event reports when they begin and end, and what backends answer is not counted.
 */
export class FloatingEntries implements EntrySource {
  readonly #tools: Tools;
  readonly #program: () => KernelProgram | undefined;

  /** `program`: the present one. */
  constructor(tools: Tools, program: () => KernelProgram | undefined) {
    this.#tools = tools;
    this.#program = program;
  }

  async list(onEntries: (entries: readonly ConntrackEntry[]) => void): Promise<boolean> {
    const program = this.#program();
    if (program === undefined || program.options.flowState === 'stateless') return true;
    const family = program.options.mode === 'floating-l2' ? 'netdev' : 'inet';
    for (const group of frontendGroups(program)) {
      const args = ['list', 'set', family, tableOf(program.instance), flowsSet(group)];
      const { exitCode, stdout } = await this.#tools.run('nft', args);
      if (exitCode !== 0) return false;
      onEntries(entriesOf(floatingFlows(stdout), group));
    }
    return true;
  }
}

/** A flow that has moved is there once more, with its old backend, until that element's time is up. */
function entriesOf(flows: readonly FloatingFlow[], group: FrontendGroup): readonly ConntrackEntry[] {
  const newest = new Map<number, ConntrackEntry>();
  for (const flow of flows) {
    const entry = entryOf(flow, group);
    const other = newest.get(entry.id);
    if (other === undefined || (entry.idleMs ?? 0) < (other.idleMs ?? 0)) newest.set(entry.id, entry);
  }
  return [...newest.values()];
}

function entryOf(flow: FloatingFlow, { address }: FrontendGroup): ConntrackEntry {
  const { client, clientPort, frontendPort, protocol, mark, packets, bytes } = flow;
  const ends = { source: client, sourcePort: clientPort };
  const frontend = { destination: address.text, destinationPort: frontendPort };
  return {
    event: 'listed',
    protocol: PROTOCOL_NUMBER[protocol],
    remainingSeconds: Math.ceil(flow.expiresMs / 1000),
    state: protocol === 'tcp' ? 'ESTABLISHED' : '',
    original: { ...ends, ...frontend, packets, bytes },
    reply: {
      ...{ source: address.text, sourcePort: frontendPort, destination: client, destinationPort: clientPort },
      ...{ packets: 0, bytes: 0 },
    },
    ...{ unreplied: false, byProgram: false, mark, ageSeconds: undefined },
    id: fnv1a(Buffer.from(`${protocol} ${client} ${clientPort} ${formatEndpoint(address, frontendPort)}`)),
    idleMs: Math.max(0, flow.timeoutMs - flow.expiresMs),
  };
}
