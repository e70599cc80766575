import type { CapShares, CapUses } from '../flows/caps.js';
import type { FlowPast, TrafficTotals } from '../flows/flow.js';
import type { ArrivalTotals } from '../flows/traffic.js';
import type { FiveTuple, IpAddress, Protocol } from '../model/address.js';
import type { CapturePlan } from '../model/capture.js';
import { BalancerError } from '../model/errors.js';
import type { AppliedReport, KernelReport, ListenFailure, PlaneEvent } from '../model/events.js';
import type { FlowFilter, FlowRecord } from '../model/flow.js';
import type { ForwardingState } from '../model/forwarding.js';

/** What a plane answers to an apply. */
export type ApplyReport = AppliedReport;

export interface FlowQuery extends FlowFilter {
  /** `next` of the page before; absent: from the start. */
  readonly after?: number;
  /** 1-1000. */
  readonly limit: number;
}

export interface FlowPage {
  readonly flows: readonly FlowRecord[];
  /** Cursor of the next page; absent: this was the last. */
  readonly next?: number;
}

export type TrafficCounters = Readonly<TrafficTotals>;

export type ArrivalCounters = Readonly<ArrivalTotals>;

export interface TableUse {
  readonly used: number;
  readonly limit: number;
}

/** Cumulative, as Prometheus wants it: `counts[i]` is how many took at most `boundsSeconds[i]`. */
export interface LatencyHistogram {
  readonly boundsSeconds: readonly number[];
  readonly counts: readonly number[];
  readonly count: number;
  readonly sumSeconds: number;
}

/** Use of one (source address, backend) pair's local ports, where haports chooses them. */
export interface SourcePortUse {
  readonly backendId: string;
  readonly protocol: Protocol;
  readonly sourceAddress: string;
  readonly used: number;
  readonly available: number;
}

/** Flows of IP protocols that have no ports; the kernel plane alone carries them. */
export interface OtherFlowCount {
  readonly backendId: string;
  /** IP protocol number. */
  readonly protocol: number;
  readonly opened: number;
  readonly active: number;
}

/** What a plane knows of flows that the kernel keeps. */
export interface KernelFlowCounters {
  /** All entries of conntrack, not only ours; absent: without conntrack. */
  readonly conntrack?: TableUse;
  readonly otherFlows: readonly OtherFlowCount[];
  /** Live flows that are counted but not listed, since there are more than `limits` says. */
  readonly unlisted: number;
  /** Times that events of the kernel were lost, and all flows were listed anew. */
  readonly gaps: number;
}

export interface PlaneCounters {
  readonly traffic: readonly TrafficCounters[];
  readonly arrivals: readonly ArrivalCounters[];
  readonly table: Readonly<Record<'tcp' | 'udp' | 'embryonic', TableUse>>;
  /** Files and sockets that flows take, and may take. Absent: there is no limit, or flows take none. */
  readonly descriptors?: TableUse;
  /** By backend id: seconds from the first connect attempt to connected. */
  readonly connectSeconds: Readonly<Record<string, LatencyHistogram>>;
  readonly sourcePorts: readonly SourcePortUse[];
  /** Worst event-loop delay of the last 15 to 30 seconds, one entry a worker, in seconds; NaN: it is being replaced. */
  readonly eventLoopDelaySeconds: readonly number[];
  /** By frontend name: sockets listening, sockets wanted. */
  readonly listeners: Readonly<Record<string, { readonly open: number; readonly wanted: number }>>;
  readonly workersLost: number;
  /** Absent: the flows are not the kernel's. */
  readonly kernelFlows?: KernelFlowCounters;
}

export interface StopReport {
  /** Flows that finished by themselves, and flows that the deadline ended. */
  readonly finished: number;
  readonly reset: number;
}

/** Whether UDP flows may finish on a stop, which keeps their frontend ports bound. @default 'lame-duck' */
export type UdpStop = 'lame-duck' | 'at-once';

/**
 * How several workers have TCP ports: each port's socket in all of them, or in one alone. Decided once for the life of
 * the process, so that every worker and its replacement do the same.
 */
export type TcpPorts = 'shared' | 'owned';

