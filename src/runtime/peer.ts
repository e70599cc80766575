import { spawn, type ChildProcess, type SendHandle } from 'node:child_process';

/*
 * Node's own channel between two processes, which can carry sockets, and the start of the process that takes this one's
 * place in an upgrade.
 */

/** What may go along with a message: Node's own object under a socket. */
export interface SentHandle {
  readonly handle: unknown;
  /** Called when it has gone, or cannot go. */
  release(): void;
}

/**
 * Two-way, ordered, structured-clone messages to another process. `send` on a closed channel does nothing but release:
 * `onClose` reports the close.
 */
export interface Channel {
  send(message: unknown, sent?: SentHandle): void;
  /** A handle that comes along belongs to the listener, which closes it. */
  onMessage(listener: (message: unknown, handle?: unknown) => void): void;
  onClose(listener: () => void): void;
}

export interface PeerChannel extends Channel {
  /** Says no more. Neither process ends by it. */
  close(): void;
}

/** What a child with an `ipc` stream, and `process` in such a child, have in common. */
interface ChannelEnd {
  readonly connected: boolean;
  on(event: 'message', listener: (message: unknown, handle: unknown) => void): unknown;
  once(event: 'disconnect', listener: () => void): unknown;
  removeAllListeners(event: 'message'): unknown;
  send?(message: object, handle?: SendHandle, options?: object, callback?: () => void): boolean;
  disconnect?(): void;
}

/** To a child, or, of `process`, to the parent. */
export function channelTo(end: ChannelEnd): PeerChannel {
  return {
    send(message, sent) {
      const released = (): void => sent?.release();
      // The callback keeps a process that died between the check and the write from being an uncaught error.
      if (end.connected)
        end.send?.(message as object, sent?.handle as SendHandle | undefined, undefined, released);
      else released();
    },
    onMessage: (listener) => void end.on('message', listener),
    onClose: (listener) => void end.once('disconnect', listener),
    close() {
      end.removeAllListeners('message');
      if (end.connected) end.disconnect?.();
    },
  };
}

/** A child with a channel, as this process sees it. */
export interface PeerProcess {
  readonly pid: number | undefined;
  readonly channel: Channel;
  /** Resolves with `exit code 1` or `signal SIGKILL` when it is gone. Never rejects. */
  readonly exited: Promise<string>;
  kill(): void;
}

export function peerOf(child: ChildProcess): PeerProcess & { readonly channel: PeerChannel } {
  const exited = new Promise<string>((resolve) => {
    child.once('exit', (code, signal) => resolve(signal === null ? `exit code ${code}` : `signal ${signal}`));
    child.once('error', (error) => resolve(error.message));
  });
  const closed = closeOf(child);
  const channel = { ...channelTo(child), onClose: (listener: () => void) => void closed.then(listener) };
  return { pid: child.pid, channel, exited, kill: () => child.kill('SIGKILL') };
}

/**
 * Resolves when the channel is closed. Node emits no `disconnect` for a child that dies while handles are on their way
 * to it (lib/internal/child_process.js, `target.disconnect`, Node 20); a cluster closes the worker's share of each
 * socket only then, so it is emitted here.
 */
function closeOf(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    let isClosed = false;
    const closed = (): void => {
      isClosed = true;
      resolve();
    };
    child.once('disconnect', closed);
    child.once('error', closed);
    child.once('exit', () => {
      // The end of the channel is read in this turn of the event loop or the next.
      const look = (): void => {
        if (child.connected) setImmediate(look);
        else if (!isClosed) child.emit('disconnect');
      };
      setImmediate(look);
    });
  });
}

/** A process that is to take this one's place. */
export interface SuccessorProcess extends PeerProcess {
  readonly channel: PeerChannel;
  /** This process no longer waits for its end. */
  letGo(): void;
}

/** How this process was started. */
export interface CommandLine {
  /** As it was called: a name is looked up in PATH anew. */
  readonly node: string;
  readonly nodeOptions: readonly string[];
  /** The script and what follows it. A path with symbolic links is followed anew. */
  readonly args: readonly string[];
}

/**
 * Starts the successor with the same command line, in a session of its own so that it outlives this process; its output
 * is this process's output.
 */
export function startSuccessor({ node, nodeOptions, args }: CommandLine): SuccessorProcess {
  // The watchdog's pid is this one's (sd_watchdog_enabled(3)).
  const env = { ...process.env, HAPORTS_UPGRADE: '1', WATCHDOG_PID: undefined };
  const child = spawn(node, [...nodeOptions, ...args], {
    detached: true,
    serialization: 'advanced',
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    env,
  });
  return { ...peerOf(child), letGo: () => child.unref() };
}

/** The channel to the process whose place this one takes; undefined: there is none. Call it once. */
export function predecessorChannel(): PeerChannel | undefined {
  if (process.env['HAPORTS_UPGRADE'] === undefined) return undefined;
  // Not for this process's own children.
  delete process.env['HAPORTS_UPGRADE'];
  return process.send === undefined ? undefined : channelTo(process);
}
