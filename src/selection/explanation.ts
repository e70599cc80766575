import type { AdminState } from '../model/configuration.js';
import type { Protocol } from '../model/five-tuple.js';
import type { Exclusion } from '../model/forwarding-state.js';
import type { KernelMode } from '../model/kernel-options.js';
import type { HealthState } from '../model/probe.js';
import type { AllDownAction, Distribution, FlowPolicy } from '../model/rule.js';
import type { HashedField } from './flow-hash.js';
import type { PickResult } from './pick-result.js';

/** Everything that led to a decision, as plain data: addresses are text, bytes are hex. What `explain` prints. */
export interface Explanation {
  /** Of the forwarding state that was asked. */
  readonly revision: number;
  readonly configDigest: string;
  /** As in formatFiveTuple. */
  readonly tuple: string;
  readonly protocol: Protocol;
  /** Ids of backends left out by the caller: tried in vain, or at their cap. */
  readonly excluded: readonly string[];
  /** The decision itself, word for word what the data plane's picker answers. */
  readonly result: PickResult;
  /** Absent where the userspace data plane serves. */
  readonly kernelMode?: KernelMode;
  /** Absent where no rule covers the tuple. */
  readonly rule?: ExplainedRule;
  /** Rules that cover the tuple too but yield; where none covers it, every rule and what does not fit. */
  readonly otherRules: readonly OtherRule[];
  readonly access?: ExplainedAccess;
  /** Absent without a rule or where access is denied, as everything below. */
  readonly key?: ExplainedKey;
  readonly table?: ExplainedTable;
  readonly candidates: readonly Candidate[];
  /**
   * Where the flow is dialled, or the destination with which its packets reach the backend; present where a backend was
   * picked.
   */
  readonly endpoint?: ExplainedEndpoint;
  /** Of the kernel data plane's mode `next-hop`. */
  readonly wayBack?: ExplainedWayBack;
  readonly timeouts: readonly ExplainedTimeout[];
  readonly behaviour?: ExplainedBehaviour;
}

export interface ExplainedRule {
  readonly name: string;
  readonly haPorts: boolean;
  /** As in formatPortSet. */
  readonly ports: string;
  readonly frontend: string;
  readonly frontendAddress: string;
  readonly backendPool: string;
  readonly probe?: string;
}

export interface OtherRule {
  readonly name: string;
  readonly why:
    | 'exact-address-wins'
    | 'named-port-wins'
    | 'earlier-rule-wins'
    | 'other-protocol'
    | 'other-address'
    | 'other-port';
}

export interface ExplainedAccess {
  readonly admitted: boolean;
  readonly because: 'no-lists' | 'not-denied' | 'allow' | 'deny' | 'not-allowed';
  /** The entry that decided, where one did. */
  readonly block?: string;
}

/** One field of the hash input, in the order hashed. */
export interface KeyField {
  readonly name: HashedField;
  readonly hex: string;
  readonly value: string;
}

export interface ExplainedKey {
  readonly distribution: Distribution;
  readonly symmetric: boolean;
  /** The destination endpoint is hashed first: symmetric, and it is the lower one. */
  readonly destinationFirst: boolean;
  readonly fields: readonly KeyField[];
  /** xxh32 in the userspace plane, jhash in the kernel. */
  readonly algorithm: 'xxh32' | 'jhash';
  /** All fields joined: what xxhsum is fed to check the hash. */
  readonly hex: string;
  readonly seed: number;
  readonly hash: number;
}

export interface ExplainedTable {
  readonly size: number;
  /** Nobody is eligible and the rule says fail-open: all members but those switched down share the table. */
  readonly failOpen: boolean;
  /** `hash mod size`; with jhash `hash * size / 2^32`, rounded down. */
  readonly slot: number;
  /** Id of the slot's backend. The result differs from it where this one is excluded. */
  readonly owner: string;
  /** Priority of the group that serves. */
  readonly servingPriority?: number;
  /** UDP rule that balances each datagram: `slot` is the first one's, each further one starts a slot later. */
  readonly perPacket: boolean;
}

export interface Candidate {
  readonly id: string;
  readonly name: string;
  readonly address: string;
  readonly health: HealthState;
  readonly adminState: AdminState;
  readonly configuredWeight: number;
  /** Differs from the configured weight where the probe's header sets it. */
  readonly effectiveWeight: number;
  readonly priority: number;
  /** May keep the flows that it has. */
  readonly valid: boolean;
  /** Slots of the table in use, and their share of it, 0 to 1. */
  readonly slots: number;
  readonly share: number;
  readonly chosen: boolean;
  /** Why it could not be chosen. Absent on backends that were in the running but not in the slot. */
  readonly skipped?: Exclusion | 'excluded';
}

export interface ExplainedEndpoint {
  readonly address: string;
  readonly port: number;
  /** As in formatEndpoint. */
  readonly text: string;
  /** The address is the backend's alias for the frontend (floating IP); with the kernel data plane the frontend's own. */
  readonly floatingIp: boolean;
  readonly portOffset: number;
}

/** How the other direction of the flow meets the same backend. */
export interface ExplainedWayBack {
  /** As in formatFiveTuple. */
  readonly tuple: string;
  /**
   * `hash`: both directions have the same, whoever sees them first. `flow`: the kernel remembers it, as long as both
   * directions come by and it is not idle for too long. `nothing`: each direction is hashed by itself.
   */
  readonly sameBy: 'hash' | 'flow' | 'nothing';
  /** Backend that a first packet in this direction would get; absent where no rule covers it, or nobody is eligible. */
  readonly hashedTo?: string;
}

export interface ExplainedTimeout {
  readonly name: 'idle' | 'connect attempt' | 'embryonic' | 'PROXY header';
  readonly valueMs: number;
  /** Which part of the configuration it is from; `default` where known to be nobody's wish. */
  readonly origin: 'default' | 'rule' | 'frontend' | 'pool' | 'limits';
}

export interface ExplainedBehaviour {
  readonly flowPolicy: FlowPolicy;
  readonly allDown: AllDownAction;
  /** RST to both ends on TCP idle. */
  readonly tcpReset: boolean;
  /** Backends tried before a new TCP flow is given up. */
  readonly connectAttempts: number;
}