export interface PlaneOptions {
  /** Whether flow-started, flow-ended and flow-moved are wanted. They cost memory and copies. */
  readonly flowEvents: boolean;
  /** @default 'shared' */
  readonly tcpPorts?: TcpPorts;
  /** Absent: every port has a socket of its own. */
  readonly capture?: CapturePlan;
}

/** Options of one data worker's part of a plane. */
export interface WorkerOptions extends PlaneOptions {
  /** Which of how many workers this is; 0 of 1 where there is one. */
  readonly worker: number;
  readonly workers: number;
}

/**
 * What moves the bytes. Both planes, and a plane behind a process boundary, keep this contract and pass the same
 * conformance suite. Everything that crosses it is plain data that survives structured clone.
 */
export interface DataPlane {
  /**
   * Starts listening and serving. Ports that cannot be bound are reported together and do not stop the rest.
   * Rejects with `LB_LISTEN_FAILED` only if listeners were wanted and not one could be bound.
   */
  start(state: ForwardingState): Promise<ApplyReport>;

  /**
   * Takes over a new forwarding state whole: decisions made after it resolves use it. Listeners that stay are not
   * closed; flows that lost their backend meet their rule's flow policy, and those of a backend whose drain has ended
   * are ended one after another over `endSpreadMs`. Calls are served one after another.
   *
   * A state with another configuration is taken over whole or not at all: what it adds is opened first, and if not
   * all of that can be, it rejects with `LB_LISTEN_FAILED` and nothing has changed. What was missing already
   * under the present configuration, or when the one before it was left, may stay missing: it is in the report. Flows of
   * a rule that has another name, and is the same otherwise, go on under the new name.
   */
  apply(state: ForwardingState): Promise<ApplyReport>;

  /** One page of the flow table, in no particular order. Flows that come and go between pages may be missed. */
  flows(query: FlowQuery): Promise<FlowPage>;

  counters(): Promise<PlaneCounters>;

  /** Resolves when every part of the plane that lives has answered: the question whether it is stuck. */
  answer(): Promise<void>;

  /** Live flows; cheap, and for a plane in another process up to a second old. */
  flowCount(): number;

  /** What it keeps in the kernel besides sockets; absent: nothing. */
  kernelReport?(): KernelReport;

  /** Calls the listener with batches of events until the returned function is called. */
  subscribe(listener: (events: readonly PlaneEvent[]) => void): () => void;

  /**
   * Takes no new flows from now on, lets flows finish for `deadlineMs`, then resets what is left. UDP flows count as
   * finished when they have been idle for a second; `udp: 'at-once'` ends them now, which frees their ports for a
   * successor. A second call may shorten the deadline. Idempotent.
   */
  stop(deadlineMs: number, udp?: UdpStop): Promise<StopReport>;
}

/*
 * What one of several data workers and its control process say to each other beyond HandOverPlane, so that several
 * workers keep within the same caps and sockets as one.
 */

/** One worker's part of a plane. */
export interface WorkerPlane extends HandOverPlane {
  /**
   * Opens what the state's configuration adds to the present one, so that the `apply` of it that follows can hardly
   * fail. They serve no client yet. Rejects as `apply` does, and nothing has changed. A `prepare` or `apply` of another
   * configuration, the present one too, undoes it.
   */
  prepare(state: ForwardingState): Promise<void>;
  /** Replaces the shares that are named, from now on; what is above them stays. */
  allow(shares: CapShares): void;
  /** Of every cap that is shared among workers. */
  capUses(): CapUses;
}

/** Asked before a worker listens on a TCP port that it shares with the other workers. */
export interface PortGate {
  /** Resolves with undefined if it may, else with why not: `EADDRINUSE`, `EACCES` ... A claim stands until its release. */
  claim(address: string, port: number): Promise<string | undefined>;
  /** After the listening socket is closed. */
  release(address: string, port: number): void;
}

/*
 * What one process gives to the one that takes its place. Listening sockets go over as they are: the kernel has one
 * socket, with one queue, and it lives as long as either process has it open. UDP flows go over as records.
 */

/** A listening socket on its way from one process to another. */
export interface ListeningSocket {
  readonly protocol: Protocol;
  readonly address: string;
  readonly port: number;
  /** Node's own object under a server or dgram socket. As it arrives it neither accepts nor reads. */
  readonly handle: unknown;
  /** Closes this process's copy; does nothing while a listener of this process uses it. Idempotent. */
  release(): void;
}

