import type { KernelInput, KernelRule } from '../kernel-input.js';
import { frontendGroups, type FrontendGroup } from './frontend-dispatch.js';
import { KEYED_MARKS } from './floating-keys.js';
import { ipWord } from './table-text.js';

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
/** A SYN that nobody answers, or that nobody follows up. */
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

/** What another table of the same instance goes on with. */
export function carriedSets(input: KernelInput): readonly string[] {
  if (input.options.flowState === 'stateless') return [];
  return frontendGroups(input).flatMap((group) => [pinsMap(group), endsMap(group), flowsSet(group)]);
}

/** FLOW_SET_PREFIX + the first frontend with the address. Elements: client, protocol, its port, the frontend's port, mark. */
export function flowsSet({ name }: Pick<FrontendGroup, 'name'>): string {
  return `${FLOW_SET_PREFIX}${name}`;
}

export const FLOW_SET_PREFIX = 'flows-';

export function flowDeclarations(input: KernelInput): string[] {
  if (input.options.flowState === 'stateless') return [];
  const map = (name: string): string =>
    `  map ${name} { ${KEYED_MARKS}; size ${MOST_FLOWS}; flags dynamic,timeout; timeout 4m; }`;
  return [
    ...frontendGroups(input).flatMap((group) => {
      const address = group.address.family === 4 ? 'ipv4_addr' : 'ipv6_addr';
      const flow = `${address} . inet_proto . inet_service . inet_service . mark`;
      return [
        map(pinsMap(group)),
        map(endsMap(group)),
        `  set ${flowsSet(group)} { type ${flow}; size ${MOST_FLOWS}; flags dynamic,timeout; timeout 4m; }`,
      ];
    }),
    `  set ${SETTLING} { type inet_proto; flags dynamic,timeout; size 2; elements = { tcp timeout ${settlingSeconds(input)}s } }`,
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

export function idleSeconds({ rule }: KernelRule, protocol: 'tcp' | 'udp'): number {
  return Math.max(1, Math.ceil(rule.idleTimeoutMs[protocol].value / 1000));
}

/** A flow that was there before the table is in pins once it has sent a packet, or it was idle for too long. */
function settlingSeconds({ rules }: KernelInput): number {
  return Math.max(1, ...rules.map((rule) => idleSeconds(rule, 'tcp')));
}
