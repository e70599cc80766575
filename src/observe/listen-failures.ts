import type { AppliedReport } from '../model/control-events.js';
import { formatPortSet, portSetOf } from '../model/port-set.js';

/** Ports of one rule, protocol and address that failed alike. */
export interface ListenFailureGroup {
  readonly rule: string;
  readonly protocol: string;
  readonly address: string;
  readonly errorCode: string;
  readonly count: number;
  /** As a port set, cut after 20 ranges. */
  readonly ports: string;
}

/** A line that lists thousands of scattered ports helps nobody. */
const MAX_RANGES = 20;

/** Puts the failures of one apply together, so that 1,023 privileged ports are one entry and not 1,023. */
export function groupListenFailures(failures: AppliedReport['failures']): readonly ListenFailureGroup[] {
  const groups = new Map<
    string,
    { readonly first: AppliedReport['failures'][number]; readonly ports: number[] }
  >();
  for (const failure of failures) {
    const key = [failure.rule, failure.protocol, failure.address, failure.errorCode].join(' ');
    const group = groups.get(key);
    if (group === undefined) groups.set(key, { first: failure, ports: [failure.port] });
    else group.ports.push(failure.port);
  }
  return [...groups.values()].map(({ first, ports }) => ({
    rule: first.rule,
    protocol: first.protocol,
    address: first.address,
    errorCode: first.errorCode,
    count: ports.length,
    ports: formatPorts(ports),
  }));
}

function formatPorts(ports: readonly number[]): string {
  const ranges = portSetOf(...ports);
  const text = formatPortSet(ranges.slice(0, MAX_RANGES));
  return ranges.length > MAX_RANGES ? `${text} and ${ranges.length - MAX_RANGES} more ranges` : text;
}
