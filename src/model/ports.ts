/** Ports first..last, both included, 1 to 65535. */
export interface PortRange {
  readonly first: number;
  readonly last: number;
}

/** Sorted, disjoint, non-adjacent ranges: one set of ports has exactly one such form. */
export type PortSet = readonly PortRange[];

export const ALL_PORTS: PortSet = [{ first: 1, last: 65535 }];

/** Parses `"80"`, `"8000-8099"` or `"22, 80, 8000-8099"`. Undefined if any part is not within 1-65535 or reversed. */
export function parsePortSet(text: string): PortSet | undefined {
  const ranges: PortRange[] = [];
  for (const part of text.split(',')) {
    const match = /^\s*(\d{1,5})\s*(?:-\s*(\d{1,5})\s*)?$/.exec(part);
    if (match === null) return undefined;
    const first = Number(match[1]);
    const last = Number(match[2] ?? match[1]);
    if (first < 1 || last > 65535 || first > last) return undefined;
    ranges.push({ first, last });
  }
  return normalise(ranges);
}

export function portSetOf(...ports: readonly number[]): PortSet {
  return normalise(ports.map((port) => ({ first: port, last: port })));
}

export function formatPortSet(set: PortSet): string {
  return set.map(({ first, last }) => (first === last ? String(first) : `${first}-${last}`)).join(',');
}

export function portSetContains(set: PortSet, port: number): boolean {
  let low = 0;
  let high = set.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    const range = set[middle];
    if (range === undefined) return false;
    if (port < range.first) high = middle - 1;
    else if (port > range.last) low = middle + 1;
    else return true;
  }
  return false;
}

export function portSetSize(set: PortSet): number {
  return set.reduce((sum, { first, last }) => sum + last - first + 1, 0);
}

/** The remainders that the ports of a set leave. */
export function portRemainders(set: PortSet, modulus: number): ReadonlySet<number> {
  // Of a longer range more ports leave no others.
  const ports = set.flatMap(({ first, last }) =>
    Array.from({ length: Math.min(last - first + 1, modulus) }, (_, index) => first + index),
  );
  return new Set(ports.map((port) => port % modulus));
}

export function* portsOf(set: PortSet): Generator<number> {
  for (const { first, last } of set) for (let port = first; port <= last; port++) yield port;
}

export function unionPorts(a: PortSet, b: PortSet): PortSet {
  return normalise([...a, ...b]);
}

export function subtractPorts(from: PortSet, minus: PortSet): PortSet {
  let rest: PortRange[] = [...from];
  for (const cut of minus) {
    rest = rest.flatMap((range) => {
      if (cut.last < range.first || cut.first > range.last) return [range];
      const pieces: PortRange[] = [];
      if (cut.first > range.first) pieces.push({ first: range.first, last: cut.first - 1 });
      if (cut.last < range.last) pieces.push({ first: cut.last + 1, last: range.last });
      return pieces;
    });
  }
  return rest;
}

export function intersectPorts(a: PortSet, b: PortSet): PortSet {
  return subtractPorts(a, subtractPorts(ALL_PORTS, b));
}

/** Whether the two sets have a port in common; cheaper than to intersect them. */
export function portSetsMeet(a: PortSet, b: PortSet): boolean {
  let left = 0;
  let right = 0;
  for (;;) {
    const x = a[left];
    const y = b[right];
    if (x === undefined || y === undefined) return false;
    if (x.last < y.first) left += 1;
    else if (y.last < x.first) right += 1;
    else return true;
  }
}

function normalise(ranges: readonly PortRange[]): PortSet {
  const sorted = [...ranges].sort((a, b) => a.first - b.first);
  const merged: PortRange[] = [];
  for (const range of sorted) {
    const previous = merged.at(-1);
    if (previous !== undefined && range.first <= previous.last + 1) {
      merged[merged.length - 1] = { first: previous.first, last: Math.max(previous.last, range.last) };
    } else {
      merged.push(range);
    }
  }
  return merged;
}
