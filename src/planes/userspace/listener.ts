import type { IpAddress, Protocol } from '../../model/address.js';
import type { Frontend, Rule } from '../../model/configuration.js';
import type { UdpFlowState } from '../contract.js';
import type { CapturedEnds, CapturedPorts } from './captured-ports.js';

/** What a socket gets on behalf of many ports: of TCP those of all frontends of a family, of UDP those of one. */
export type Captured =
  | { readonly protocol: 'tcp'; readonly ends: CapturedEnds }
  | { readonly protocol: 'udp'; readonly ports: CapturedPorts };

/**
 * One wanted socket and the rule it serves. `rule`, `ruleIndex`, `frontend` and `captured` are replaced at each apply.
 * A captured one is bound to a private address and port, and serves what `captured` says; `rule` and `frontend` are then
 * the first of those.
 */
export interface ListenerBinding {
  readonly protocol: Protocol;
  readonly address: IpAddress;
  readonly port: number;
  rule: Rule;
  /** Index of the rule in the present forwarding state. */
  ruleIndex: number;
  frontend: Frontend;
  /** Absent: the socket is bound to the frontend's own address and port. */
  captured?: Captured;
  /**
   * Workers share a TCP socket, and one of them tells of it in reports and counters: another than this.
   * @default false
   */
  readonly reportedElsewhere?: boolean;
}

/** A listening socket. Its flows are not its own: they end through the flow manager. */
export interface Listener {
  readonly binding: ListenerBinding;
  /** Takes new flows from now on, those that came since it was bound first. Idempotent; not after `close`. */
  serve(): void;
  /**
   * Takes no new flows from now on. TCP: the listening socket closes. UDP: datagrams of existing flows and their
   * replies still pass, for they use this socket; it closes with its last flow. Who came before `serve` is turned
   * away. Idempotent.
   */
  close(): void;
  /** Closes the socket whatever flows are left on it. */
  destroy(): void;
  /** Node's own object under the socket, which another process may get; undefined where there is none. */
  rawHandle?(): object | undefined;
  /** UDP: see HandOverPlane.freezeUdp. TCP has no such flows. */
  freeze?(): readonly UdpFlowState[];
  thaw?(): void;
}

export interface ListenerFactory {
  /** Resolves once the socket is bound; new flows wait for `serve`. Rejects with the system's error (`EADDRINUSE`, `EACCES`, ...). */
  open(binding: ListenerBinding): Promise<Listener>;
}
