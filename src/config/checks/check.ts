import type { Protocol } from '../../model/address.js';
import type { Backend, BackendPool, Frontend, Rule } from '../../model/configuration.js';
import type { Issue, Path, Severity } from '../findings.js';
import type { Draft } from '../resolve.js';

/** Looks at a configuration as a whole, and tells what is wrong with it or worth knowing. Pure. */
export type Check = (draft: Draft) => readonly Issue[];

/** What is looked at, one by one: things of the draft, or items that say what `thing` they are about, or where. */
export type Over<T extends object> = (draft: Draft) => Iterable<T>;

/** Where a finding is. */
interface Spot {
  readonly thing?: object;
  /** From the thing down; without a thing, from the top. */
  readonly at?: Path;
  readonly atKey?: boolean;
}

/** Words, or how they are made of the item, of what `when` found and of the whole. */
type Words<T, H> = string | ((item: T, hit: H, draft: Draft) => string | undefined);

/** When something is reported, and in what words. */
export interface Row<T, H> {
  /** Whether there is something to report: true, or a value for its words. @default always */
  readonly when?: (item: T, draft: Draft) => H | false | undefined;
  /** What is there, in a sentence. */
  readonly say: Words<T, H>;
  /** @default where something must be: what was written there, unless that is a list or an object */
  readonly found?: Words<T, H>;
  /** What must be. */
  readonly expected?: Words<T, H>;
  /** Why, in one sentence. */
  readonly reason?: Words<T, H>;
}

/**
 * One row of the table of checks.
 * @param code - stable: `LB_...`, or `V1` to `V20` for Azure's HA-ports rules
 * @param at - the key that it is about, with dots, from the thing down; `@` in front: the key itself, not its value
 */
type TellOf = <T extends object, H = true>(code: string, over: Over<T>, at: string, row: Row<T, H>) => Check;

function tell(severityOf: (draft: Draft) => Severity): TellOf {
  return <T extends object, H>(code: string, over: Over<T>, key: string, row: Row<T, H>): Check => {
    const keys = key
      .replace('@', '')
      .split('.')
      .filter((step) => step !== '');
    return (draft) => {
      const issues: Issue[] = [];
      for (const item of over(draft)) {
        const hit = row.when === undefined ? (true as H) : row.when(item, draft);
        if (hit === undefined || hit === false) continue;
        const inWords = (words: Words<T, H> | undefined): string | undefined =>
          typeof words === 'function' ? words(item, hit, draft) : words;
        const { thing, at, atKey = key.startsWith('@') }: Spot = item;
        const path =
          thing === undefined && at !== undefined ? at : draft.path(thing ?? item, ...(at ?? keys));
        const [message, expected, reason] = [
          inWords(row.say) ?? '',
          inWords(row.expected),
          inWords(row.reason),
        ];
        const written = expected === undefined || atKey ? undefined : draft.written.found(path);
        const found = row.found === undefined ? written : inWords(row.found);
        issues.push({ severity: severityOf(draft), code, path, message, atKey, found, expected, reason });
      }
      return issues;
    };
  };
}

export const error = tell(() => 'error');
export const warning = tell(() => 'warning');
export const note = tell(() => 'note');
/** What only Azure forbids: an error under `"compat": "azure"`, else a note. */
export const azureOnly = tell(({ root }) => (root.compat === 'azure' ? 'error' : 'note'));

export const ROOT = ({ root }: Draft) => [root];
export const FRONTENDS = ({ frontends }: Draft) => frontends;
export const PROBES = ({ probes }: Draft) => probes;
export const POOLS = ({ pools }: Draft) => pools;
export const RULES = ({ rules }: Draft) => rules;

/** Backends with the pool that each is a member of. */
export function* MEMBERS({ pools }: Draft) {
  for (const pool of pools) for (const backend of pool.backends) yield { pool, backend, thing: backend };
}

/** Rules with each backend that they may send flows to. There may be millions. */
export function* TARGETS({ rules }: Pick<Draft, 'rules'>) {
  for (const rule of rules) for (const backend of rule.pool.backends) yield { rule, backend, thing: backend };
}

/** Idle times that were written, of frontends and of rules. */
export function idleTimes(...protocols: readonly Protocol[]) {
  return ({ written: { frontends, rules } }: Draft) =>
    [...frontends, ...rules].flatMap(({ at, value: { idleTimeout } }) =>
      protocols.flatMap((protocol) => {
        const ms = idleTimeout?.[protocol];
        return ms === undefined ? [] : [{ at: [...at, 'idleTimeout', protocol], ms }];
      }),
    );
}

/** Each rule with the first earlier one that it does not go with. */
export function pairs(conflict: (rule: Rule, earlier: Rule, draft: Draft) => boolean) {
  return (draft: Draft) =>
    draft.rules.flatMap((rule, index) => {
      const earlier = draft.rules.slice(0, index).find((other) => conflict(rule, other, draft));
      return earlier === undefined ? [] : [{ rule, earlier, thing: rule }];
    });
}

/** Items whose key an earlier one has, each with the first that has it. */
export function repeats<T>(items: readonly T[], keyOf: (item: T) => string) {
  const seen = new Map<string, T>();
  return items.flatMap((thing) => {
    const first = seen.get(keyOf(thing));
    if (first !== undefined) return [{ thing, first }];
    seen.set(keyOf(thing), thing);
    return [];
  });
}

const LINK_LOCAL = {
  expected: 'an address that is not link-local',
  reason: 'The kernel steers by address alone, and other interfaces may have the same link-local one',
};

/** Rows on addresses that the kernel cannot steer by: its maps know no interfaces. */
export const LINK_LOCAL_FRONTEND: Row<Frontend, boolean> = {
  when: ({ address }) => address.zone !== undefined,
  say: ({ name }) => `Frontend "${name}" has an address of one interface only`,
  ...LINK_LOCAL,
};

export const LINK_LOCAL_BACKEND: Row<{ readonly pool: BackendPool; readonly backend: Backend }, boolean> = {
  when: ({ backend }) => backend.address.zone !== undefined,
  say: ({ pool }) => `A backend of pool "${pool.name}" has an address of one interface only`,
  ...LINK_LOCAL,
};
