import type { Cidr } from './cidr.js';
import type { PortSet } from './port-set.js';

/*
 * Capture: the kernel steers every port of the frontends to a few sockets, so that no port needs a socket of its own.
 * It stands and falls with an nft table that this process owns.
 */

/**
 * How TCP gets to its one socket. `dnat-map`: a map gives every port a private address of this machine, which the
 * accepted socket tells. `tproxy`: the packets stay as they are, which needs a transparent socket from outside.
 */
export type TcpCapture = 'dnat-map' | 'tproxy';

/** `redirect`: one socket a frontend, and conntrack tells where a datagram was sent. `bind`: one socket a port. */
export type UdpCapture = 'redirect' | 'bind';

/** What the operator asks for. */
export interface CaptureOptions {
  /** `auto`: tproxy where transparent sockets were handed in, else dnat-map. @default 'auto' */
  readonly mode: 'auto' | TcpCapture;
  /** @default 'redirect' */
  readonly udp: UdpCapture;
  /** Never captured on any frontend, and already left out of the rules' ports. @default 22 */
  readonly excludedPorts: PortSet;
  /** What a start does where capture is impossible: fail, or a socket a port. @default 'none' */
  readonly fallback: 'none' | 'bind';
  /** TCP port of the socket; the UDP port of worker `w` is this plus `w`. @default 61000 */
  readonly port: number;
  /** IPv4 addresses that stand for ports, a /16 for each frontend; prefix 4 to 16. @default 240.0.0.0/4 */
  readonly block: Cidr;
}

/** What is done about it, decided once for the life of the process. */
export interface CapturePlan {
  readonly tcp: TcpCapture;
  readonly udp: UdpCapture;
  readonly port: number;
  readonly block: Cidr;
  /** With `tproxy`: descriptors of transparent, listening TCP sockets, by family, as the data process has them. */
  readonly descriptors?: Readonly<Partial<Record<4 | 6, number>>>;
}
