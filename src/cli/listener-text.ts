import type { StatusJson } from './admin-json.js';
import { formatCount, plural } from './human.js';

/** What the numbers of listeners count: sockets of ports, sockets that get captured ports, frontends in the kernel. */
export function listenerText({ listeners: { tcp, udp }, kernel }: StatusJson): string {
  if (isForwardedByKernel(kernel))
    return `none: the kernel forwards TCP of ${plural(tcp, 'frontend')}, UDP of ${plural(udp, 'frontend')}`;
  const counts = `${formatCount(tcp)} TCP, ${formatCount(udp)} UDP`;
  return kernel === undefined ? counts : `${counts} sockets, which get all captured ports`;
}

/** The same, for little room. */
export function shortListenerText({ listeners: { tcp, udp }, kernel }: StatusJson): string {
  if (isForwardedByKernel(kernel)) return 'forwarded by the kernel';
  const counts = `${formatCount(tcp)} TCP ${formatCount(udp)} UDP`;
  return kernel === undefined ? `listeners ${counts}` : `captured by ${counts} sockets`;
}

/** Its mode begins with that word where no socket is in the way of packets. */
function isForwardedByKernel(kernel: StatusJson['kernel']): boolean {
  return kernel?.mode.startsWith('kernel') === true;
}
