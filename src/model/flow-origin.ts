/**
 * An entry of the kernel's connection tracking, of a datagram that was redirected to a socket of this process: where
 * the socket sees it come from, who truly sent it and where to.
 */
export interface FlowOrigin {
  /** Another entry has another. */
  readonly id: number;
  /** The address that the redirected datagrams are delivered to. */
  readonly receiver: string;
  /** The client as the receiver sees it: no two entries of a receiver have the same. */
  readonly seenAddress: string;
  readonly seenPort: number;
  /** The client as it is. */
  readonly source: string;
  readonly sourcePort: number;
  /** Where it sent to. */
  readonly destination: string;
  readonly destinationPort: number;
  /** After so long without a datagram the entry goes; 0 where that was not told. */
  readonly remainingMs: number;
}

export interface OriginFollower {
  onNew(origin: FlowOrigin): void;
  onGone(origin: FlowOrigin): void;
  /** What is known may be wrong: events were lost. Also once at the start, when events have begun to come. */
  onGap(): void;
}

/** Tells of the kernel's entries whose receivers have one port. */
export interface OriginFeed {
  /** Until the returned function is called. */
  follow(port: number, follower: OriginFollower): () => void;
  /** All there are now; undefined: it could not be found out. Never rejects. */
  list(port: number): Promise<readonly FlowOrigin[] | undefined>;
}
