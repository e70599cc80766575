import type { Probe } from '../model/probe.js';

/** Source: PROXY protocol (haproxy.org/download/3.0/doc/proxy-protocol.txt), section 2.1, "UNKNOWN". */
const V1_UNKNOWN = Buffer.from('PROXY UNKNOWN\r\n', 'latin1');

/** Section 2.2: the signature, then version 2 with command LOCAL, family UNSPEC, no addresses. */
const V2_LOCAL = Buffer.from([
  0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x20, 0x00, 0x00, 0x00,
]);

/** What a probe sends first: a header that says "from the balancer itself". Empty for `none`. */
export function probeProxyHeader(probe: Probe): Uint8Array {
  if (probe.sendProxy === 'none') return new Uint8Array(0);
  return probe.sendProxy === 'v1' ? V1_UNKNOWN : V2_LOCAL;
}
