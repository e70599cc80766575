import { isWildcard } from '../../model/address.js';
import type { Protocol } from '../../model/five-tuple.js';
import { portSetSize } from '../../model/port-set.js';
import { INSTANCE_MASK } from './backend-marks.js';
import type { KernelInput, KernelRule } from './kernel-input.js';

/** Flows of a rule on a backend that conntrack is to forget. `udp` stands for all protocols but TCP. */
export interface Eviction {
  readonly rule: KernelRule;
  readonly protocol: Protocol;
  readonly mark: number;
}

/** Evictions by what they are about. */
export type Evictions = ReadonlyMap<string, Eviction>;

/**
 * Flows that are placed anew by being forgotten: their next packet is the first of a flow. UDP that is reset is that too,
 * as its flow ends and its next datagram starts another.
 */
export function movedFlows(input: KernelInput): Evictions {
  return evictions(input, ({ actions: { udp } }) => [['udp', [...udp.rebalance, ...udp.reset]]]);
}

/** TCP flows that are reset when they next send: after that they are forgotten. Those that can move are not among them. */
export function resetFlows(input: KernelInput): Evictions {
  return evictions(input, ({ actions: { tcp } }) => [['tcp', tcp.reset]]);
}

/** Those that are not in the others. */
export function evictionsWithout(some: Evictions, others: Evictions): readonly Eviction[] {
  return [...some].flatMap(([key, eviction]) => (others.has(key) ? [] : [eviction]));
}

/** What `conntrack -D` and `-L` are told to match flows of an eviction, and maybe some of the same frontend's other rules. */
export function matchOf({ rule, mark }: Eviction): readonly string[] {
  const { address } = rule.frontend;
  return [
    ...['-f', `ipv${address.family}`, '--mark', `0x${mark.toString(16)}/0xffffffff`],
    ...(isWildcard(address) ? [] : ['--orig-dst', address.text.split('%', 1)[0] ?? '']),
  ];
}

/** The only port of the rule; undefined: it has several. */
export function onlyPort({ rule: { rule } }: Eviction): number | undefined {
  return portSetSize(rule.ports) === 1 ? rule.ports[0]?.first : undefined;
}

/** Whether a match may hit flows of other rules: some have the frontend's address, the pool and the protocol, but no such eviction. */
export function isShared({ rule, protocol, mark }: Eviction, all: Evictions, input: KernelInput): boolean {
  return input.rules.some(
    (other) =>
      other !== rule &&
      other.frontend.address.family === rule.frontend.address.family &&
      (isWildcard(rule.frontend.address) || other.frontend.address.text === rule.frontend.address.text) &&
      other.rule.backendPool === rule.rule.backendPool &&
      other.rule.protocols.includes(protocol) &&
      !all.has(keyOf(other, protocol, mark)),
  );
}

/**
 * Flows of UDP to the frontends that began without the table, as `conntrack -D` matches them: the kernel decides about a
 * flow once, and a client that keeps sending would never be balanced.
 */
export function staleFlows({ frontends }: KernelInput): string[][] {
  return frontends
    .filter(({ address }) => !isWildcard(address))
    .map(({ address: { family, text } }) => [
      ...['-f', `ipv${family}`, '-p', 'udp', '--orig-dst', text.split('%', 1)[0] ?? ''],
      ...['--mark', `0x0/0x${INSTANCE_MASK.toString(16)}`],
    ]);
}

function evictions(
  { rules }: KernelInput,
  marksOf: (rule: KernelRule) => readonly (readonly [Protocol, readonly number[]])[],
): Evictions {
  const found = new Map<string, Eviction>();
  for (const rule of rules) {
    for (const [protocol, marks] of marksOf(rule)) {
      if (!rule.rule.protocols.includes(protocol)) continue;
      for (const mark of marks) found.set(keyOf(rule, protocol, mark), { rule, protocol, mark });
    }
  }
  return found;
}

function keyOf({ rule }: KernelRule, protocol: Protocol, mark: number): string {
  return `${rule.name} ${protocol} ${mark}`;
}
