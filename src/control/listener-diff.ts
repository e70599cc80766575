import type { Configuration } from '../model/configuration.js';
import type { PlanReport } from '../model/plan-report.js';
import type { PortSet } from '../model/port-set.js';

interface PortsOfGroup {
  readonly before: PortSet[];
  readonly after: PortSet[];
}

const PORTS = 65_536;
const BEFORE = 1;
const AFTER = 2;

/**
 * Counts listeners, by protocol, frontend address and port, that another configuration keeps, opens and closes. A
 * wildcard frontend counts as one address, over UDP too, where a data plane has a socket for each of the machine's own.
 */
export function listenerChanges(before: Configuration, after: Configuration): PlanReport['listeners'] {
  const groups = new Map<string, PortsOfGroup>();
  collect(groups, before, 'before');
  collect(groups, after, 'after');
  const counts = new Uint32Array(4);
  const marks = new Uint8Array(PORTS);
  for (const { before: old, after: present } of groups.values()) {
    marks.fill(0);
    mark(marks, old, BEFORE);
    mark(marks, present, AFTER);
    for (const sides of marks) counts[sides] = (counts[sides] ?? 0) + 1;
  }
  const [, closed = 0, opened = 0, kept = 0] = counts;
  return { kept, opened, closed };
}

function collect(
  groups: Map<string, PortsOfGroup>,
  { frontends, rules }: Configuration,
  side: keyof PortsOfGroup,
): void {
  const addresses = new Map(frontends.map(({ name, address }) => [name, address.text]));
  for (const { frontend, protocols, ports } of rules) {
    for (const protocol of protocols) {
      const key = `${protocol} ${addresses.get(frontend) ?? ''}`;
      const group = groups.get(key) ?? { before: [], after: [] };
      groups.set(key, group);
      group[side].push(ports);
    }
  }
}

function mark(marks: Uint8Array, sets: readonly PortSet[], side: number): void {
  for (const ports of sets) {
    for (const { first, last } of ports) {
      for (let port = first; port <= last; port++) marks[port] = (marks[port] ?? 0) | side;
    }
  }
}
