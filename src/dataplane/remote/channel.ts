/** What may go along with a message: Node's own object under a socket. */
export interface SentHandle {
  readonly handle: unknown;
  /** Called when it has gone, or cannot. */
  release(): void;
}

/**
 * Two-way, ordered, structured-clone messages to another process. `send` on a closed channel is a silent no-op: the
 * close is told by `onClose`.
 */
export interface Channel {
  send(message: unknown, sent?: SentHandle): void;
  /** A handle that comes along is the listener's, to be closed. */
  onMessage(listener: (message: unknown, handle?: unknown) => void): void;
  onClose(listener: () => void): void;
}
