import type { IpAddress } from '../model/address.js';
import { captureAddress } from '../model/capture-address.js';
import type { CapturePlan } from '../model/capture.js';
import type { PortSet } from '../model/port-set.js';

/** A frontend whose ports are captured. */
export interface CapturedFrontend {
  /** Matches `[a-z0-9][a-z0-9-]{0,62}`; no two of one family have the same. */
  readonly name: string;
  /** No wildcard. */
  readonly address: IpAddress;
  /** Less what must not be captured. Empty: nothing of that protocol. */
  readonly tcpPorts: PortSet;
  readonly udpPorts: PortSet;
  /** Of `captureSlots`. */
  readonly slot: number;
}

export interface CaptureInput {
  readonly instance: string;
  readonly plan: CapturePlan;
  /** UDP sockets a frontend, at the ports from `plan.port`; at least 1. */
  readonly workers: number;
  readonly frontends: readonly CapturedFrontend[];
  /** How long conntrack keeps a captured UDP flow without datagrams; longer than any rule's idle timeout. */
  readonly udpEntrySeconds: number;
}

/**
 * Packets that TPROXY takes have this mark, under this mask: 0x68 is the h of haports. Other bits stay as they are:
 * kube-proxy and Calico, Cilium and Tailscale use bits of the lower three bytes unless told otherwise.
 */
export const CAPTURE_MARK = { value: 0x6800_0000, mask: 0xff00_0000 };

/** The names of a frontend's sets, or maps, in the table. */
export function captureSetNames({ name, address }: CapturedFrontend): {
  readonly tcp: string;
  readonly udp: string;
} {
  return { tcp: `tcp${address.family}-${name}`, udp: `udp${address.family}-${name}` };
}

/** Whether its TCP ports are captured. */
export function tcpPorts(frontend: CapturedFrontend): boolean {
  return frontend.tcpPorts.length > 0;
}

/** Whether its UDP ports are captured. */
export function udpPorts(frontend: CapturedFrontend, plan: CapturePlan): boolean {
  return plan.udp === 'redirect' && frontend.udpPorts.length > 0;
}

/** Whether it needs its private addresses. */
export function needsPrivateAddresses(frontend: CapturedFrontend, plan: CapturePlan): boolean {
  return (plan.tcp === 'dnat-map' && tcpPorts(frontend)) || udpPorts(frontend, plan);
}

/** All private addresses of a frontend: an IPv4 slot is a /16, an IPv6 one a /80. */
export function slotPrefix({ address, slot }: CapturedFrontend, plan: CapturePlan): string {
  return `${captureAddress(address.family, slot, 0, plan.block).text}/${address.family === 4 ? 16 : 80}`;
}
