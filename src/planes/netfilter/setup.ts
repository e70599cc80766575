import type { IpAddress, Protocol } from '../../model/address.js';
import type { EntryFilter } from './conntrack.js';
import { ipCommandLine, type RoutingEntry } from './routing.js';

/** `netdev`: at the ingress of an interface, before anything else sees a packet. */
export type TableFamily = 'inet' | 'netdev';

export const TABLE_FAMILIES: readonly TableFamily[] = ['inet', 'netdev'];

/**
 * What should be in the kernel: one nft table and what the routing of this machine needs for it. Pure data; two
 * setups that are to be the same must be built the same way, since texts are compared.
 */
export interface KernelSetup {
  readonly table: string;
  /** @default 'inet' */
  readonly family?: TableFamily;
  /** Marks what of the machine's routing is this instance's: `instanceTag`. */
  readonly tag: number;
  /** The table as nft reads it, `table inet haports {...}`, its sets and maps without elements. */
  readonly structure: string;
  /**
   * Elements by set or map: value by key, or '' in a set. As nft lists them: `443`, `1-21`, `240.7.0.80`. Sets and maps
   * that are not named here, such as those that packets fill, are left to themselves.
   */
  readonly sets: ReadonlyMap<string, Elements>;
  /** Sets that packets fill, and that another table of the same name keeps where it can. @default none */
  readonly carried?: readonly string[];
  readonly routing: readonly RoutingEntry[];
  /**
   * Arguments of `conntrack -D` after the table was written, to forget flows that began without it: the kernel decides
   * about a flow once, and a client that keeps sending would never be steered. @default nothing
   */
  readonly staleFlows?: readonly EntryFilter[];
}

export type Elements = ReadonlyMap<string, string>;

/** `inet haports`, as nft's commands name it. */
export function tableName({ table, family = 'inet' }: Pick<KernelSetup, 'table' | 'family'>): string {
  return `${family} ${table}`;
}

/**
 * The transaction that puts the table in place of whatever has its name. The first line makes the second one
 * possible where there is none.
 */
export function replaceTableText(setup: KernelSetup): string {
  const own = tableName(setup);
  const lines = [`table ${own}`, `delete table ${own}`, setup.structure];
  for (const [name, elements] of setup.sets) {
    if (elements.size > 0) lines.push(addText(own, name, elements));
  }
  return `${lines.join('\n')}\n`;
}

export function removeTableText(table: string, family: TableFamily = 'inet'): string {
  const own = tableName({ table, family });
  return `table ${own}\ndelete table ${own}\n`;
}

/** Whether they differ in elements and routing only. */
export function sameStructure(a: KernelSetup, b: KernelSetup): boolean {
  return tableName(a) === tableName(b) && a.structure === b.structure;
}

/**
 * The transaction that turns one table into the other, '' where nothing differs; undefined where more than elements
 * differs, which takes the whole table. It fails if the kernel does not have what it starts from.
 */
export function deltaText(from: KernelSetup, to: KernelSetup): string | undefined {
  if (!sameStructure(from, to)) return undefined;
  const lines: string[] = [];
  const none: Elements = new Map();
  for (const name of new Set([...from.sets.keys(), ...to.sets.keys()])) {
    const before = from.sets.get(name) ?? none;
    const after = to.sets.get(name) ?? none;
    if (before !== after) lines.push(...setDelta(tableName(to), name, before, after));
  }
  return lines.length === 0 ? '' : `${lines.join('\n')}\n`;
}

function setDelta(table: string, name: string, before: Elements, after: Elements): string[] {
  const gone = new Map([...before].filter(([key, value]) => after.get(key) !== value));
  const added = new Map([...after].filter(([key, value]) => before.get(key) !== value));
  if (gone.size === 0 && added.size === 0) return [];
  // Sets of intervals are few elements, and nft 1.0.6 is not to be trusted with overlaps inside one transaction.
  if (isOfIntervals(before) || isOfIntervals(after)) {
    const fill = after.size === 0 ? [] : [addText(table, name, after)];
    return [`flush ${isMap(before, after) ? 'map' : 'set'} ${table} ${name}`, ...fill];
  }
  return [
    ...(gone.size === 0 ? [] : [`delete element ${table} ${name} { ${[...gone.keys()].join(', ')} }`]),
    ...(added.size === 0 ? [] : [addText(table, name, added)]),
  ];
}

