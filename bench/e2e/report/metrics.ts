import type { CaseName } from '../options.js';

/** A number of the results that the tables show. */
export interface Metric {
  readonly case: CaseName;
  /** As in the samples. */
  readonly name: string;
  /** What stands in the first column, before the variant. */
  readonly title: string;
  /** Divides the number for showing. @default 1 */
  readonly scale?: number;
  readonly better: 'more' | 'less';
  /** `speed`: one worker each; `cpu`: cost for a unit, one and two workers; `growth`, `capture`: haports alone; `kernel`: both planes of haports. */
  readonly table: 'speed' | 'cpu' | 'growth' | 'capture' | 'kernel';
  /** Whom haports is compared with: HAProxy, nginx for UDP, no balancer for the kernel plane. */
  readonly reference: 'haproxy' | 'nginx' | 'direct';
  /** Shown for these variants only. @default all */
  readonly variants?: RegExp;
}

const HAPROXY = { reference: 'haproxy' } as const;
const NGINX = { reference: 'nginx' } as const;
const SPEED = { table: 'speed', ...HAPROXY } as const;
const CPU = { table: 'cpu', better: 'less', ...HAPROXY } as const;
const CAPTURE = { case: 'capture', table: 'capture', better: 'less', ...HAPROXY } as const;
const KERNEL = { case: 'kernel', table: 'kernel', reference: 'direct' } as const;
const KERNEL_CPU = { ...KERNEL, name: 'machineMicrosPerUnit', better: 'less' } as const;
const GROWTH = { case: 'growth', table: 'growth', ...HAPROXY } as const;

/** In the order of the tables' rows. */
export const METRICS: readonly Metric[] = [
  { ...SPEED, case: 'requests', name: 'requestsPerSecond', title: 'requests/s', better: 'more' },
  { ...SPEED, case: 'connections', name: 'connectionsPerSecond', title: 'new connections/s', better: 'more' },
  { ...SPEED, case: 'bulk', name: 'gigabitsPerSecond', title: 'bulk, Gbit/s', better: 'more' },
  { ...SPEED, case: 'latency', name: 'p50Ms', title: 'latency p50, ms', better: 'less' },
  { ...SPEED, case: 'latency', name: 'p99Ms', title: 'latency p99, ms', better: 'less' },
  { ...SPEED, case: 'latency', name: 'p999Ms', title: 'latency p99.9, ms', better: 'less' },
  { ...SPEED, case: 'udp', name: 'deliveredPerSecond', title: 'UDP delivered/s', better: 'more', ...NGINX },
  {
    ...SPEED,
    case: 'udp',
    name: 'lostPercent',
    title: 'UDP lost, %',
    better: 'less',
    ...NGINX,
    variants: /offered/,
  },
  { ...SPEED, case: 'udp', name: 'p50Ms', title: 'UDP p50, ms', better: 'less', ...NGINX },
  { ...SPEED, case: 'udp', name: 'p99Ms', title: 'UDP p99, ms', better: 'less', ...NGINX },
  {
    ...SPEED,
    case: 'memory',
    name: 'flowsPerSecond',
    title: 'new UDP flows/s',
    better: 'more',
    ...NGINX,
    variants: /udp/,
  },
  {
    ...SPEED,
    case: 'memory',
    name: 'bytesPerFlow',
    title: 'memory a flow, KiB',
    scale: 1024,
    better: 'less',
    variants: /tcp/,
  },
  {
    ...SPEED,
    case: 'memory',
    name: 'bytesPerFlow',
    title: 'memory a flow, KiB',
    scale: 1024,
    better: 'less',
    ...NGINX,
    variants: /udp/,
  },
  { ...SPEED, case: 'start', name: 'startMs', title: 'start, ms', better: 'less' },

  { ...CPU, case: 'requests', name: 'cpuMicrosPerRequest', title: 'µs a request' },
  { ...CPU, case: 'connections', name: 'cpuSecondsPer10kConnections', title: 's for 10,000 connections' },
  { ...CPU, case: 'bulk', name: 'cpuSecondsPerGib', title: 's a GiB' },
  {
    ...CPU,
    case: 'udp',
    name: 'cpuMicrosPerDatagram',
    title: 'µs a datagram',
    ...NGINX,
    variants: /offered/,
  },
  { ...CPU, case: 'memory', name: 'cpuMicrosPerFlow', title: 'µs a UDP flow', ...NGINX, variants: /udp/ },

  { ...GROWTH, name: 'requestsPerSecond', title: 'requests/s', better: 'more' },
  { ...GROWTH, name: 'cpuMicrosPerRequest', title: 'CPU µs a request', better: 'less' },
  { ...GROWTH, name: 'connectionsPerSecond', title: 'new connections/s', better: 'more' },
  { ...GROWTH, name: 'cpuSecondsPer10kConnections', title: 'CPU s for 10,000 connections', better: 'less' },
  { ...GROWTH, name: 'gigabitsPerSecond', title: 'bulk, Gbit/s', better: 'more' },
  { ...GROWTH, name: 'cpuSecondsPerGib', title: 'CPU s a GiB', better: 'less' },

  { ...CAPTURE, name: 'startMs', title: 'ready after, ms' },
  { ...CAPTURE, name: 'residentMebibytes', title: 'memory, MiB' },
  { ...CAPTURE, name: 'kernelMebibytes', title: "the kernel's, MiB" },
  { ...CAPTURE, name: 'connectionsPerSecond', title: 'new connections/s', better: 'more' },
  { ...CAPTURE, name: 'cpuSecondsPer10kConnections', title: 'CPU s for 10,000' },
  { ...CAPTURE, name: 'firstP50Ms', title: 'first datagram p50, ms' },
  { ...CAPTURE, name: 'firstP99Ms', title: 'p99, ms' },
  { ...CAPTURE, name: 'laterP50Ms', title: 'later ones p50, ms' },

  { ...KERNEL, name: 'gigabitsPerSecond', title: 'TCP bulk, Gbit/s', better: 'more' },
  {
    ...KERNEL,
    name: 'connectionsPerSecond',
    title: 'new connections/s',
    better: 'more',
    variants: /at a time/,
  },
  { ...KERNEL, name: 'requestsPerSecond', title: 'requests/s', better: 'more' },
  { ...KERNEL, name: 'deliveredPerSecond', title: 'UDP datagrams/s', better: 'more' },
  {
    ...KERNEL,
    name: 'connectionsPerSecond',
    title: 'churn, connections/s',
    better: 'more',
    variants: /client/,
  },
  { ...KERNEL_CPU, title: "machine's CPU, µs a MiB", variants: /stream/ },
  { ...KERNEL_CPU, title: "machine's CPU, µs a connection", variants: /at a time/ },
  { ...KERNEL_CPU, title: "machine's CPU, µs a request", variants: /connections/ },
  { ...KERNEL_CPU, title: "machine's CPU, µs a datagram", variants: /bytes/ },
];

/** Three significant digits; thousands with separators. */
export function shown(value: number): string {
  if (Math.abs(value) >= 1000) return Number(value.toPrecision(3)).toLocaleString('en-US');
  return String(Number(value.toPrecision(3)));
}
