import type { TrafficTotals } from '../../../flows/flow.js';
import { formatEndpoint, ipAddress, type IpAddress } from '../../../model/address.js';
import { errorCode } from '../../../model/errors.js';
import type { FlowEndReason, FlowRecord, FlowState, PlacementReason } from '../../../model/flow.js';
import type { Files } from '../../../runtime/files.js';
import type { FlowQuery, TableUse } from '../../contract.js';
import { copied, type ConntrackEntry, type EntryFollower } from '../../netfilter/conntrack.js';
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

/** Flows by key, and in slots, so that they can be read page by page while others come and go. */
export class MirroredFlows {
  readonly #byKey = new Map<number, MirroredFlow>();
  readonly #slots: (MirroredFlow | undefined)[] = [];
  readonly #freeSlots: number[] = [];

  get size(): number {
    return this.#byKey.size;
  }

  get(key: number): MirroredFlow | undefined {
    return this.#byKey.get(key);
  }

  add(flow: MirroredFlow): void {
    flow.slot = this.#freeSlots.pop() ?? this.#slots.length;
    this.#slots[flow.slot] = flow;
    this.#byKey.set(flow.key, flow);
  }

  remove(flow: MirroredFlow): void {
    this.#byKey.delete(flow.key);
    this.#slots[flow.slot] = undefined;
    this.#freeSlots.push(flow.slot);
  }

  all(): Iterable<MirroredFlow> {
    return this.#byKey.values();
  }

  /** Those that match, and where to go on. */
  page(query: FlowQuery): { readonly flows: readonly MirroredFlow[]; readonly next?: number } {
    const flows: MirroredFlow[] = [];
    for (let slot = query.after ?? 0; slot < this.#slots.length; slot++) {
      const flow = this.#slots[slot];
      if (flow === undefined || !matchesQuery(flow, query)) continue;
      if (flows.length === query.limit) return { flows, next: slot };
      flows.push(flow);
    }
    return { flows };
  }
}

/** An entry of conntrack, or what is made to look like one. */
export interface KernelFlowEntry extends ConntrackEntry {
  /** Since its last packet; absent: to be told from the time that is left. */
  readonly idleMs?: number;
}

/** Where the kernel's flows are read from. */
export interface EntrySource {
  /** Tells of flows that come and go until the returned function is called; absent: they can only be listed. */
  follow?(follower: EntryFollower): () => void;
  /** All there are now, in batches. False: they could not be read. Never rejects. */
  list(onEntries: (entries: readonly KernelFlowEntry[]) => void): Promise<boolean>;
}

/** What a flow is known by. Ids have 32 bits: of 100,000 flows two may well have the same. */
export function flowKey({ id, original }: Pick<ConntrackEntry, 'id' | 'original'>): number {
  return id * 0x10000 + original.sourcePort;
}

/** IANA numbers. */
export const TCP = 6;
export const UDP = 17;

type Ending = Pick<ConntrackEntry, 'protocol' | 'state' | 'unreplied'>;

/** Why a flow went that no program deleted, from how conntrack saw it last. */
export function naturalEnd({ protocol, state, unreplied }: Ending): FlowEndReason {
  if (protocol !== TCP) return 'idle';
  switch (state) {
    case 'SYN_SENT':
    case 'SYN_SENT2':
      return unreplied ? 'connect-failed' : 'embryonic-timeout';
    case 'SYN_RECV':
      return 'embryonic-timeout';
    case 'CLOSE':
      // A backend that refuses has not answered, as conntrack sees it.
      return unreplied ? 'connect-failed' : 'reset';
    case 'ESTABLISHED':
    case 'FIN_WAIT':
    case 'CLOSE_WAIT':
      return 'idle';
    default:
      return 'closed';
  }
}

/** What a connection that failed says of its backend, as the userspace plane words it; undefined: nothing. */
export function failureEvidence(entry: Ending): string | undefined {
  if (naturalEnd(entry) !== 'connect-failed') return undefined;
  return entry.state === 'CLOSE' ? 'ECONNREFUSED' : 'connect timeout';
}

const FOLDER = '/proc/sys/net/netfilter';

/** What a socket of conntrack may hold before events are lost: it does not get the buffer that conntrack -b asks for. */
const BUFFER = '/proc/sys/net/core/rmem_default';

/** An event takes 1,280 bytes of it, as measured: room for 6,500, a third of a second of 20,000 new flows a second. */
const WANTED_BUFFER_BYTES = 8_388_608;
const EVENT_BYTES = 1280;

/** Entries of conntrack, everybody's, and how many there may be; undefined: it is not there. Never rejects. */
export async function conntrackUse(files: Files): Promise<TableUse | undefined> {
  const [used, limit] = await Promise.all([
    readNumber(files, `${FOLDER}/nf_conntrack_count`),
    readNumber(files, `${FOLDER}/nf_conntrack_max`),
  ]);
  return used === undefined || limit === undefined ? undefined : { used, limit };
}

/** What flows cannot tell of themselves for want of a sysctl, a sentence each. Never rejects. */
export async function missingAccounts(files: Files): Promise<readonly string[]> {
  const wanted = [
    ['nf_conntrack_acct', 'Bytes and packets of flows are not counted'],
    ['nf_conntrack_events', 'Flows are seen when they are looked for, not when they come and go'],
    ['nf_conntrack_timestamp', 'Flows older than this process seem to begin with it'],
  ] as const;
  const missing = await Promise.all(
    wanted.map(async ([name, effect]) => {
      const value = await readNumber(files, `${FOLDER}/${name}`);
      return value === undefined || value > 0 ? [] : [`${effect}: net.netfilter.${name} is 0, must be 1`];
    }),
  );
  const bufferBytes = await readNumber(files, BUFFER);
  return [...missing.flat(), ...bufferShortcoming(bufferBytes)];
}

function bufferShortcoming(bytes: number | undefined): string[] {
  if (bytes === undefined || bytes >= WANTED_BUFFER_BYTES) return [];
  const events = Math.floor(bytes / EVENT_BYTES);
  return [
    `Of more than ${events} flows that come or go at once some are found late, and short ones never: net.core.rmem_default is ${bytes}, should be ${WANTED_BUFFER_BYTES}`,
  ];
}

async function readNumber(files: Files, path: string): Promise<number | undefined> {
  try {
    const value = Number((await files.readText(path)).trim());
    return Number.isFinite(value) ? value : undefined;
  } catch (error) {
    // Conntrack is a module that may not be loaded yet.
    if (errorCode(error) !== undefined) return undefined;
    throw error;
  }
}
