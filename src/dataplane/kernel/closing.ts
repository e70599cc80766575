import type { KernelInput } from './kernel-input.js';

/** The input of a plane that takes no new flows: those that there are go on. */
export function closedInput(input: KernelInput): KernelInput {
  const rules = input.rules.map((one) => ({ ...one, table: { ...one.table, marks: [] } }));
  return { ...input, rules, tables: input.tables.map((table) => ({ ...table, marks: [] })) };
}

/** As closed, and all flows of TCP are reset when either end sends. */
export function endedInput(input: KernelInput): KernelInput {
  const closed = closedInput(input);
  const all = input.backends.map(({ mark }) => mark);
  const rules = closed.rules.map((one) => ({
    ...one,
    actions: { ...one.actions, tcp: { rebalance: [], reset: all, drop: [] } },
  }));
  return { ...closed, rules };
}
