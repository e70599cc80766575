import type { IpAddress } from '../../../model/address.js';
import type { Elements, TableFamily } from '../../../nft/kernel-setup.js';

/*
 * Words of nft text, as nft 1.0.6 reads them. Names of sets and chains are a prefix and the name of a rule, a table or a
 * frontend, which may start with a digit: nft's own may not.
 */

/** What one concern adds to a table: declarations of sets, maps and objects, and elements by set or map. */
export interface TablePart {
  readonly declarations: readonly string[];
  readonly elements: ReadonlyMap<string, Elements>;
}

/** A chain of a table. `hook`: `type filter hook prerouting priority -90; policy accept;`; undefined: it is jumped to. */
export function chainText(name: string, hook: string | undefined, rules: readonly string[]): string[] {
  return [
    `  chain ${name} {`,
    ...(hook === undefined ? [] : [`    ${hook}`]),
    ...rules.map((rule) => `    ${rule}`),
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

/** What `ip daddr` is called where a protocol family is matched. */
export function nfprotoWord(family: 4 | 6): 'ipv4' | 'ipv6' {
  return family === 4 ? 'ipv4' : 'ipv6';
}

/** Tables have no place for a zone, `%eth0`. */
export function addressText({ text }: Pick<IpAddress, 'text'>): string {
  return text.split('%', 1)[0] ?? text;
}

/** Elements of a set of marks. */
export function markElements(marks: Iterable<number>): Elements {
  return new Map([...new Set(marks)].sort((a, b) => a - b).map((mark) => [hex32(mark), '']));
}

export function mergeParts(...parts: readonly TablePart[]): TablePart {
  return {
    declarations: parts.flatMap(({ declarations }) => declarations),
    elements: new Map(parts.flatMap(({ elements }) => [...elements])),
  };
}
