import type { IpAddress } from '../model/address.js';
import type { FiveTuple, Protocol } from '../model/five-tuple.js';
import type { DataPlane } from './data-plane.js';

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
  /** Closes this process's copy; does nothing where a listener of this process goes on using it. Idempotent. */
  release(): void;
}

/** One UDP flow, as much of it as another process needs to go on with it. Plain data. */
export interface UdpFlowState {
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
  /** Milliseconds since the epoch. */
  readonly openedAtMs: number;
  readonly bytesToBackend: number;
  readonly packetsToBackend: number;
  readonly bytesToClient: number;
  readonly packetsToClient: number;
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

  /** Goes on after `freezeUdp`, with what has waited first. */
  thawUdp(): Promise<void>;

  /** Before `start`: sockets that it serves on instead of opening such itself. It owns them; what it does not need it closes. */
  inherit(sockets: readonly ListeningSocket[]): Promise<void>;

  /** Before `start`: flows that it goes on with, where their backends may keep them. */
  inheritFlows(flows: readonly UdpFlowState[]): void;
}

/** Whether its sockets and flows can pass to another process. */
export function canHandOver(plane: DataPlane): plane is HandOverPlane {
  return 'lend' in plane;
}

/** The socket that a message brought along. Whoever gets it owns it. */
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
