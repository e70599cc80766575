import type { KernelReport } from '../model/kernel-report.js';
import type { MetricFamily, MetricsSnapshot, Sample } from './metric-family.js';

/** What the data plane keeps in the kernel; without capture there are none of these. */
export const KERNEL_METRICS: readonly MetricFamily[] = [
  {
    name: 'haports_kernel_in_place',
    type: 'gauge',
    help: 'Whether the nft table was as it should be when last looked at',
    collect: (snapshot) => ofKernel(snapshot, ({ state }) => (state === 'in-place' ? 1 : 0)),
  },
  {
    name: 'haports_kernel_repairs_total',
    type: 'counter',
    help: 'Times that the nft table, routes or addresses were found lost or altered, and put right',
    collect: (snapshot) => ofKernel(snapshot, ({ repairs }) => repairs),
  },
  {
    name: 'haports_kernel_failures_total',
    type: 'counter',
    help: 'Changes of the kernel that failed',
    collect: (snapshot) => ofKernel(snapshot, ({ failures }) => failures),
  },
];

function ofKernel({ kernel }: MetricsSnapshot, value: (report: KernelReport) => number): readonly Sample[] {
  return kernel === undefined ? [] : [{ labels: {}, value: value(kernel) }];
}