/** One UDP flow, as much of it as another process needs to go on with it. Plain data. */
export interface UdpFlowState extends FlowPast {
  readonly tuple: FiveTuple;
  /** The client's address as the system writes it. */
  readonly clientAddress: string;
  /** Of a flow through a captured socket: the client's port as that socket sees it. Absent: it came through another. */
  readonly clientPort?: number;
  readonly rule: string;
  readonly backendId: string;
  /** Where the backend is reached. */
  readonly endpoint: { readonly address: IpAddress; readonly port: number };
  /** Where the backend sees the flow come from. */
  readonly source: IpAddress;
  readonly sourcePort: number;
}

/** A plane whose sockets and UDP flows can pass to another process and come from one. */
export interface HandOverPlane extends DataPlane {
  /** Why this one cannot, and what to do instead; absent: it can. */
  whyNoHandOver?(): string | undefined;

  /** Gives each listening socket that is open; all of them are served on here. */
  lend(onSocket: (socket: ListeningSocket) => void): Promise<void>;

  /**
   * Takes nothing from UDP clients any more, which waits in the sockets meanwhile, and tells of the flows. Replies of
   * backends still pass. `thaw` or `stop` follows.
   */
  freezeUdp(): Promise<readonly UdpFlowState[]>;

  /** Resumes after `freezeUdp`, with waiting datagrams first. */
  thawUdp(): Promise<void>;

  /** Before `start`: sockets that it serves on instead of opening such itself. It owns them; what it does not need it closes. */
  inherit(sockets: readonly ListeningSocket[]): Promise<void>;

  /** Before `start`: flows to continue, where their backends may keep them. */
  inheritFlows(flows: readonly UdpFlowState[]): void;
}

/** Whether its sockets and flows can pass to another process. */
export function canHandOver(plane: DataPlane): plane is HandOverPlane {
  return 'lend' in plane;
}

/** The socket that came with a message. The receiver owns it. */
export function receivedSocket(
  { protocol, address, port }: Pick<ListeningSocket, 'protocol' | 'address' | 'port'>,
  handle: unknown,
): ListeningSocket {
  let open = true;
  return {
    ...{ protocol, address, port, handle },
    release() {
      if (open && isClosable(handle)) handle.close();
      open = false;
    },
  };
}

function isClosable(handle: unknown): handle is { close(): void } {
  return typeof handle === 'object' && handle !== null && 'close' in handle;
}

/** Whether a start has failed: sockets were wanted, and there is not one. */
export function isDeaf({ listeners, failures }: ApplyReport): boolean {
  return listeners.tcp + listeners.udp === 0 && failures.length > 0;
}

/** The error of such a start. */
export function listenFailed(failures: readonly ListenFailure[]): BalancerError {
  return listenError(`Cannot listen on any of ${failures.length} ports`, failures);
}

/** The error of an apply whose configuration adds what cannot be opened. `advice`: what helps. */
export function cannotAdd(failures: readonly ListenFailure[], advice?: string): BalancerError {
  const ports = failures.length === 1 ? 'a port' : `${failures.length} ports`;
  return listenError(`Cannot listen on ${ports} that the new configuration adds`, failures, advice);
}

function listenError(what: string, failures: readonly ListenFailure[], advice?: string): BalancerError {
  const [first] = failures;
  const example =
    first === undefined
      ? ''
      : `, first ${first.protocol} ${first.address} port ${first.port}: ${first.errorCode}`;
  const help = advice === undefined ? '' : `; ${advice}`;
  return new BalancerError(`${what}${example}${help}`, { code: 'LB_LISTEN_FAILED', source: 'system' });
}

/** A page of the flow table: the largest that a plane gives. */
const PAGE = 1000;

/** The flow table page by page, never as a whole. Flows that come and go meanwhile may be missed or be there twice. */
export async function* allFlows(
  plane: Pick<DataPlane, 'flows'>,
  query: Omit<FlowQuery, 'after' | 'limit'> = {},
): AsyncGenerator<FlowRecord> {
  let after: number | undefined;
  do {
    const page = await plane.flows({ ...query, limit: PAGE, ...(after === undefined ? {} : { after }) });
    yield* page.flows;
    after = page.next;
  } while (after !== undefined);
}
