/**
 * How many files and sockets this process may have open (its soft RLIMIT_NOFILE); undefined where none is set. That is
 * the hard limit as well: Node raises the one to the other when it starts (src/node.cc, PlatformInit), so only who raises
 * the hard limit gives it more. To be asked before there are many sockets: Node's report looks up a host name for each
 * of them, one after another.
 */
export function descriptorLimit(): number | undefined {
  const report: unknown = process.report.getReport();
  const limits = member(report, 'userLimits');
  const soft = member(member(limits, 'open_files'), 'soft');
  return typeof soft === 'number' ? soft : undefined;
}

function member(value: unknown, key: string): unknown {
  if (typeof value !== 'object' || value === null) return undefined;
  return (value as Readonly<Record<string, unknown>>)[key];
}
