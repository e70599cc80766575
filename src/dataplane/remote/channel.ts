/**
 * Two-way, ordered, structured-clone messages to another process. `send` on a closed channel is a silent no-op: the
 * close is told by `onClose`.
 */
export interface Channel {
  send(message: unknown): void;
  onMessage(listener: (message: unknown) => void): void;
  onClose(listener: () => void): void;
}
