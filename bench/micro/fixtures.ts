import { fromBytes, ipAddress, type FiveTuple } from '../../src/model/address.js';
import type { ForwardingState } from '../../src/model/forwarding.js';
import { createHasher } from '../../src/selection/flow-hash.js';
import { buildMaglevTable } from '../../src/selection/maglev.js';
import { relinked, testRule, testState } from '../../test/support/forwarding-state.js';

/**
 * As many as fit into a cache, so that what is measured is the function and not the memory of its arguments. A power
 * of two.
 */
export const SAMPLE = 1024;

/** The default size of a table. */
export const TABLE_SIZE = 65_537;

/** The same numbers every time: a multiplicative generator (Park and Miller, 1988). In [0, below). */
export class Dice {
  #state = 20_240_229;

  below(limit: number): number {
    this.#state = (this.#state * 48_271) % 2_147_483_647;
    return this.#state % limit;
  }
}

export function clientTuples(family: 4 | 6): readonly FiveTuple[] {
  const dice = new Dice();
  const destination = ipAddress(family === 4 ? '192.0.2.1' : '2001:db8::1');
  return Array.from({ length: SAMPLE }, () => ({
    protocol: 'udp',
    source: fromBytes(family === 4 ? ipv4Bytes(dice) : ipv6Bytes(dice)),
    sourcePort: 1024 + dice.below(60_000),
    destination,
    destinationPort: 53,
  }));
}

function ipv4Bytes(dice: Dice): number[] {
  return [10, dice.below(256), dice.below(256), dice.below(256)];
}

function ipv6Bytes(dice: Dice): number[] {
  return [0x20, 0x01, 0x0d, 0xb8, ...Array.from({ length: 12 }, () => dice.below(256))];
}

/** A state with a true Maglev table; all rules share the one view. */
export async function maglevState(backendCount: number, ruleCount: number): Promise<ForwardingState> {
  const backends = Array.from({ length: backendCount }, (_, n) => `10.9.${n >> 8}.${n & 255}`);
  const state = testState({ backends, rule: { symmetric: true } });
  const hash = await createHasher();
  const members = state.views.flatMap((view) => view.backends.map(({ backend }) => backend));
  const table = buildMaglevTable(members, TABLE_SIZE, hash);
  const rules = Array.from({ length: ruleCount }, (_, n) =>
    testRule({ name: `rule-${n}`, symmetric: true, ports: [{ first: 1 + n, last: 1 + n }] }),
  );
  return {
    ...state,
    configuration: relinked({ ...state.configuration, rules, tableSize: TABLE_SIZE }),
    views: state.views.map((view) => ({ ...view, table })),
    viewOfRule: rules.map(() => 0),
  };
}

/** Element at `index` modulo SAMPLE of an array of that length: a division would be half of what some benches measure. */
export function nth<T>(values: readonly T[], index: number): T {
  return values[index & (SAMPLE - 1)]!;
}
