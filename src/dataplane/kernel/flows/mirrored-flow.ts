import type { TrafficTotals } from '../../../flow/traffic.js';
import { formatEndpoint, ipAddress, type IpAddress } from '../../../model/address.js';
import type { FlowRecord, FlowState, PlacementReason } from '../../../model/flow.js';
import type { ConntrackEntry } from '../../../nft/conntrack-entry.js';
import { copied } from '../../../nft/conntrack-text.js';
import type { FlowQuery } from '../../data-plane.js';
import { flowKey } from './entry-source.js';
import type { Placement } from './state-history.js';

/** A flow of TCP or UDP that the kernel has. */
export interface MirroredFlow {
  readonly key: number;
  /** Unique in the process. */
  readonly id: number;
  /** Text: an address object for each flow would take most of the memory. */
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
  readonly openedAtMs: number;
  backendAddress: IpAddress;
  backendPort: number;
  reason: PlacementReason;
  epoch: number;
  excluded: readonly string[];
  /** Of its rule, backend and protocol. */
  totals: TrafficTotals;
  /** As conntrack names it; '' without one. */
  state: string;
  lastPacketAtMs: number;
  bytesToBackend: number;
  packetsToBackend: number;
  bytesToClient: number;
  packetsToClient: number;
  /** The last listing that had it, or that began before it. */
  round: number;
  /** In the list of all; kept by MirroredFlows. */
  slot: number;
}

export interface NewFlowParts extends Pick<MirroredFlow, 'id' | 'totals' | 'round'> {
  readonly nowMs: number;
}

/** One that has carried nothing yet. */
export function newFlow(
  entry: ConntrackEntry,
  { rule, backend, reason, epoch, excluded }: Placement,
  { id, totals, round, nowMs }: NewFlowParts,
): MirroredFlow {
  const { original, state, ageSeconds = 0 } = entry;
  return {
    ...{ key: flowKey(entry), id },
    source: copied(original.source),
    sourcePort: original.sourcePort,
    destination: copied(original.destination),
    destinationPort: original.destinationPort,
    openedAtMs: nowMs - ageSeconds * 1000,
    backendAddress: backend.address,
    backendPort: original.destinationPort + rule.portOffset,
    ...{ reason, epoch, excluded, totals, state, round },
    lastPacketAtMs: nowMs,
    ...{ bytesToBackend: 0, packetsToBackend: 0, bytesToClient: 0, packetsToClient: 0 },
    slot: 0,
  };
}

/** As it is shown and logged. */
export function flowRecord(flow: MirroredFlow, nowMs: number): FlowRecord {
  const { id, totals, backendAddress, reason, epoch, excluded, openedAtMs } = flow;
  return {
    id,
    tuple: {
      protocol: totals.protocol,
      source: ipAddress(flow.source),
      sourcePort: flow.sourcePort,
      destination: ipAddress(flow.destination),
      destinationPort: flow.destinationPort,
    },
    rule: totals.rule,
    backendId: totals.backendId,
    backendEndpoint: formatEndpoint(backendAddress, flow.backendPort),
    state: flowState(flow.state),
    ...{ reason, epoch, excluded, openedAtMs },
    // The kernel counts what is left of a timeout in whole seconds: no flow is idle for longer than it lives.
    idleMs: Math.max(0, nowMs - Math.max(flow.lastPacketAtMs, openedAtMs)),
    bytesToBackend: flow.bytesToBackend,
    packetsToBackend: flow.packetsToBackend,
    bytesToClient: flow.bytesToClient,
    packetsToClient: flow.packetsToClient,
  };
}

/** Takes over what the kernel has counted, into the totals too. */
export function countTraffic(flow: MirroredFlow, { original, reply }: ConntrackEntry): void {
  const { totals } = flow;
  // Where the kernel stops counting, what it has counted is not lost.
  totals.bytesToBackend += Math.max(0, original.bytes - flow.bytesToBackend);
  totals.packetsToBackend += Math.max(0, original.packets - flow.packetsToBackend);
  totals.bytesToClient += Math.max(0, reply.bytes - flow.bytesToClient);
  totals.packetsToClient += Math.max(0, reply.packets - flow.packetsToClient);
  flow.bytesToBackend = Math.max(flow.bytesToBackend, original.bytes);
  flow.packetsToBackend = Math.max(flow.packetsToBackend, original.packets);
  flow.bytesToClient = Math.max(flow.bytesToClient, reply.bytes);
  flow.packetsToClient = Math.max(flow.packetsToClient, reply.packets);
}

export function matchesQuery(flow: MirroredFlow, query: Omit<FlowQuery, 'after' | 'limit'>): boolean {
  if (query.sourcePort !== undefined && flow.sourcePort !== query.sourcePort) return false;
  if (query.source !== undefined && flow.source !== query.source) return false;
  if (query.protocol !== undefined && flow.totals.protocol !== query.protocol) return false;
  if (query.rule !== undefined && flow.totals.rule !== query.rule) return false;
  return query.backendId === undefined || flow.totals.backendId === query.backendId;
}

/** Whether they have one five-tuple, that they have one key being known. */
export function isSame(flow: MirroredFlow, { original }: ConntrackEntry): boolean {
  return (
    flow.source === original.source &&
    flow.destination === original.destination &&
    flow.destinationPort === original.destinationPort
  );
}

/** Whether both ends are done with it, although the kernel remembers it for a while. */
export function isClosed(state: string): boolean {
  return state === 'TIME_WAIT' || state === 'CLOSE';
}

function flowState(state: string): FlowState {
  switch (state) {
    case 'SYN_SENT':
    case 'SYN_SENT2':
    case 'SYN_RECV':
      return 'embryonic';
    case 'FIN_WAIT':
    case 'CLOSE_WAIT':
    case 'LAST_ACK':
      return 'half-closed';
    default:
      return 'established';
  }
}