function addText(table: string, name: string, elements: Elements): string {
  const texts = Array.from(elements, ([key, value]) => (value === '' ? key : `${key} : ${value}`));
  return `add element ${table} ${name} { ${texts.join(', ')} }`;
}

function isOfIntervals(elements: Elements): boolean {
  for (const key of elements.keys()) if (key.includes('-')) return true;
  return false;
}

function isMap(before: Elements, after: Elements): boolean {
  const [first] = after.size > 0 ? after.values() : before.values();
  return first !== undefined && first !== '';
}

/*
 * Words of nft text, as nft 1.0.6 reads them. Names of sets and chains are a prefix and the name of a rule, a table or a
 * frontend, which may start with a digit: nft's own may not.
 */

/** A chain of a table. `hook`: `type filter hook prerouting priority -90; policy accept;`; undefined: it is jumped to. */
export function chainText(name: string, hook: string | undefined, rules: readonly string[]): string[] {
  return [
    `  chain ${name} {`,
    ...(hook === undefined ? [] : [`    ${hook}`]),
    ...rules.map((rule) => `    ${rule}`),
    '  }',
  ];
}

/** An object that gives flows their times: seconds without packets, by state as conntrack names it. */
export function timeoutText(
  name: string,
  protocol: Protocol,
  family: 4 | 6,
  seconds: Readonly<Record<string, number>>,
): string[] {
  const policy = Object.entries(seconds).map(([state, time]) => `${state} : ${time}`);
  return [
    `  ct timeout ${name} {`,
    `    protocol ${protocol}`,
    `    l3proto ${ipWord(family)}`,
    `    policy = { ${policy.join(', ')} }`,
    '  }',
  ];
}

/** The whole of a table, as KernelSetup.structure wants it. */
export function tableText(table: string, body: readonly string[], family: TableFamily = 'inet'): string {
  const comment = '  comment "All of it is haports\' own: changes by others are undone"';
  return [`table ${family} ${table} {`, comment, ...body, '}'].join('\n');
}

/** A mark, or any 32 bits, as nft lists it. */
export function hex32(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`;
}

export function ipWord(family: 4 | 6): 'ip' | 'ip6' {
  return family === 4 ? 'ip' : 'ip6';
}

/** The type of sets of addresses. */
export function addressType(family: 4 | 6): 'ipv4_addr' | 'ipv6_addr' {
  return family === 4 ? 'ipv4_addr' : 'ipv6_addr';
}

/** Tables have no place for a zone, `%eth0`. */
export function addressText({ text }: Pick<IpAddress, 'text'>): string {
  return text.split('%', 1)[0] ?? text;
}

/** What would be typed to do the same by hand, one command a line, the table left out. */
function routingText({ routing }: KernelSetup): string {
  return routing.map((entry) => `${ipCommandLine('add', entry)}\n`).join('');
}

/** Elements of a set that are shown where not all are. */
const SHOWN = 4;

/**
 * A setup as nft reads it, with the commands for routes and addresses as comments. Not `full`: the first elements of
 * each set, and how many there are. Pure.
 */
export function setupText(setup: KernelSetup, { full }: { readonly full: boolean }): string {
  const text = replaceTableText(setup);
  const routing = routingText(setup).replace(/^(?=.)/gm, '# ');
  const table = full ? text : abbreviated(text);
  return `# Run first, where it is not there yet:\n${routing}#\n# The table, by nft -f:\n${table}`;
}

/** Commands of nft with the first elements of each: `add element inet haports tcp4-hub { 1 : 240.7.0.1, ... }`. */
export function abbreviated(commands: string): string {
  return commands.replaceAll(
    /^((?:add|delete) element .*?\{ )(.*) \}$/gm,
    (line, head: string, list: string) => {
      const elements = list.split(', ');
      if (elements.length <= SHOWN) return line;
      const shown = `${head}${elements.slice(0, SHOWN).join(', ')} }`;
      return `${shown}\n# ... and ${elements.length - SHOWN} more of these`;
    },
  );
}
